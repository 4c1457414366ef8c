"""Tries to get at another shop's data: for each route, requests that name what the other shop has.

Each has a twin that names what nobody has. Whoever may not see the other shop's things is answered the same to both.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from PIL import Image

from tests.importing.files import csv_of

Request = dict[str, Any]
"""As httpx takes it, without method and path."""


@dataclass(frozen=True)
class Names:
    """What a request may name: a shop's, or, in as many characters, nobody's."""

    product_id: int
    sku: str
    title: str
    category: str
    attribute: str
    value: str
    group_id: str
    price: str
    image_id: str
    path: str
    picture: bytes
    generated_image_id: int
    drawing_job_id: int
    import_job_id: int
    report_job_id: int
    idempotency_key: str

    def in_path(self, path: str) -> dict[str, object]:
        job_id = self.import_job_id if path.startswith("/product/import") else self.drawing_job_id
        job_id = self.report_job_id if path.startswith("/product/duplicates") else job_id
        return vars(self) | {"job_id": job_id, "name": "admin", "mode": "hybrid"}

    def in_place_of(self, others: "Names", text: str) -> str:
        """What an answer says again of what was asked."""
        pairs = [
            (written(str(theirs)), written(str(mine)))
            for theirs, mine in zip(vars(others).values(), vars(self).values(), strict=True)
            if not isinstance(theirs, bytes)
            for written in (str, lambda value: json.dumps(value)[1:-1])
        ]
        for theirs, mine in sorted(pairs, key=lambda pair: -len(pair[0])):  # one may be in another
            text = text.replace(theirs, mine)
        return text


@dataclass(frozen=True)
class Try:
    build: Callable[[Names, Random], Request]
    weight: int = 10
    has_twin: bool = True
    """Not where an answer depends on a text or picture as such: what is like them is found."""


def picture_of(rng: Random) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (24, 16), rng.randbytes(24 * 16 * 3)).save(buffer, "PNG")
    return buffer.getvalue()


OWN_PICTURE = picture_of(Random(5))
TEXT_SEARCHES: tuple[dict[str, Any], ...] = (
    {"mode": "text_to_text"},
    {"mode": "text_to_image"},
    {"mode": "text_to_text", "lexical": True},
    {"mode": "hybrid"},
)


def _nothing(_: Names, __: Random) -> Request:
    return {}


def _filters(names: Names, rng: Random) -> Mapping[str, Any]:
    choices: tuple[Mapping[str, Any], ...] = (
        {"category": [names.category]},
        {"price_min": float(names.price), "price_max": float(names.price)},
        {"attributes": {names.attribute: names.value}},
        {"attributes": {names.attribute: {"is_set": True}}},
        {"attributes": {names.attribute: {"any_of": [names.value, 1]}}},
        {"category": [names.category], "attributes": {names.attribute: {"none_of": ["x"]}}, "price_max": 99999},
    )
    return rng.choice(choices)


def _selection(names: Names, rng: Random) -> dict[str, Any]:
    choices: tuple[dict[str, Any], ...] = (
        {"q": names.sku},
        {"q": names.title},
        {"q": names.group_id},
        {"category": names.category},
        {"group_id": names.group_id},
        {"filters": json.dumps(_filters(names, rng))},
        {"q": names.title, "index_status": "indexed"},
    )
    return rng.choice(choices)


def _list(names: Names, rng: Random) -> Request:
    order = {
        "sort": rng.choice(["product_id", "-price", "title", "-created_at"]),
        "page_size": rng.choice([1, 20, 200]),
    }
    return {"params": _selection(names, rng) | order | {"page": rng.choice([1, 1, 2])}}


def _facets(names: Names, rng: Random) -> Request:
    names_of = ["category", "price", "attributes", f"attributes.{names.attribute}"]
    return {"params": _selection(names, rng) | {"facets": rng.sample(names_of, rng.randint(1, 3))}}


def _all(_: Names, rng: Random) -> Request:
    facets = ["category", "price", "attributes"]
    return {"params": rng.choice([{"page_size": 200}, {"facets": facets}, {"index_status": "indexed"}, {}])}


def _export(names: Names, rng: Random) -> Request:
    after = rng.choice([0, names.product_id - 1])
    return {"params": {"format": rng.choice(["csv", "jsonl", "zip"]), "after": after}}


def _pairs(_: Names, rng: Random) -> Request:
    return {"params": {"format": rng.choice(["csv", "jsonl"])}}


def _similar(_: Names, rng: Random) -> Request:
    mode = rng.choice(["image_to_image", "text_to_text", "image_to_text", "text_to_image", "hybrid"])
    return {"params": {"mode": mode, "top_k": 50, "fold": rng.choice(["true", "false"])}}


def _create(names: Names, rng: Random) -> Request:
    fields = {"title": "ours", "sku": names.sku, "group_id": names.group_id}
    picture = rng.choice([OWN_PICTURE, OWN_PICTURE, names.picture])
    headers = rng.choice([{}, {"Idempotency-Key": names.idempotency_key}])
    if rng.random() < 0.3:
        return {"data": fields | {"generated_image_id": names.generated_image_id}, "headers": headers}
    return {"data": fields, "files": {"image": ("a.png", picture)}, "headers": headers}


def _change(names: Names, rng: Random) -> Request:
    fields = rng.choice([{"title": "taken"}, {"price": "1"}, {"attributes": ""}, {"sku": "TAKEN"}])
    condition = rng.choice([{}, {"If-Match": "*"}, {"If-Match": f'"{names.product_id}-1"'}])
    request: Request = {"data": fields, "headers": condition}
    if rng.random() < 0.3:
        request["files"] = {"image": ("a.png", OWN_PICTURE)}
    return request


def _put(names: Names, rng: Random) -> Request:
    condition = rng.choice([{"If-Match": "*"}, {"If-Match": f'"{names.product_id}-1"'}, {}])
    return {"data": {"title": "taken"}, "headers": condition}  # without a picture it makes none


def _batch(names: Names, rng: Random) -> Request:
    changes: list[dict[str, Any]] = [{"price": 1}, {"title": "taken"}, {"attributes": {}}, {"category": None}]
    return {"json": {"products": [{"sku": names.sku, **rng.choice(changes)}]}}


def _add_image(names: Names, rng: Random) -> Request:
    if rng.random() < 0.5:
        return {"data": {"generated_image_id": names.generated_image_id}}
    return {"files": {"image": ("a.png", OWN_PICTURE)}}


def _order(names: Names, _: Random) -> Request:
    return {"json": {"image_ids": [names.image_id]}}


def _of_picture(names: Names, rng: Random) -> Request:
    return rng.choice([{}, {"headers": {"If-None-Match": f'"{names.image_id}"'}}, {"headers": {"If-None-Match": "*"}}])


def _search_like_product(names: Names, rng: Random) -> Request:
    mode = rng.choice(["image_to_image", "text_to_text", "image_to_text", "text_to_image", "hybrid"])
    asked: dict[str, Any] = {"product_id": names.product_id}
    if mode != "hybrid" and rng.random() < 0.5:
        asked = {"terms": [{"product_id": names.product_id, "weight": rng.choice([0.1, 1])}, {"text": "沙发"}]}
    return {"json": {"mode": mode, "top_k": 50, **asked}}


def _search_within(names: Names, rng: Random) -> Request:
    body = rng.choice(TEXT_SEARCHES) | {"text": "沙发", "top_k": 50}
    body["filters"] = _filters(names, rng)
    if rng.random() < 0.5:
        body["facets"] = ["category", "price", "attributes", f"attributes.{names.attribute}"]
    return {"json": body}


def _search(names: Names, rng: Random) -> Request:
    """For the very title and picture."""
    if rng.random() < 0.3:
        return {"data": {"mode": "image_to_image", "top_k": 50}, "files": {"image": ("a.png", names.picture)}}
    body = rng.choice(TEXT_SEARCHES) | {"text": names.title, "top_k": 50}
    more: tuple[dict[str, Any], ...] = (
        {},
        {"group_by": "group_id"},
        {"fold": True},
        {"sort": rng.choice(["price", "-price", "-created_at"])},
        {"facets": ["category", "price", "attributes"]},
        {"boost": [{"freshness_half_life_days": 30, "weight": 1}]},
        {"filters": {"price_min": 0}},
        {"filters": {"price_min": float(names.price), "price_max": float(names.price)}},
    )
    return {"json": body | rng.choice(more)}


def _import(names: Names, rng: Random) -> Request:
    rows = [("sku", "title", "price"), (names.sku, "taken", "1"), (names.sku + "-new", "", "")]
    mode = rng.choice(["create", "upsert", "replace_all"])
    return {"params": {"mode": mode}, "files": {"file": ("rows.csv", csv_of(*rows))}}


def _draw(names: Names, _: Random) -> Request:
    return {"json": {"prompt": names.title, "steps": 1, "seed": 3, "wait_s": 30}}


TRIES: dict[tuple[str, str], list[Try]] = {
    ("POST", "/product/import"): [Try(_import, 1, has_twin=False)],
    ("GET", "/product/import/{job_id}"): [Try(_nothing)],
    ("GET", "/product/import/{job_id}/errors"): [Try(_nothing)],
    ("POST", "/product/import/{job_id}/cancel"): [Try(_nothing)],
    ("GET", "/product/export"): [Try(_export, has_twin=False)],
    ("POST", "/product/duplicates"): [Try(_nothing, 1, has_twin=False)],
    ("GET", "/product/duplicates/{job_id}"): [Try(_nothing)],
    ("GET", "/product/duplicates/{job_id}/pairs"): [Try(_pairs)],
    ("POST", "/product/duplicates/{job_id}/cancel"): [Try(_nothing)],
    ("GET", "/product/{product_id}/duplicates"): [Try(_nothing)],
    ("GET", "/product/{product_id}/similar"): [Try(_similar)],
    ("POST", "/product"): [Try(_create)],
    ("GET", "/product/list"): [Try(_list, 30), Try(_all, has_twin=False)],
    ("GET", "/product/facets"): [Try(_facets, 30), Try(_all, has_twin=False)],
    ("GET", "/product/{product_id}"): [Try(_nothing)],
    ("PATCH", "/product/{product_id}"): [Try(_change)],
    ("DELETE", "/product/{product_id}"): [Try(_nothing)],
    ("POST", "/product/{product_id}/reindex"): [Try(_nothing)],
    ("POST", "/product/{product_id}/image"): [Try(_add_image)],
    ("DELETE", "/product/{product_id}/image/{image_id}"): [Try(_nothing)],
    ("PUT", "/product/{product_id}/images"): [Try(_order)],
    ("GET", "/product/by-sku/{sku:path}"): [Try(_nothing)],
    ("PUT", "/product/by-sku/{sku:path}"): [Try(_put)],
    ("PATCH", "/product"): [Try(_batch)],
    ("POST", "/search"): [
        Try(_search_like_product, 20),
        Try(_search_within, 30),
        Try(_search, 30, has_twin=False),
    ],
    ("POST", "/generate"): [Try(_draw, 1, has_twin=False)],
    ("GET", "/generate/{job_id}"): [Try(_nothing)],
    ("DELETE", "/generate/{job_id}"): [Try(_nothing)],
    ("GET", "/generate/{job_id}/events"): [Try(_nothing)],
    ("GET", "/images/{path:path}"): [Try(_of_picture, 30)],
    ("HEAD", "/images/{path:path}"): [Try(_of_picture)],
}
"""By method and path, for each route that a key of a shop may call. Of drawings and imports few, since they last."""

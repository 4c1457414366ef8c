"""Several shops in one service: nobody gets at what is another shop's, by whichever route.

`LONG_TESTS=1` makes 10,000 tries.
"""

import csv
import io
import itertools
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import httpx
import pytest

from main import app
from tests.access.tries import TRIES, Names, Try, picture_of
from tests.conftest import create_product, wait_until_indexed
from tests.importing.files import csv_of
from tests.processes import running_api, wait_until
from tuwen.api.access import declared_routes

COUNT = 10_000 if os.environ.get("LONG_TESTS") else 300
MARK = "zqa"
"""In all that another shop has."""
VOLATILE = re.compile(r'"(took_ms|request_id|encode|vector|metadata|total_ms)":\s*(\{[^}]*\}|[\d.]+)')
PRODUCTS = 6


class Shop:
    def __init__(self, client: httpx.Client, key: str) -> None:
        self._client = client
        self._headers = {"X-API-Key": key, "X-Request-ID": "a-try"}  # which answers repeat, and twins are compared by

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = self._headers | request.pop("headers", {})
        return self._client.request(method, path, headers=headers, **request)

    def as_client(self) -> httpx.Client:
        return httpx.Client(base_url=self._client.base_url, headers=self._headers, timeout=60, trust_env=False)

    def products(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.ask("GET", "/product/list", params={"page_size": 200}).json()["items"]
        return items

    def state(self, names: Names) -> list[object]:
        """All that there is."""
        jobs = f"/generate/{names.drawing_job_id}", f"/product/import/{names.import_job_id}"
        of_jobs = [self.ask("GET", path).json() for path in jobs]
        return [self.products(), [{name: job[name] for name in ("status", "finished_at")} for job in of_jobs]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    with (
        running_api(tmp_path_factory.mktemp("shops"), **tiny_models) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        client.headers["X-API-Key"] = make_key(client, "admin", ["search", "write", "admin"], None)
        yield client


def make_key(client: httpx.Client, name: str, scopes: list[str], shop_id: str | None) -> str:
    response = client.post("/keys", json={"name": name, "scopes": scopes, "shop_id": shop_id})
    assert response.status_code == 201, response.text
    assert response.json()["shop_id"] == shop_id
    return str(response.json()["key"])


@pytest.fixture(scope="module")
def shops(service: httpx.Client) -> dict[str, Shop]:
    return {
        each: Shop(service, make_key(service, f"key-of-{each}", ["search", "write"], each))
        for each in ("a", "b", "default")
    }


@pytest.fixture(scope="module")
def own(shops: dict[str, Shop]) -> dict[str, list[dict[str, Any]]]:
    """What the others have: some of it is shop a's, too."""
    rng, made = Random(3), dict[str, list[dict[str, Any]]]()
    for shop_id in ("b", "default"):
        with shops[shop_id].as_client() as client:
            for number in range(3):
                fields = {"sku": f"OWN-{number}", "category": "家具", "price": "10", "group_id": "OWN"}
                picture = shared_picture() if number == 0 else picture_of(rng)
                create_product(client, f"沙发 {shop_id} {number}", picture, attributes='{"颜色": "红"}', **fields)
            wait_until_indexed(client)
        made[shop_id] = shops[shop_id].products()
    return made


def skus_in(exported: httpx.Response, file_format: str) -> list[str]:
    text = exported.content
    if file_format == "zip":
        with zipfile.ZipFile(io.BytesIO(text)) as archive:
            [rows] = [name for name in archive.namelist() if name.endswith(".jsonl")]
            text = archive.read(rows)
    if file_format == "csv":
        return [row["sku"] for row in csv.DictReader(io.StringIO(text.decode("utf-8-sig")))]
    return [json.loads(line)["sku"] for line in text.splitlines()]


def shared_picture() -> bytes:
    return picture_of(Random(4))


@pytest.fixture(scope="module")
def names(shops: dict[str, Shop]) -> list[Names]:
    """Of shop a: each of its products."""
    rng, made = Random(1), list[Names]()
    with shops["a"].as_client() as client:
        drawing = client.post("/generate", json={"prompt": f"{MARK} 沙发", "steps": 1}).json()
        report = client.post("/product/duplicates").json()
        wait_until(lambda: client.get(report["status_url"]).json()["status"] == "done", what="the report")
        rows = csv_of(("sku", "title", "price"), (f"{MARK}-bad", f"{MARK} 坏", "dear"))
        job = client.post("/product/import", files={"file": (f"{MARK}.csv", rows)}).json()
        wait_until(lambda: client.get(job["status_url"]).json()["status"] == "done", what="the import")
        assert MARK in client.get(job["errors_url"]).text
        for number in range(PRODUCTS):
            picture = shared_picture() if number == 0 else picture_of(rng)
            fields = {"sku": f"{MARK}-{number}000", "category": f"{MARK}类{number}", "group_id": f"{MARK}g{number}"}
            attribute, value, price = f"{MARK}k{number}", f"{MARK}v{number}", f"7{number}77.77"
            response = client.post(
                "/product",
                data={
                    "title": f"{MARK}沙发{number}号",
                    "price": price,
                    "attributes": json.dumps({attribute: value}),
                    **fields,
                },
                files=[("image", ("a.png", picture)), ("images", ("b.png", picture_of(rng)))],
                headers={"Idempotency-Key": f"{MARK}-key-{number}"},
            )
            assert response.status_code == 201, response.text
            product, image = response.json(), response.json()["images"][-1]
            path = image["image_url"] if number % 2 else image["thumbnail_url"]
            made.append(
                Names(
                    product_id=product["product_id"],
                    title=product["title"],
                    attribute=attribute,
                    value=value,
                    price=price,
                    image_id=image["image_id"],
                    path=path.removeprefix("/images/"),
                    picture=picture,
                    generated_image_id=0,  # once it is drawn
                    drawing_job_id=drawing["job_id"],
                    import_job_id=job["job_id"],
                    report_job_id=report["job_id"],
                    idempotency_key=f"{MARK}-key-{number}",
                    **fields,
                )
            )
        wait_until_indexed(client)
        status_url = drawing["status_url"]
        wait_until(lambda: client.get(status_url).json()["status"] == "done", timeout_s=90, what="the drawing")
        drawn = client.get(status_url).json()["images"][0]
    made = [replace(each, generated_image_id=drawn["image_id"]) for each in made]
    return [*made, replace(made[0], path=drawn["image_url"].removeprefix("/images/"))]


def test_another_shops_picture_is_no_duplicate(shops: dict[str, Shop], names: list[Names]) -> None:
    with shops["b"].as_client() as client:
        sent: dict[str, Any] = {"data": {"title": "ours"}, "files": {"image": ("a.png", names[1].picture)}}
        created = client.post("/product", params={"on_duplicate": "refuse"}, **sent)
        assert (created.status_code, created.json()["duplicates"]) == (201, [])
        refused = client.post("/product", params={"on_duplicate": "refuse"}, **sent)
        assert refused.status_code == 409
        assert str(names[1].product_id) not in refused.text
        wait_until_indexed(client)
        address = f"/product/{created.json()['product_id']}"
        assert client.get(f"{address}/duplicates").json() == {"items": []}
        assert client.delete(address).status_code == 204


def nobodys(names: Names, rng: Random) -> Names:
    """What nobody has, in as many characters."""

    def other(text: str) -> str:
        return text.replace(MARK, "zqx")

    image_id = rng.randbytes(32).hex()
    texts = {each: other(getattr(names, each)) for each in vars(names) if isinstance(getattr(names, each), str)}
    folder, extension = names.path.rpartition("/")[0][:-2], names.path.rpartition(".")[2]
    return replace(
        names,
        **texts
        | {
            "image_id": image_id,
            "path": f"{folder}{image_id[:2]}/{image_id}.{extension}",
            "price": "99" + names.price[2:],
        },
        product_id=names.product_id + 900_000,
        picture=picture_of(rng),
        generated_image_id=names.generated_image_id + 900_000,
        drawing_job_id=names.drawing_job_id + 900_000,
        import_job_id=names.import_job_id + 900_000,
        report_job_id=names.report_job_id + 900_000,
    )


def send(shop: Shop, route: tuple[str, str], names: Names, request: dict[str, Any]) -> httpx.Response:
    method, path = route
    return shop.ask(method, re.sub(r"{(\w+)(?::\w+)?}", r"{\1}", path).format(**names.in_path(path)), **request)


def said_by(response: httpx.Response) -> str:
    """Without what is another each time."""
    text = response.text
    if response.headers.get("content-type") == "application/zip":
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            text = "\n".join(archive.read(each).decode("latin-1") for each in sorted(archive.namelist()))
    return VOLATILE.sub("", text)


def undo(shop: Shop, response: httpx.Response, own: list[dict[str, Any]]) -> None:
    """What the tries made of their own."""
    if response.status_code == 202 and "/product/import" in response.json()["status_url"]:
        status_url = response.json()["status_url"]
        wait_until(lambda: shop.ask("GET", status_url).json()["finished_at"] is not None, what="the import")
    mine = {product["product_id"] for product in own}
    for product in shop.products():
        if product["product_id"] not in mine:
            assert shop.ask("DELETE", f"/product/{product['product_id']}").status_code == 204


def all_tries(rng: Random) -> Iterator[tuple[tuple[str, str], Try]]:
    tries = [(route, each) for route, several in TRIES.items() for each in several]
    yield from tries
    while True:
        yield rng.choices(tries, [each.weight for _, each in tries])[0]


def test_every_route_of_a_shops_key_is_tried() -> None:
    """A new one needs its tries in TRIES."""
    routes = {(route.method, route.path) for route in declared_routes(app) if route.scope in ("search", "write")}
    assert routes == set(TRIES)


def test_a_key_of_a_shop_is_none_of_an_operator(
    service: httpx.Client, shops: dict[str, Shop], names: list[Names]
) -> None:
    refused = service.post("/keys", json={"name": "boss", "scopes": ["search", "admin"], "shop_id": "a"})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "admin_of_shop")
    for route in declared_routes(app):
        if route.scope == "admin":
            assert send(shops["b"], (route.method, route.path), names[0], {}).status_code == 403, route
    health = shops["b"].ask("GET", "/health").json()
    assert (health["backlog"], health["index"]) == (None, None)


def test_nothing_of_another_shop_is_read_found_counted_changed_or_fetched(
    shops: dict[str, Shop], own: dict[str, list[dict[str, Any]]], names: list[Names]
) -> None:
    rng, before = Random(7), shops["a"].state(names[0])
    foreign = {str(each["product_id"]) for each in shops["a"].products()}
    made = Counter[tuple[str, str]]()
    for route, attempt in itertools.islice(all_tries(rng), COUNT):
        attacker = rng.choice(["b", "default"])
        named = rng.choice(names)
        seed, shop = rng.random(), shops[attacker]
        response = send(shop, route, named, attempt.build(named, Random(seed)))
        where = route, attacker, attempt.build(named, Random(seed)), response.text[:2000]
        assert response.status_code < 500, where
        said = said_by(response)
        assert MARK not in nobodys(named, rng).in_place_of(named, said), where  # but for what was asked
        if response.is_success:  # else it says what was asked for
            assert foreign.isdisjoint(re.findall(r'"product_id":\s*(\d+)', said)), where
        if attempt.has_twin:
            nobody = nobodys(named, rng)
            twin = send(shop, route, nobody, attempt.build(nobody, Random(seed)))
            assert twin.status_code == response.status_code, (where, twin.text)
            if route != ("POST", "/product"):  # else each has made one, whose id is said
                assert named.in_place_of(nobody, said_by(twin)) == said, (where, twin.text)
        if route in (("POST", "/product"), ("POST", "/product/import")):
            undo(shop, response, own[attacker])
        made[route] += 1
        if made.total() % 100 == 0:
            assert shops["a"].state(names[0]) == before, where
    assert shops["a"].state(names[0]) == before
    assert {shop_id: shops[shop_id].products() for shop_id in own} == own
    assert set(made) == set(TRIES)


def test_each_shop_sees_its_own_and_a_key_without_one_sees_all(
    service: httpx.Client, shops: dict[str, Shop], own: dict[str, list[dict[str, Any]]], names: list[Names]
) -> None:
    counts = {shop_id: len(shop.products()) for shop_id, shop in shops.items()}
    assert counts == {"a": PRODUCTS, "b": 3, "default": 3}
    assert len(Shop(service, service.headers["X-API-Key"]).products()) == sum(counts.values())
    search = {"mode": "text_to_text", "text": "沙发", "top_k": 50, "facets": ["category", "price"]}
    for shop_id, shop in shops.items():
        found = shop.ask("POST", "/search", json=search).json()
        assert {hit["product"]["product_id"] for hit in found["hits"]} == {
            each["product_id"] for each in shop.products()
        }
        assert found["facets"]["candidates"] == counts[shop_id]
        assert shop.ask("GET", "/product/facets").json()["total"] == counts[shop_id]
        for product in shop.products():
            for url in (product["image_url"], product["thumbnail_url"]):
                assert shop.ask("GET", url).status_code == 200
    assert len(service.post("/search", json=search).json()["hits"]) == sum(counts.values())


def test_groups_of_two_shops_with_one_name_are_two(
    service: httpx.Client, shops: dict[str, Shop], own: dict[str, list[dict[str, Any]]]
) -> None:
    search = {"mode": "text_to_text", "text": "沙发", "top_k": 50, "group_by": "group_id"}
    for order in ({}, {"sort": "price"}):
        hits = service.post("/search", json=search | order).json()["hits"]
        found = {hit["product"]["product_id"]: hit["group_size"] for hit in hits}
        for products in own.values():
            sizes = [found[each["product_id"]] for each in products if each["product_id"] in found]
            assert sizes == [3], order


def test_a_sku_is_one_of_its_shop_and_without_a_shop_the_default_ones(
    service: httpx.Client, shops: dict[str, Shop], own: dict[str, list[dict[str, Any]]]
) -> None:
    by_sku = {shop_id: shop.ask("GET", "/product/by-sku/OWN-1").json() for shop_id, shop in shops.items()}
    assert by_sku["a"]["status"] == 404
    ids = {shop_id: {each["sku"]: each["product_id"] for each in products} for shop_id, products in own.items()}
    for shop_id in ("b", "default"):
        assert by_sku[shop_id]["product_id"] == ids[shop_id]["OWN-1"]
    assert service.get("/product/by-sku/OWN-1").json()["product_id"] == ids["default"]["OWN-1"]
    assert service.get("/product/by-sku/zqa-0000").status_code == 404
    # By its id it is read and changed; within its shop its sku stays one.
    taken = service.patch(f"/product/{ids['b']['OWN-1']}", data={"sku": "OWN-2"})
    assert taken.status_code == 409
    rows = csv_of(("sku", "price"), ("OWN-0", "10"), ("OWN-1", "10"), ("OWN-2", "10"))
    job = service.post("/product/import", params={"mode": "replace_all"}, files={"file": ("all.csv", rows)}).json()
    wait_until(lambda: service.get(job["status_url"]).json()["finished_at"] is not None, what="the import")
    job = service.get(job["status_url"]).json()
    assert (job["unchanged"], job["deleted"], job["error"]) == (3, 0, None)
    assert shops["b"].ask("GET", job["status_url"]).status_code == 404
    assert shops["default"].ask("GET", job["status_url"]).status_code == 200
    # What it exports may come back, and is what that would change.
    for file_format in ("csv", "jsonl", "zip"):
        wanted = ["OWN-0", "OWN-1"] if file_format == "zip" else ["OWN-0", "OWN-1", "OWN-2"]
        exported = service.get("/product/export", params={"format": file_format, "archive_limit": 2})
        mine = shops["default"].ask("GET", "/product/export", params={"format": file_format, "archive_limit": 2})
        assert skus_in(exported, file_format) == skus_in(mine, file_format) == wanted
        assert exported.headers.get("Link") == mine.headers.get("Link")

"""One product, one place: products with the same picture are found, reported, refused if asked, and folded."""

import csv
import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import wait_until


def drawn(seed: int, size: int = 256) -> Image.Image:
    """A picture that no other seed has."""
    chance = random.Random(seed)
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        x, y = chance.randrange(size), chance.randrange(size)
        box = (x, y, x + chance.randrange(20, size // 2), y + chance.randrange(20, size // 2))
        colour = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        (draw.rectangle if chance.random() < 0.5 else draw.ellipse)(box, fill=colour)
    return image


def as_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def marked(image: Image.Image) -> Image.Image:
    copy = image.copy()
    layer = Image.new("RGBA", copy.size, (0, 0, 0, 0))
    ImageDraw.Draw(layer).text((40, 110), "SHOP", fill=(255, 255, 255, 110), font_size=40)
    copy.paste(layer, mask=layer)
    return copy


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved anew": lambda image: image,
    "scaled": lambda image: image.resize((140, 140)),
    "cropped": lambda image: image.crop((12, 8, 250, 244)),
    "marked": marked,
}


def duplicates_of(client: httpx.Client, product_id: int) -> list[dict[str, Any]]:
    answer = client.get(f"/product/{product_id}/duplicates").raise_for_status().json()
    items: list[dict[str, Any]] = answer["items"]
    return items


def test_the_very_file_is_reported_and_refused_if_asked(api: httpx.Client) -> None:
    first = create_product(api, "双灯一", as_jpeg(drawn(1)), sku="TW-1")
    assert first["duplicates"] == []
    second = create_product(api, "双灯二", as_jpeg(drawn(1)))
    [found] = second["duplicates"]
    wanted = {"product_id": first["product_id"], "sku": "TW-1", "title": "双灯一", "kind": "same_file", "similarity": 1}
    assert found.items() >= wanted.items()
    total = api.get("/product/list").json()["total"]
    files = {"image": ("a.jpg", as_jpeg(drawn(1), 70))}
    asked: dict[str, Any] = {"params": {"on_duplicate": "refuse"}, "headers": {"Accept-Language": "zh"}}
    refused = api.post("/product", data={"title": "双灯三"}, files=files, **asked)
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (409, "urn:tuwen:problem:duplicate-picture")
    named = {each["parameters"]["product_id"] for each in problem["errors"]}
    assert named == {first["product_id"], second["product_id"]}
    assert "图片相同" in problem["detail"]
    assert api.get("/product/list").json()["total"] == total
    other: dict[str, Any] = {"data": {"title": "双灯四"}, "files": {"image": ("a.jpg", as_jpeg(drawn(2)))}}
    assert api.post("/product", params={"on_duplicate": "refuse"}, **other).status_code == 201
    assert api.post("/product", params={"on_duplicate": "maybe"}, **other).status_code == 422


def test_of_the_same_picture_at_once_one_alone_is_taken(api: httpx.Client) -> None:
    def create(number: int) -> int:
        files = {"image": ("a.jpg", as_jpeg(drawn(3), 90 - number))}
        return api.post("/product", params={"on_duplicate": "refuse"}, data={"title": "抢灯"}, files=files).status_code

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(create, range(6))) == [201, *[409] * 5]


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_and_another_picture_is_not(api: httpx.Client, kind: str) -> None:
    number = 10 + 2 * list(COPIES).index(kind)
    original = create_product(api, f"原图 {kind}", as_jpeg(drawn(number)))
    other = create_product(api, f"别的 {kind}", as_jpeg(drawn(number + 1)))
    assert original["duplicates"] == other["duplicates"] == []
    copy = create_product(api, f"副本 {kind}", as_jpeg(COPIES[kind](drawn(number)), 75))
    assert [(each["product_id"], each["kind"]) for each in copy["duplicates"]] == [
        (original["product_id"], "same_picture")
    ]
    wait_until_indexed(api)
    for product, twin in ((original, copy), (copy, original)):
        [found] = duplicates_of(api, product["product_id"])
        assert found["product_id"] == twin["product_id"]
        assert found["vector_similarity"] > 0.5
    assert duplicates_of(api, other["product_id"]) == []
    assert api.get("/product/999999999/duplicates").status_code == 404


def folded(client: httpx.Client, **asked: Any) -> list[int]:
    search = {"mode": "image_to_image", "fold": True, **asked}
    answer = client.post("/search", json=search).raise_for_status().json()
    return [hit["product"]["product_id"] for hit in answer["hits"]]


def test_products_are_compared_anew_when_their_picture_changes(api: httpx.Client) -> None:
    first, second, third = (create_product(api, f"换图 {each}", as_jpeg(drawn(30), 90 - each)) for each in range(3))
    ids = [each["product_id"] for each in (first, second, third)]
    filters = {"filters": {"category": ["换图"]}}
    for each in ids:
        api.patch(f"/product/{each}", data={"category": "换图"}).raise_for_status()
    wait_until_indexed(api)
    assert len(folded(api, product_id=ids[0], **filters)) == 1
    everything = {"mode": "text_to_text", "text": "换图", **filters}
    assert len(folded(api, **everything)) == 1
    files = {"image": ("b.jpg", as_jpeg(drawn(31)))}
    api.patch(f"/product/{ids[0]}", files=files).raise_for_status()  # by which the others are named
    wait_until_indexed(api)
    shown = folded(api, **everything)
    assert (len(shown), ids[0] in shown) == (2, True)
    assert duplicates_of(api, ids[0]) == []
    api.delete(f"/product/{ids[1]}").raise_for_status()
    assert sorted(folded(api, **everything)) == [ids[0], ids[2]]
    api.patch(f"/product/{ids[0]}", files={"image": ("c.jpg", as_jpeg(drawn(30), 60))}).raise_for_status()
    wait_until_indexed(api)
    wait_until(lambda: len(folded(api, **everything)) == 1, timeout_s=30, what="both to be twins again")


ORDERS: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "text_to_text", "text": "折叠椅"},
    "hybrid": {"mode": "hybrid", "text": "折叠椅"},
    "sorted": {"mode": "text_to_text", "text": "折叠椅", "sort": "price"},
    "boosted": {
        "mode": "text_to_text",
        "text": "折叠椅",
        "boost": [{"attribute": "销量", "pivot": 5, "weight": 0.5}],
    },
    "by prices": {"mode": "text_to_text", "text": "折叠椅", "filters": {"category": ["折叠"], "price_min": 1}},
    "facets": {"mode": "text_to_text", "text": "折叠椅", "facets": ["price"]},
}


def test_folded_pages_have_as_many_as_asked_and_nothing_twice(api: httpx.Client) -> None:
    for number in range(15):
        for copy in range(1 + number % 3):
            fields = {"category": "折叠", "price": str(1 + (number * 7) % 15), "attributes": f'{{"销量": {number}}}'}
            create_product(api, f"折叠椅 {number}", as_jpeg(drawn(100 + number), 92 - copy), **fields)
    wait_until_indexed(api)
    for name, order in ORDERS.items():
        asked = {"filters": {"category": ["折叠"]}, **order}
        pages = [folded(api, top_k=4, offset=offset, **asked) for offset in (0, 4, 8, 12)]
        assert [len(page) for page in pages] == [4, 4, 4, 3], name
        shown = [each for page in pages for each in page]
        assert shown == folded(api, top_k=100, **asked), name
        titles = [api.get(f"/product/{each}").json()["title"] for each in shown]
        assert sorted(titles) == sorted(f"折叠椅 {number}" for number in range(15)), name
        unfolded = api.post("/search", json={"top_k": 100, **asked}).json()
        assert len(unfolded["hits"]) == 30, name
        assert unfolded["as_of"] is None


def test_ten_pages_beside_inserts_overlap_in_nothing_and_leave_nothing_out(api: httpx.Client) -> None:
    """What is inserted meanwhile is nearer than all else, a copy of what is there, or neither."""
    for number in range(120):
        create_product(api, f"翻页凳 {number}", as_jpeg(drawn(1000 + number, 96)), category="翻页")
    wait_until_indexed(api)
    stopped = Event()

    def insert() -> int:
        made = 0
        while not stopped.is_set():
            image = drawn(1000 + made, 96) if made % 2 else drawn(5000 + made, 96)
            create_product(api, "翻页凳", as_jpeg(image, 80), category="翻页")
            made += 1
        return made

    def total() -> int:
        return int(api.get("/product/list", params={"q": "翻页凳"}).json()["total"])

    def more_than(number: int) -> Callable[[], bool]:
        return lambda: total() > number

    asked = {"mode": "text_to_text", "text": "翻页凳", "fold": True, "top_k": 10, "filters": {"category": ["翻页"]}}
    before = folded(api, **asked | {"top_k": 100})
    with ThreadPoolExecutor(1) as threads:
        inserting = threads.submit(insert)
        try:
            first = api.post("/search", json=asked).raise_for_status().json()
            shown = [hit["product"]["product_id"] for hit in first["hits"]]
            for offset in range(10, 100, 10):
                wait_until(more_than(total() + 1), timeout_s=30, what="others to be inserted")
                shown += folded(api, **asked, offset=offset, as_of=first["as_of"])
        finally:
            stopped.set()
        assert inserting.result() > 10
    wait_until_indexed(api)
    assert len(set(shown)) == len(shown) == 100
    assert shown == folded(api, **asked | {"top_k": 100, "as_of": first["as_of"]})
    assert len(set(shown) & set(before)) >= 90
    assert api.post("/search", json=asked | {"fold": False, "as_of": first["as_of"]}).status_code == 422


def test_what_is_similar_is_the_search_by_product(api: httpx.Client) -> None:
    product = create_product(api, "相似灯", as_jpeg(drawn(60)))
    create_product(api, "相似灯二", as_jpeg(drawn(61)))
    wait_until_indexed(api)
    address = f"/product/{product['product_id']}/similar"
    for mode in ("image_to_image", "text_to_text", "hybrid"):
        answer = api.get(address, params={"mode": mode, "top_k": 3, "offset": 1}).raise_for_status().json()
        search = {"mode": mode, "product_id": product["product_id"], "top_k": 3, "offset": 1}
        assert answer["hits"] == api.post("/search", json=search).json()["hits"]
        assert product["product_id"] not in [hit["product"]["product_id"] for hit in answer["hits"]]
    assert len(api.get(address, params={"top_k": 2, "fold": True}).json()["hits"]) == 2
    assert api.get("/product/999999999/similar").status_code == 404
    assert api.get(address, params={"mode": "sideways"}).status_code == 422


def test_a_report_has_every_pair_once(api: httpx.Client) -> None:
    first = create_product(api, "报告一", as_jpeg(drawn(70)))
    second = create_product(api, "报告二", as_jpeg(drawn(70)))
    third = create_product(api, "报告三", as_jpeg(drawn(70).resize((150, 150))))
    wait_until_indexed(api)
    job = api.post("/product/duplicates").raise_for_status().json()
    address = job["status_url"]

    def is_done() -> bool:
        return bool(api.get(address).raise_for_status().json()["status"] == "done")

    wait_until(is_done, timeout_s=180, what="the report")
    done = api.get(address).json()
    assert (done["progress"], done["error"]) == (1, None)
    assert done["products"] == api.get("/product/list").json()["total"]
    lines = csv.DictReader(io.StringIO(api.get(job["pairs_url"]).text.removeprefix("\ufeff")))
    pairs = {(int(row["product_id"]), int(row["other_id"])): row["kind"] for row in lines}
    ids = [each["product_id"] for each in (first, second, third)]
    mine = {pair: kind for pair, kind in pairs.items() if set(pair) <= set(ids)}
    assert mine == {
        (ids[1], ids[0]): "same_file",
        (ids[2], ids[0]): "same_picture",
        (ids[2], ids[1]): "same_picture",
    }
    as_json = api.get(job["pairs_url"], params={"format": "jsonl"}).text.splitlines()
    assert len(as_json) == len(pairs) == done["pairs"]
    assert api.post(f"{address}/cancel").status_code == 409
    assert api.get("/product/duplicates/999999").status_code == 404


def test_a_picture_that_many_have_folds_nothing(api: httpx.Client) -> None:
    """It is one that stands for none."""
    for number in range(53):
        create_product(api, f"占位 {number}", picture("orange", (80, 80)), category="占位")
    wait_until_indexed(api)
    asked = {"mode": "text_to_text", "text": "占位", "filters": {"category": ["占位"]}, "top_k": 100}
    wait_until(lambda: len(folded(api, **asked)) == 53, timeout_s=180, what="none to be a twin")

"""A data folder that version 0.2.0 wrote (`tests/data/data-0.2.0.tar.gz`) goes on under this one.

Its own code wrote it, with the built-in models, through the API: two products as created, one deleted, one changed, a
picture drawn and made a product.
"""

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.demo.test_demo_command import run_cli
from tests.processes import ROOT, running_api, wait_until

# As /product/list answered when the folder was made: id → title, milvus_id, version.
PRODUCTS = {
    1: ("红色布艺沙发", "1", 1),
    2: ("蓝色木椅", "2", 1),
    4: ("黄色台灯", "5", 2),
    5: ("红色的沙发 设计稿", "6", 1),
}
COLLECTION = "products_31c0e03b_1"


@contextmanager
def open_old_shop(folder: Path, **settings: Any) -> Iterator[httpx.Client]:
    with tarfile.open(ROOT / "tests" / "data" / "data-0.2.0.tar.gz") as archive:
        archive.extractall(folder / "data", filter="data")
    with running_api(folder, **settings) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def old_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with open_old_shop(tmp_path_factory.mktemp("upgrade")) as client:
        yield client


def search(client: httpx.Client, **request: Any) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = client.post("/search", json=request).raise_for_status().json()["hits"]
    return hits


def test_products_bindings_and_pictures_are_there_as_they_were(old_shop: httpx.Client) -> None:
    items = old_shop.get("/product/list", params={"sort": "product_id"}).json()["items"]
    assert {item["product_id"]: (item["title"], item["milvus_id"], item["version"]) for item in items} == PRODUCTS
    assert {item["index_status"] for item in items} == {"indexed"}
    assert (items[0]["sku"], items[0]["price"], items[0]["attributes"]) == ("SOFA-1", 1999.0, {"颜色": "红"})
    assert [item["image_is_generated"] for item in items] == [False, False, False, True]
    for item in items:
        assert old_shop.get(item["image_url"]).is_success
        assert old_shop.get(item["thumbnail_url"]).is_success
    assert old_shop.get("/health").json()["index"]["collection"] == COLLECTION


@pytest.mark.parametrize("product_id", PRODUCTS)
def test_old_vectors_are_found_by_new_queries(old_shop: httpx.Client, product_id: int) -> None:
    """So this version's encoders and preprocessing make the vectors that 0.2.0's made."""
    title, _, _ = PRODUCTS[product_id]
    by_title = search(old_shop, mode="text_to_text", text=title)[0]
    assert (by_title["product"]["product_id"], round(by_title["score"], 4)) == (product_id, 1.0)
    stored = old_shop.get(by_title["product"]["image_url"]).content
    found = old_shop.post("/search", data={"mode": "image_to_image"}, files={"image": ("query", stored)}).json()
    by_picture = found["hits"][0]
    assert by_picture["product"]["product_id"] == product_id
    assert by_picture["score"] > 0.999  # 0.2.0 computed in float32


def test_old_products_are_found_by_their_words(old_shop: httpx.Client) -> None:
    """0.2.0 wrote none: reconciliation makes them, from the start on."""

    def words_of_first() -> list[str]:
        words: list[str] = search(old_shop, mode="hybrid", text="taideng")[0]["matched_words"]
        return words

    wait_until(lambda: words_of_first() == ["台灯"], what="the terms of old products")
    assert search(old_shop, mode="hybrid", text="SOFA 1")[0]["product"]["product_id"] == 1


def test_the_deleted_product_stays_away(old_shop: httpx.Client) -> None:
    assert old_shop.get("/product/3").status_code == httpx.codes.NOT_FOUND
    assert 3 not in [hit["product"]["product_id"] for hit in search(old_shop, mode="text_to_text", text="删掉的桌子")]


def test_the_drawn_picture_is_still_its_jobs(old_shop: httpx.Client) -> None:
    job = old_shop.get("/generate/1").raise_for_status().json()
    assert (job["status"], job["prompt"], job["images"][0]["seed"]) == ("done", "红色的沙发", 7)
    assert job["images"][0]["similar"][0]["product"]["product_id"] == 5


def test_it_takes_writes(old_shop: httpx.Client) -> None:
    created = create_product(old_shop, "绿色玻璃餐桌", picture("green"), sku="TABLE-2")
    assert created["product_id"] == 6  # no id is given again
    chair = old_shop.patch("/product/2", data={"title": "紫色铁艺长椅"}).raise_for_status().json()
    assert chair["version"] == 2
    wait_until_indexed(old_shop)
    for product_id, title in ((6, "绿色玻璃餐桌"), (2, "紫色铁艺长椅")):
        assert search(old_shop, mode="text_to_text", text=title)[0]["product"]["product_id"] == product_id
    assert old_shop.delete("/product/6").status_code == httpx.codes.NO_CONTENT
    job = old_shop.post("/generate", json={"prompt": "沙发", "wait_s": 60}).json()
    assert (job["job_id"], job["status"]) == (2, "done")


def test_what_0_2_0_encoded_is_kept_where_it_is_the_same(old_shop: httpx.Client) -> None:
    def encoded() -> list[str]:
        lines = old_shop.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("tuwen_index_vectors_total") and "encoded" in line]

    before = encoded()
    changed = old_shop.patch("/product/1", data={"category": "客厅", "price": "1899"}).raise_for_status().json()
    assert (changed["version"], changed["index_status"]) == (2, "pending")
    wait_until_indexed(old_shop)
    assert encoded() == before
    within = {"category": ["客厅"], "price_min": 1899, "price_max": 1899}
    hits = search(old_shop, mode="text_to_text", text="红色布艺沙发", filters=within)
    assert [(hit["product"]["product_id"], round(hit["score"], 4)) for hit in hits] == [(1, 1.0)]


def test_the_command_in_the_log_brings_the_second_edition_of_the_demo_models(tmp_path: Path) -> None:
    with open_old_shop(tmp_path) as client:
        said = re.search(r"python cli.py (reindex .*)", (tmp_path / "api.log").read_text(encoding="utf-8"))
        assert said, "the log names the command"
        changed = run_cli(*said[1].split(), API_URL=str(client.base_url))
        assert changed.returncode == 0, changed.stdout + changed.stderr
        assert search(client, mode="text_to_image", text="沙发")
        after = client.get("/health").json()["index"]["collection"]
        assert after != COLLECTION
    with running_api(tmp_path) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        assert client.get("/health").json()["index"]["collection"] == after
        best = search(client, mode="text_to_image", text="沙发")[0]["product"]["product_id"]
        assert "沙发" in PRODUCTS[best][0]
    assert (tmp_path / "api.log").read_text(encoding="utf-8").count(said[0]) == 1  # there is nothing left to say


def test_limits_that_were_lowered_since_hold_for_what_comes_in_alone(tmp_path: Path) -> None:
    with open_old_shop(tmp_path, UPLOAD_MAX_BYTES=70, IMAGE_MAX_PIXELS=10, QUERY_CACHE_SIZE=0) as client:
        assert client.post("/search", data={"mode": "image_to_image"}, files={"image": picture()}).status_code == 413
        job = client.get("/generate/1").raise_for_status().json()
        assert job["images"][0]["similar"][0]["product"]["product_id"] == 5
        assert search(client, mode="image_to_image", product_id=1)


def test_all_of_it_is_the_default_shops(tmp_path: Path) -> None:
    with open_old_shop(tmp_path) as client:
        key = client.post("/keys", json={"name": "admin", "scopes": ["search", "write", "admin"]}).json()["key"]
        client.headers["X-API-Key"] = key
        keys = {
            shop_id: {
                "X-API-Key": client.post(
                    "/keys", json={"name": f"of-{shop_id}", "scopes": ["search", "write"], "shop_id": shop_id}
                ).json()["key"]
            }
            for shop_id in ("default", "new")
        }
        made = client.post(
            "/product",
            data={"title": "红色布艺沙发", "sku": "SOFA-1"},
            files={"image": picture("red")},
            headers=keys["new"],
        )
        assert made.status_code == 201, made.text
        wait_until_indexed(client)
        assert client.get("/health").json()["index"]["collection"] == COLLECTION  # which goes on
        for shop_id, mine in (("default", set(PRODUCTS)), ("new", {made.json()["product_id"]})):
            listed = client.get("/product/list", headers=keys[shop_id]).json()["items"]
            assert {each["product_id"] for each in listed} == mine
            request = {"mode": "text_to_text", "text": "红色布艺沙发", "top_k": 9}
            hits = client.post("/search", json=request, headers=keys[shop_id]).json()["hits"]
            assert {hit["product"]["product_id"] for hit in hits} == mine
            assert client.get(listed[0]["image_url"], headers=keys[shop_id]).status_code == 200
        old_picture = client.get("/product/1").json()["image_url"]
        assert client.get(old_picture, headers=keys["new"]).status_code == 404

"""Variants of one product: kept, changed, imported, and shown as one by a search."""

from typing import Any

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.importing.files import csv_of, import_file, json_lines_of, zip_of


def test_a_group_is_kept_changed_and_cleared(api: httpx.Client) -> None:
    product = create_product(api, "组灯一", sku="GR-1", group_id=" Ｇ-\u200b1 ")
    address = f"/product/{product['product_id']}"
    assert product["group_id"] == "G-1"
    wait_until_indexed(api)
    changed = api.patch(address, data={"group_id": "G-2"}).raise_for_status().json()
    assert (changed["group_id"], changed["index_status"], changed["version"]) == ("G-2", "indexed", 2)
    batch = {"products": [{"sku": "GR-1", "group_id": "G-3"}]}
    assert api.patch("/product", json=batch).raise_for_status().json()["changed"] == 1
    assert api.get(address).json()["group_id"] == "G-3"
    assert api.patch(address, data={"group_id": ""}).raise_for_status().json()["group_id"] is None
    put = api.put("/product/by-sku/GR-1", data={"title": "组灯一", "group_id": "G-4"}).raise_for_status().json()
    assert put["group_id"] == "G-4"
    assert api.put("/product/by-sku/GR-1", data={"title": "组灯一"}).raise_for_status().json()["group_id"] is None
    of_group = {"group_id": " Ｇ-5 "}
    api.patch(address, data=of_group).raise_for_status()
    for asked in ({"group_id": "G-5"}, of_group, {"q": "G-5"}, {"group_id": "G-5", "q": "组灯"}):
        [item] = api.get("/product/list", params=asked).raise_for_status().json()["items"]
        assert item["product_id"] == product["product_id"], asked
        assert api.get("/product/facets", params=asked).json()["total"] == 1
    for none in ({"group_id": "G-6"}, {"group_id": "G-5", "q": "椅"}, {"q": "G-5 灯"}):
        assert api.get("/product/list", params=none).json()["total"] == 0, none
    for wrong in ("\u200b", "x" * 65, "㌢" * 40):
        assert api.patch(address, data={"group_id": wrong}).status_code == 422
        assert api.get("/product/list", params={"group_id": wrong}).status_code == 422


def test_a_file_brings_groups_and_an_export_has_them(api: httpx.Client) -> None:
    rows = csv_of(["货号", "标题", "SPU", "图片"], ["GI-1", "组椅一", "700", "1.png"], ["GI-2", "组椅二", "", "1.png"])
    job = import_file(api, zip_of({"a.csv": rows, "1.png": picture("navy")}))
    assert (job["created"], job["columns"]["SPU"]) == (2, "group_id")
    items = api.get("/product/list", params={"q": "组椅", "sort": "product_id"}).json()["items"]
    assert [each["group_id"] for each in items] == ["700", None]
    again = import_file(api, api.get("/product/export", params={"format": "csv"}).content, "upsert", "a.csv")
    assert (again["updated"], again["failed"]) == (0, 0)
    number = json_lines_of({"sku": "GI-2", "group_id": 700})
    assert import_file(api, number, "upsert", "a.jsonl")["updated"] == 1
    assert [each["group_id"] for each in api.get("/product/list", params={"q": "组椅"}).json()["items"]] == ["700"] * 2


def shown(client: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    search = {"mode": "text_to_text", "text": "组凳", **asked}
    hits: list[dict[str, Any]] = client.post("/search", json=search).raise_for_status().json()["hits"]
    return hits


def test_a_search_shows_the_best_of_each_group(api: httpx.Client) -> None:
    for number in range(8):
        group = {"group_id": f"组{number % 3}"} if number < 6 else {}
        create_product(api, f"组凳 {number}", None, category="组凳", price=str(number), **group)
    wait_until_indexed(api)
    filters = {"category": ["组凳"]}
    best: dict[Any, int] = {}
    for hit in shown(api, filters=filters):
        product = hit["product"]
        best.setdefault(product["group_id"] or product["product_id"], product["product_id"])
        assert hit["group_size"] is None
    grouped = shown(api, filters=filters, group_by="group_id")
    assert [hit["product"]["product_id"] for hit in grouped] == list(best.values())
    assert [hit["rank"] for hit in grouped] == [1, 2, 3, 4, 5]
    assert {hit["product"]["group_id"]: hit["group_size"] for hit in grouped} == {"组0": 2, "组1": 2, "组2": 2, None: 1}
    pages = [shown(api, filters=filters, group_by="group_id", top_k=2, offset=offset) for offset in (0, 2, 4)]
    assert [hit for page in pages for hit in page] == grouped
    cheap = shown(api, filters=filters | {"price_max": 2}, group_by="group_id")
    assert sorted(hit["product"]["group_id"] for hit in cheap) == ["组0", "组1", "组2"]
    assert {hit["group_size"] for hit in cheap} == {2}  # of the whole catalogue
    dearest = shown(api, filters=filters, sort="-price", top_k=3)
    assert [hit["product"]["price"] for hit in dearest] == [7, 6, 5]
    dearest = shown(api, filters=filters, sort="-price", group_by="group_id", top_k=3, offset=2)
    assert [hit["product"]["price"] for hit in dearest] == [5, 4, 3]


def test_there_is_one_thing_to_group_by(api: httpx.Client) -> None:
    answer = api.post("/search", json={"mode": "text_to_text", "text": "凳", "group_by": "category"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "group_by")


@pytest.mark.parametrize("name", ["SPU", "group_id", "组号"])
def test_what_a_file_may_call_it(api: httpx.Client, name: str) -> None:
    rows = csv_of(["货号", name], ["GN-0", "1"])
    assert import_file(api, rows, "upsert", "a.csv")["columns"][name] == "group_id"

"""Changes from outside: many at once."""

import re
import time
from typing import Any

import httpx
import pytest

from tests.api.test_api import assert_problem
from tests.conftest import create_product, picture, wait_until_indexed

FEED = 20


def encoded(api: httpx.Client) -> float:
    """Pictures and titles, by all processes."""
    counts = re.findall(r'tuwen_index_vectors_total\{how="encoded",[^}]*\} (\S+)', api.get("/metrics").text)
    return sum(map(float, counts))


def patch(api: httpx.Client, *rows: Any) -> dict[str, Any]:
    answer = api.patch("/product", json={"products": rows})
    assert answer.status_code == httpx.codes.OK, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_a_nightly_feed_encodes_nothing_and_searches_see_each_price_at_once(api: httpx.Client) -> None:
    skus = [f"FEED-{number}" for number in range(FEED)]
    products = {sku: create_product(api, f"价格会变的沙发 {sku}", sku=sku, price="1")["product_id"] for sku in skus}
    wait_until_indexed(api)
    before = encoded(api)
    result = patch(api, *({"sku": sku, "price": 70_000 + number} for number, sku in enumerate(skus)))
    answered_at = time.monotonic()
    assert [result[name] for name in ("changed", "unchanged", "refused")] == [FEED, 0, 0]
    assert result["rows"][3] == {
        "row": 3,
        "sku": "FEED-3",
        "status": "changed",
        "product_id": products["FEED-3"],
        "version": 2,
        "errors": [],
    }
    for number, sku in enumerate(skus):
        filters = {"price_min": 70_000 + number, "price_max": 70_000 + number}
        hits = api.post("/search", json={"mode": "text_to_text", "text": "沙发", "filters": filters}).json()["hits"]
        found = [(hit["product"]["sku"], hit["product"]["price"], hit["product"]["index_status"]) for hit in hits]
        assert found == [(sku, 70_000 + number, "indexed")]
    assert time.monotonic() - answered_at < 5
    assert encoded(api) == before
    again = patch(api, *({"sku": sku, "price": 70_000 + number} for number, sku in enumerate(skus)))
    assert [again[name] for name in ("changed", "unchanged", "refused")] == [0, FEED, 0]
    for product_id in products.values():
        api.delete(f"/product/{product_id}")


def test_a_row_that_is_wrong_keeps_no_other_out(api: httpx.Client) -> None:
    first = create_product(api, "批量灯一", sku="ROW-1", category="灯", price="5", attributes='{"库存": 1}')
    second = create_product(api, "批量灯二", picture("blue"), sku="ROW-2")
    result = patch(
        api,
        {"sku": " row-0 ", "price": 1},
        {"sku": "ROW-1", "price": "-1"},
        {"sku": "ＲＯＷ-1", "title": "批量灯一改", "category": None, "price": None, "attributes": None},
        {"sku": "ROW-1", "price": 2},
        {"sku": "ROW-2", "colour": "red", "title": ""},
        "ROW-2",
        {"price": 3},
        {"sku": "ROW-2", "attributes": {"库存": 7}},
        {"sku": "ROW-2", "title": "长" * 501},
    )
    assert [row["row"] for row in result["rows"]] == list(range(9))
    assert [row["status"] for row in result["rows"]] == [
        *("refused", "refused", "changed", "refused", "refused", "refused", "refused", "changed", "refused")
    ]
    wrong = {row["row"]: {each["field"] for each in row["errors"]} for row in result["rows"] if row["errors"]}
    assert wrong == {
        0: {"sku"},
        1: {"price"},
        3: {"sku"},
        4: {"colour", "title"},
        5: {"body"},
        6: {"sku"},
        8: {"title"},
    }
    assert "no product has it" in result["rows"][0]["errors"][0]["message"]
    assert "row 2" in result["rows"][3]["errors"][0]["message"]
    changed = api.get(f"/product/{first['product_id']}").json()
    assert (changed["title"], changed["sku"], changed["category"]) == ("批量灯一改", "ROW-1", None)
    assert (changed["price"], changed["attributes"], changed["version"]) == (None, {}, 2)
    wait_until_indexed(api)
    filters = {"attributes": {"库存": 7}}
    hits = api.post("/search", json={"mode": "text_to_text", "text": "灯", "filters": filters}).json()["hits"]
    assert [hit["product"]["product_id"] for hit in hits] == [second["product_id"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "products"),
        ({"products": []}, "products"),
        ({"products": {"sku": "A"}}, "products"),
        ({"products": [{"sku": "A"}] * 1001}, "products"),
        ({"products": [{"sku": "A"}], "mode": "upsert"}, "mode"),
    ],
)
def test_a_call_that_is_no_list_of_rows_changes_nothing(api: httpx.Client, body: Any, field: str) -> None:
    assert_problem(api.patch("/product", json=body), 422, field, field)
    assert_problem(api.patch("/product", data={"sku": "A"}), 415, None, "application/json")

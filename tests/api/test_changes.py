"""Changes from outside: many at once, by sku, and what keeps them from being lost or made twice."""

import json
import re
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.test_api import assert_problem
from tests.conftest import create_product, picture, wait_until_indexed
from tests.promises import require_in_time

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
    require_in_time(time.monotonic() - answered_at, 5)
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


def test_half_a_character_is_refused_in_an_answer_that_can_be_read(api: httpx.Client) -> None:
    """JSON can spell it, and UTF-8 can't: the answer was a 500 after the other rows were committed."""
    product = create_product(api, "半个字符旁边的桌子", sku="HALF-1")
    half = r"\ud83d"  # as it stands in the request
    rows = f'{{"products": [{{"sku": "HALF-1", "price": 7}}, {{"sku": "{half}"}}, {{"sku": "B", "{half}": 1}}]}}'
    for path, body, method in (
        ("/product", rows, "PATCH"),
        ("/product", f'{{"products": [], "{half}": 1}}', "PATCH"),
        ("/search", f'{{"mode": "{half}", "text": "a", "filters": {{"{half}": 1}}, "{half}": 1}}', "POST"),
        ("/generate", f'{{"prompt": "{half}", "{half}": 1}}', "POST"),
        ("/reindex", f'{{"clip_model": "{half}", "text_model": "a", "{half}": 1}}', "POST"),
    ):
        answer = api.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == (200 if body == rows else 422), (path, answer.text)
        if path == "/product":
            assert "\ufffd" in answer.text
        if body == rows:
            assert [row["status"] for row in answer.json()["rows"]] == ["changed", "refused", "refused"]
            assert answer.json()["rows"][1]["sku"] == "\ufffd"
    assert api.get(f"/product/{product['product_id']}").json()["price"] == 7
    api.delete(f"/product/{product['product_id']}")


def test_who_changes_what_another_has_changed_meanwhile_is_told_so(api: httpx.Client) -> None:
    created = api.post("/product", data={"title": "两人同改的柜子"}, files={"image": picture()})
    path, read = created.headers["Location"], created.headers["ETag"]
    assert api.get(path).headers["ETag"] == read == f'"{created.json()["product_id"]}-1"'
    changed = api.patch(path, data={"price": "5"}, headers={"If-Match": f'"0-1", {read}'})
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    for late in (
        api.patch(path, data={"price": "6"}, headers={"If-Match": read}),
        api.patch(path, data={"price": "6"}, headers={"If-Match": f"W/{changed.headers['ETag']}"}),
        api.delete(path, headers={"If-Match": read}),
    ):
        assert_problem(late, 412, None, "at version 2 by now")
    assert_problem(api.patch(path, data={"price": "6"}, headers={"If-Match": "2"}), 422, "If-Match", "in quotes")
    again = api.patch(path, data={"price": "5"}, headers={"If-Match": changed.headers["ETag"]})
    assert again.headers["ETag"] == changed.headers["ETag"]  # nothing was changed
    assert api.patch(path, data={"price": "7"}, headers={"If-Match": "*"}).json()["version"] == 3
    assert api.delete(path, headers={"If-Match": "*"}).status_code == 204
    assert_problem(api.delete(path, headers={"If-Match": "*"}), 404, None, "no product")


def test_of_many_who_change_what_they_have_read_one_wins_each_time(api: httpx.Client) -> None:
    product = create_product(api, "计数的柜子", attributes='{"n": 0}')
    path = f"/product/{product['product_id']}"

    def count_up() -> int:
        lost = 0
        for _ in range(5):
            while True:
                read = api.get(path)
                attributes = json.dumps({"n": read.json()["attributes"]["n"] + 1})
                answer = api.patch(path, data={"attributes": attributes}, headers={"If-Match": read.headers["ETag"]})
                if answer.status_code == 200:
                    break
                assert answer.status_code == 412
                lost += 1
        return lost

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: count_up(), range(4)))
    assert api.get(path).json()["attributes"] == {"n": 20}
    api.delete(path)


def test_put_makes_a_product_or_replaces_it_whole(api: httpx.Client) -> None:
    path, files = "/product/by-sku/PUT/1", {"image": ("a.png", picture("green"))}
    assert_problem(api.get(path), 404, None, "PUT/1")
    assert_problem(api.put(path, data={"title": "绿灯"}), 422, "image", "no product has this sku yet")
    assert_problem(api.put(path, data={"title": "绿灯"}, headers={"If-Match": "*"}), 412, None, "no such product")
    made = api.put(path, data={"title": "绿灯", "price": "5", "category": "灯"}, files=files)
    assert (made.status_code, made.json()["sku"], made.json()["version"]) == (201, "PUT/1", 1)
    assert api.get(made.headers["Location"]).json()["title"] == "绿灯"
    wait_until_indexed(api)
    replaced = api.put("/product/by-sku/ＰＵＴ%2F1", data={"title": "绿灯", "attributes": '{"a": 1}', "sku": "PUT/1"})
    assert (replaced.status_code, replaced.json()["sku"]) == (200, "PUT/1")
    assert (replaced.json()["price"], replaced.json()["category"], replaced.json()["version"]) == (None, None, 2)
    assert replaced.json()["image_url"] == made.json()["image_url"]
    assert replaced.headers["ETag"] == api.get(path).headers["ETag"]
    before = encoded(api)
    assert api.put(path, data={"title": "绿灯", "attributes": '{"a": 1}'}, files=files).json()["version"] == 2
    wait_until_indexed(api)
    assert encoded(api) == before
    assert_problem(
        api.put(path, data={"title": "灯"}, files=files, headers={"If-None-Match": "*"}), 412, None, "already"
    )
    assert_problem(api.put(path, data={"title": "灯", "sku": "PUT/2"}), 422, "sku", "another")
    assert_problem(api.put(path, data={"price": "1"}), 422, "title", "required")
    assert api.delete(made.headers["Location"]).status_code == 204


def test_of_many_puts_of_one_sku_at_once_one_makes_it(api: httpx.Client) -> None:
    def put(number: int) -> int:
        files = {"image": ("a.png", picture())}
        return api.put("/product/by-sku/RACE-1", data={"title": f"抢先的灯 {number}"}, files=files).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(put, range(8))) == [200] * 7 + [201]
    read = api.get("/product/by-sku/RACE-1").json()
    assert read["version"] == 8
    api.delete(f"/product/{read['product_id']}")


def post(api: httpx.Client, key: str, title: str = "只要一件的床", **fields: str) -> httpx.Response:
    files = {"image": ("a.png", picture("brown"))}
    return api.post("/product", data={"title": title, **fields}, files=files, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("fields", [{}, {"sku": "ONCE-1"}])
def test_the_same_request_many_times_at_once_makes_one_product(api: httpx.Client, fields: dict[str, str]) -> None:
    key = f"订单-{len(fields)}".encode().hex()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(api, key, **fields), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    (product_id,) = {answer.json()["product_id"] for answer in answers}
    assert api.get("/product/list", params={"q": "只要一件的床"}).json()["total"] == 1
    api.patch(f"/product/{product_id}", data={"price": "5"})
    assert post(api, key, **fields).json()["version"] == 2  # as it is now
    assert_problem(post(api, key, "另一张床", **fields), 422, None, "Another request")
    assert_problem(post(api, "a b"), 422, "Idempotency-Key", "without spaces")
    api.delete(f"/product/{product_id}")
    assert_problem(post(api, key, **fields), 422, None, "deleted since")


def test_a_key_is_free_again_after_a_day(api: httpx.Client, api_folder: Path) -> None:
    first = post(api, "old-key").json()["product_id"]
    with closing(sqlite3.connect(api_folder / "data" / "tuwen.db")) as database, database:
        database.execute("UPDATE idempotency_key SET created_at = '2020-01-01 00:00:00'")
    second = post(api, "old-key", "别的床").json()["product_id"]
    assert second != first
    assert post(api, "old-key", "别的床").json()["product_id"] == second
    for product_id in (first, second):
        api.delete(f"/product/{product_id}")

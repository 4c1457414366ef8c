"""Facets and filters over HTTP, of the list and of the catalogue."""

import json
from typing import Any

import httpx
import pytest

from tests.conftest import create_product, wait_until_indexed

PRODUCTS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("分面灯一", {"category": "分面灯", "price": "9.99"}, {"颜色": "红", "标签": ["新", "热"]}),
    ("分面灯二", {"category": "分面燈", "price": "10"}, {"颜色": "红", "标签": ["新"]}),
    ("分面椅", {"category": "分面椅", "price": "120"}, {"颜色": "蓝", "瓦数": 7}),
    ("分面凳", {}, {"颜色": True}),
]


@pytest.fixture(scope="module")
def catalogue(api: httpx.Client) -> httpx.Client:
    for title, fields, attributes in PRODUCTS:
        create_product(api, title, None, **fields, attributes=json.dumps(attributes))
    return api


def titles(client: httpx.Client, **filters: Any) -> list[str]:
    parameters = {"q": "分面", "sort": "product_id", "filters": json.dumps(filters)}
    return [each["title"] for each in client.get("/product/list", params=parameters).raise_for_status().json()["items"]]


def test_the_list_takes_the_filters_of_a_search(catalogue: httpx.Client) -> None:
    assert titles(catalogue) == [title for title, *_ in PRODUCTS]
    assert titles(catalogue, category=["分面燈"], price_max=9.99) == ["分面灯一"]
    assert titles(catalogue, category_not=["分面灯"]) == ["分面椅", "分面凳"]
    assert titles(catalogue, category_not=["分面灯"], has_category=True) == ["分面椅"]
    assert titles(catalogue, has_price=False) == titles(catalogue, has_category=False) == ["分面凳"]
    assert titles(catalogue, attributes={"颜色": {"any_of": ["蓝", True]}}) == ["分面椅", "分面凳"]
    assert titles(catalogue, attributes={"标签": {"contains_all": ["热", "新"]}}) == ["分面灯一"]


def test_facets_count_what_the_list_has(catalogue: httpx.Client) -> None:
    parameters = {"q": "分面", "facets": ["category", "price", "attributes.颜色", "attributes.标签"]}
    answer = catalogue.get("/product/facets", params=parameters).raise_for_status().json()
    assert answer["total"] == 4
    category, price, colour, tags = answer["facets"].values()
    assert [each["count"] for each in category["values"]] == [2, 1]
    assert category["missing"] == price["missing"] == 1
    assert price["ranges"] == [
        {"min": 0, "max": 9.99, "count": 1},
        {"min": 10, "max": 19.99, "count": 1},
        {"min": 100, "max": 199.99, "count": 1},
    ]
    assert [(each["value"], each["count"]) for each in colour["values"]] == [("红", 2), (True, 1), ("蓝", 1)]
    assert [(each["value"], each["count"], each["is_member"]) for each in tags["values"]] == [
        ("新", 2, True),
        ("热", 1, True),
    ]
    assert (tags["missing"], tags["other"]) == (2, 0)
    answer = catalogue.get("/product/facets", params={"q": "分面", "facets": "attributes"}).raise_for_status().json()
    names = {each["value"]: each["count"] for each in answer["facets"]["attributes"]["values"]}
    assert (names, answer["facets"]["attributes"]["missing"]) == ({"颜色": 4, "标签": 2, "瓦数": 1}, 0)
    red = {"q": "分面", "filters": json.dumps({"attributes": {"颜色": "红"}})}
    answer = catalogue.get("/product/facets", params=red).raise_for_status().json()
    assert (answer["total"], list(answer["facets"])) == (2, ["category", "price"])


def test_a_search_counts_the_nearest_that_fit(catalogue: httpx.Client) -> None:
    wait_until_indexed(catalogue)
    names = ["category", "price", "attributes", "attributes.颜色", "attributes.标签"]
    for filters in ({}, {"category_not": ["分面椅"]}, {"has_price": True, "price_max": 50}, {"has_category": False}):
        asked = {"mode": "text_to_text", "text": "灯", "top_k": 1, "filters": filters, "facets": names}
        answers = [catalogue.post("/search", json=asked).raise_for_status().json()]
        form = asked | {"filters": json.dumps(filters), "facets": json.dumps(names)}
        answers.append(catalogue.post("/search", data=form).raise_for_status().json())
        of_all = {"facets": names, "filters": json.dumps(filters)}
        everything = catalogue.get("/product/facets", params=of_all).raise_for_status().json()
        assert everything["total"] > 0
        for answer in answers:
            assert len(answer["hits"]) == 1
            assert answer["facets"] == {
                "candidates": everything["total"],
                "are_all": True,
                "counts": everything["facets"],
            }
    plain = catalogue.post("/search", json={"mode": "text_to_text", "text": "灯"}).raise_for_status().json()
    assert plain["facets"] is None


def test_a_boost_orders_what_is_relevant_and_leaves_the_score(catalogue: httpx.Client) -> None:
    wait_until_indexed(catalogue)
    asked: dict[str, Any] = {
        "mode": "text_to_text",
        "text": "分面椅",
        "filters": {"attributes": {"颜色": {"is_set": True}}},
    }
    plain = catalogue.post("/search", json=asked).raise_for_status().json()["hits"]
    assert {hit["boosted_score"] for hit in plain} == {None}
    score = {hit["product"]["product_id"]: hit["score"] for hit in plain}
    boost = [
        {"attribute": "瓦数", "pivot": 7, "weight": 0.6},
        {"freshness_half_life_days": 36500, "weight": 0.4},
    ]
    as_json = asked | {"boost": boost, "facets": ["attributes.瓦数"], "group_by": "group_id"}
    as_form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in as_json.items()}
    for request in ({"json": as_json}, {"data": as_form | {"group_by": "group_id"}}):
        answer = catalogue.post("/search", **request).raise_for_status().json()
        hits = answer["hits"]
        assert answer["facets"]["candidates"] == len(hits) == len(plain)
        for hit in hits:
            assert hit["score"] == pytest.approx(score[hit["product"]["product_id"]])
            lift = 0.4 + 0.6 * 0.5 * ("瓦数" in hit["product"]["attributes"])
            assert hit["boosted_score"] == pytest.approx(hit["score"] + abs(hit["score"]) * lift, rel=1e-3)
        boosted = [hit["boosted_score"] for hit in hits]
        assert boosted == sorted(boosted, reverse=True)
        pages = [
            catalogue.post("/search", json=as_json | {"top_k": 1, "offset": offset}).json()["hits"][0]["product"]
            for offset in range(len(hits))
        ]
        assert pages == [hit["product"] for hit in hits]


@pytest.mark.parametrize(
    ("boost", "field", "code"),
    [
        ([{"weight": 0.1}], "boost.0", "needs_one_boost"),
        (
            [{"attribute": "销量", "pivot": 1, "freshness_half_life_days": 1, "weight": 0.1}],
            "boost.0",
            "needs_one_boost",
        ),
        ([{"attribute": "销量", "weight": 0.1}], "boost.0", "wrong_pivot"),
        ([{"freshness_half_life_days": 3, "pivot": 1, "weight": 0.1}], "boost.0", "wrong_pivot"),
        ([{"attribute": "销量", "pivot": 0, "weight": 0.1}], "boost.0.pivot", "too_small"),
        ([{"attribute": "销量", "pivot": 1, "weight": 1.5}], "boost.0.weight", "too_large"),
        ([{"attribute": "销量", "pivot": 1}], "boost.0.weight", "missing"),
        ([{"attribute": "销量", "pivot": 1, "weight": 0.6}] * 2, "boost", "too_large"),
        ([{"attribute": "销量", "pivot": 1, "weight": 0.1}] * 6, "boost", "too_many"),
        ([{"attribute": "销量", "scale": 1, "pivot": 1, "weight": 0.1}], "boost.0.scale", "unknown_field"),
        ("price", "boost", "not_a_list"),
    ],
)
def test_what_is_wrong_with_a_boost_is_named(api: httpx.Client, boost: Any, field: str, code: str) -> None:
    asked = {"mode": "text_to_text", "text": "灯", "boost": boost}
    answer = api.post("/search", json=asked, headers={"Accept-Language": "zh"})
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert (error["field"], error["code"]) == (field, code)
    assert not error["message"].isascii()


def test_a_search_is_sorted_or_boosted(api: httpx.Client) -> None:
    boost = [{"freshness_half_life_days": 30, "weight": 0.1}]
    asked = {"mode": "text_to_text", "text": "灯", "sort": "price", "boost": json.dumps(boost)}
    answer = api.post("/search", data=asked)
    assert (answer.status_code, [each["code"] for each in answer.json()["errors"]]) == (422, ["two_orders"])


@pytest.mark.parametrize(
    ("parameters", "field", "code"),
    [
        ({"facets": ["colour"]}, "facets.0", "no_facet"),
        ({"facets": ["price"] * 11}, "facets", "too_many"),
        ({"filters": "{"}, "filters", "not_json"),
        ({"filters": '{"price_min": 3, "price_max": 2}'}, "filters", "empty_range"),
        ({"filters": '{"colour": "red"}'}, "filters.colour", "unknown_field"),
        ({"filters": '{"has_price": "yes"}'}, "filters.has_price", "not_a_boolean"),
        ({"category": ["a", "b"]}, "category", "twice"),
    ],
)
def test_what_is_wrong_is_named(api: httpx.Client, parameters: dict[str, Any], field: str, code: str) -> None:
    answer = api.get("/product/facets", params=parameters, headers={"Accept-Language": "zh"})
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert (error["field"], error["code"]) == (field, code)

"""What is wrong with a body is told alike by every route: by status, code and parameters, in both languages.

The test of what is logged stands last: from its key on, nobody gets in without one.
"""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from main import app
from tests.conftest import create_product, picture

ROUTES = ("/generate", "/keys", "/reindex", "/reindex/rollback", "/calibration/hybrid", "/search", "/product")
METHODS = {"/calibration/hybrid": "PUT", "/product": "PATCH"}
JSON = {"Content-Type": "application/json"}
CHINESE = {"Accept-Language": "zh"}


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{}", "text/plain", 415, "wrong_body"),
        (b"[]", "application/json", 400, "body_not_an_object"),
        (b" ", "application/json", 400, "body_not_json"),
        (b"{", "application/json", 400, "body_not_json"),
        (b'{"seed": NaN}', "application/json", 400, "body_not_json"),
        (b'{"a": {"price": 10, "price": 20}}', "application/json", 400, "twice"),
    ],
)
@pytest.mark.parametrize("path", ROUTES)
def test_every_route_tells_a_bad_json_body_alike(
    api: httpx.Client, path: str, content: bytes, content_type: str, status: int, code: str
) -> None:
    method = METHODS.get(path, "POST")
    answer = api.request(method, path, content=content, headers={"Content-Type": content_type})
    assert (answer.status_code, code_of(answer)) == (status, code), answer.text
    declared = app.openapi()["paths"][path.replace("hybrid", "{mode}")][method.lower()]["responses"]
    assert str(status) in declared


def code_of(answer: httpx.Response) -> str:
    problem = answer.json()
    return str(problem["code"] or problem["errors"][0]["code"])


@pytest.mark.parametrize("path", ["/generate", "/keys", "/reindex", "/calibration/hybrid"])
def test_no_body_is_none_of_json_where_one_is_needed(api: httpx.Client, path: str) -> None:
    assert api.request(METHODS.get(path, "POST"), path, content=b"", headers=JSON).status_code == 400


@pytest.mark.parametrize("content", [b"", b"null", b"{}"])
def test_a_rollback_needs_no_body(api: httpx.Client, content: bytes) -> None:
    assert api.post("/reindex/rollback", content=content, headers=JSON if content else {}).status_code == 409


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"II*\0",
        b"BM",
        b"GIF89a",
        picture()[:60],
    ],
)
def test_what_is_wrong_with_a_picture_stands_at_its_field_and_tells_of_no_memory(
    api: httpx.Client, data: bytes
) -> None:
    for headers in ({}, CHINESE):
        answer = api.post("/product", data={"title": "桌子"}, files={"image": ("a.png", data)}, headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["parameters"]) == (422, None, {})
        assert problem["errors"][0]["code"] in ("unreadable", "broken"), problem
        assert not re.search("0x|BytesIO", answer.text)


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        ("yesterday", "not_a_moment"),
        ("2027-13-01T00:00:00Z", "not_a_moment"),
        ([], "not_a_moment"),
        (1e30, "not_a_moment"),
        ("2027-01-01T00:00:00", "no_time_zone"),
    ],
)
def test_a_moment_that_is_none_has_a_code_and_no_english_in_chinese(api: httpx.Client, moment: Any, code: str) -> None:
    search = {"mode": "text_to_text", "text": "桌子", "as_of": moment}
    key = {"name": "feed", "scopes": ["search"], "expires_at": moment}
    for path, body in (("/search", search), ("/keys", key)):
        [error] = api.post(path, json=body, headers=CHINESE).json()["errors"]
        assert (error["code"], error["parameters"]) == (code, {})
        assert not re.search("[a-z]{2}", error["message"])


@pytest.mark.parametrize("attributes", [{"a\0b": 1}, {"颜色": "红\0"}, {"a": [{"b": "\0"}]}])
def test_no_attribute_has_a_text_that_stores_would_cut_off(api: httpx.Client, attributes: dict[str, Any]) -> None:
    sku = "NUL"
    if api.get(f"/product/by-sku/{sku}").status_code == 404:
        create_product(api, "桌子", sku=sku)
    form = {"title": "椅子", "attributes": json.dumps(attributes)}
    made = api.get(f"/product/by-sku/{sku}").json()["product_id"]
    answers = [
        api.post("/product", data=form, files={"image": picture()}),
        api.put(f"/product/by-sku/{sku}", data=form),
        api.patch(f"/product/{made}", data=form),
    ]
    assert [(each.status_code, code_of(each)) for each in answers] == [(422, "control_characters")] * 3
    [row] = api.patch("/product", json={"products": [{"sku": sku, "attributes": attributes}]}).json()["rows"]
    assert (row["status"], row["errors"][0]["code"]) == ("refused", "control_characters")


def test_a_price_of_minus_zero_is_zero(api: httpx.Client) -> None:
    made = create_product(api, "白送的桌子", price="-0")
    assert str(api.get(f"/product/{made['product_id']}").json()["price"]) == str(made["price"]) == "0.0"


def test_a_name_that_comes_twice_in_a_form_s_json_is_refused(api: httpx.Client) -> None:
    form = {"title": "椅子", "attributes": '{"颜色": "红", "颜色": "蓝"}'}
    [error] = api.post("/product", data=form, files={"image": picture()}).json()["errors"]
    assert (error["field"], error["code"]) == ("attributes.颜色", "twice")


@pytest.mark.parametrize("path", ["/product/list", "/product/facets"])
def test_an_empty_category_is_none(api: httpx.Client, path: str) -> None:
    create_product(api, "台灯", category="灯")
    of_all = api.get(path).json()["total"]
    assert api.get(path, params={"category": ""}).json()["total"] == of_all > 0


def test_the_document_has_no_default_that_would_clear_what_is_to_stay() -> None:
    document = app.openapi()
    row = document["components"]["schemas"]["BatchRow"]["properties"]
    body = document["paths"]["/product/{product_id}"]["patch"]["requestBody"]["content"]
    for properties in (row, *(each["schema"]["properties"] for each in body.values())):
        assert {"title", "category", "attributes", "group_id"} <= properties.keys()
        assert [name for name, schema in properties.items() if "default" in schema] == []
    cleared = {name for name, schema in row.items() if {"type": "null"} in schema.get("anyOf", ())}
    assert cleared == {"category", "price", "attributes", "group_id"}


def counted(api: httpx.Client) -> dict[tuple[str, str, str], float]:
    pattern = r'tuwen_requests_total{method="([^"]+)",route="([^"]+)",status="(\d+)"} (\S+)'
    return {
        (method, route, status): float(n) for method, route, status, n in re.findall(pattern, api.get("/metrics").text)
    }


def test_requests_are_counted_by_route_and_never_by_address(api: httpx.Client) -> None:
    asked = {
        ("GET", "/product/999001"): ("GET", "/product/{product_id}", "404"),
        ("GET", "/product/999002"): ("GET", "/product/{product_id}", "404"),
        ("DELETE", "/product/list"): ("DELETE", "/product/{product_id}", "405"),
        ("GET", "/images/aa/none.png"): ("GET", "/images/{path:path}", "404"),
        ("GET", "/nowhere/at/all"): ("GET", "none", "404"),
        ("PROPFIND", "/nowhere"): ("other", "none", "404"),
        ("GET", "/health/live"): ("GET", "/health/live", "200"),
    }
    before = counted(api)
    for method, path in asked:
        api.request(method, path)
    now = counted(api)
    grown = {each: now[each] - before.get(each, 0) for each in asked.values()}
    expected = {each: list(asked.values()).count(each) for each in asked.values()}
    assert grown == expected
    assert not [route for _, route, _ in now if "999" in route or "nowhere" in route]


def test_what_is_refused_is_logged_with_the_status_that_was_answered(api: httpx.Client, api_folder: Path) -> None:
    key = api.post("/keys", json={"name": "till", "scopes": ["search", "write", "admin"]}).json()["key"]
    headers = {"X-API-Key": key}
    asked = [("DELETE", "/product/list"), ("POST", "/generate"), ("PATCH", "/product")]
    answered = [api.request(*each, headers=headers, content=b"{").status_code for each in asked]
    assert answered == [405, 415, 415]
    log = (api_folder / "api.log").read_text(encoding="utf-8")
    logged = re.findall(r"tuwen\.audit \[[^\]]+\]: (\w+ \S+ \d+) by the key till", log)
    assert logged == [f"{method} {path} {status}" for (method, path), status in zip(asked, answered, strict=True)]

"""What people type, and what it is the same as: titles, queries, skus, categories, forms, filters."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import create_product, picture, wait_until_indexed

ZERO_WIDTH = "\u200b"


def found(client: httpx.Client, text: str, mode: str = "text_to_text", **more: Any) -> list[tuple[int, float]]:
    response = client.post("/search", json={"mode": mode, "text": text, **more}).raise_for_status()
    return [(hit["product"]["product_id"], hit["score"]) for hit in response.json()["hits"]]


@pytest.mark.parametrize("mode", ["text_to_text", "text_to_image"])
def test_a_query_finds_the_same_however_it_is_typed(shop: httpx.Client, mode: str) -> None:
    expected = found(shop, "木制书柜", mode)
    assert len(expected) == 10
    for query in ("木製書櫃", f"木{ZERO_WIDTH}制书柜\ufeff", "　木制书柜"):
        assert found(shop, query, mode) == expected
    categories = {"filters": {"category": ["柜　"]}}
    assert found(shop, "柜子", mode, filters={"category": ["櫃"]}) == found(shop, "柜子", mode, **categories)


def test_a_title_is_encoded_normalised_and_shown_as_typed(api: httpx.Client) -> None:
    typed = f"木製{ZERO_WIDTH}　Ｂ-書櫃"
    created = create_product(api, typed, category="書櫃", sku=f"Ｗ-{ZERO_WIDTH}1")
    wait_until_indexed(api)
    assert (created["title"], created["category"]) == (typed, "書櫃")
    for mode in ("text_to_text", "text_to_image"):
        hits = dict(found(api, "木制 B-书柜", mode, filters={"category": ["书柜"]}))
        assert list(hits) == [created["product_id"]]
        if mode == "text_to_text":
            assert np.isclose(hits[created["product_id"]], 1, atol=1e-4)
    for parameters in ({"q": "书柜 木制"}, {"q": "W-1"}, {"category": "书柜"}):
        listed = api.get("/product/list", params=parameters).raise_for_status().json()["items"]
        assert [each["product_id"] for each in listed] == [created["product_id"]]


@pytest.mark.parametrize("sku", ["Z-1", "Ｚ-1", f"Z{ZERO_WIDTH}-1", "Z－1"])
def test_a_sku_is_taken_however_it_is_typed(api: httpx.Client, sku: str) -> None:
    owner = api.get("/product/list", params={"q": "Z-1"}).json()["items"]
    if not owner:
        create_product(api, "桌子", sku="Z-1")
    other = create_product(api, "椅子")["product_id"]
    response = api.patch(f"/product/{other}", data={"sku": sku})
    assert (response.status_code, response.json()["type"]) == (409, "urn:tuwen:problem:duplicate-sku")


@pytest.mark.parametrize("blank", [ZERO_WIDTH, "\ufeff\u00ad", "\u3164", "　\u2060"])
def test_what_nobody_sees_is_no_text(api: httpx.Client, blank: str) -> None:
    product = create_product(api, "凳子")["product_id"]
    for field in ("title", "sku", "category"):
        response = api.patch(f"/product/{product}", data={field: blank})
        assert response.status_code == 422, field
        assert response.json()["errors"][0]["field"] == field
    assert api.post("/search", json={"mode": "text_to_text", "text": blank}).status_code == 422


def part(name: str, value: bytes, more: str = "", content_type: str = "") -> bytes:
    headers = f'Content-Disposition: form-data; name="{name}"{more}\r\n'
    if content_type:
        headers += f"Content-Type: {content_type}\r\n"
    return b"--limit\r\n" + headers.encode() + b"\r\n" + value + b"\r\n"


FILE = part("image", picture(), '; filename="a.png"')


def post_form(client: httpx.Client, *parts: bytes, charset: str = "") -> httpx.Response:
    content_type = "multipart/form-data; boundary=limit" + (f"; charset={charset}" if charset else "")
    body = b"".join((*parts, b"--limit--\r\n"))
    return client.post("/product", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize("charset", ["gbk", "GB18030", "gb2312", "big5", "utf-8"])
def test_a_form_in_another_charset_is_read_where_it_says_so(api: httpx.Client, charset: str) -> None:
    title = part("title", "木制沙发".encode(charset) if charset != "big5" else "木製沙發".encode(charset))
    expected = "木製沙發" if charset == "big5" else "木制沙发"
    assert post_form(api, FILE, title, charset=charset).json()["title"] == expected
    of_part = part("title", "木制沙发".encode("gbk"), content_type="text/plain; charset=GBK")
    assert post_form(api, FILE, of_part, part("category", "椅".encode())).json()["title"] == "木制沙发"


def test_a_form_that_is_not_in_its_charset_is_refused(api: httpx.Client) -> None:
    gbk = "木制沙发".encode("gbk")
    product = create_product(api, "凳子")["product_id"]
    pairs = {"Content-Type": "application/x-www-form-urlencoded"}
    quoted = b"title=" + "".join(f"%{byte:02X}" for byte in gbk).encode()
    for response in (
        post_form(api, FILE, part("title", gbk)),
        post_form(api, FILE, part("title", gbk, content_type="text/plain; charset=utf-8")),
        post_form(api, FILE, part("title", "沙发".encode()), charset="rot13"),
        api.patch(f"/product/{product}", content=quoted, headers=pairs),
        api.patch(f"/product/{product}", content=b"title=" + gbk, headers=pairs),
    ):
        assert (response.status_code, response.json()["type"]) == (400, "urn:tuwen:problem:malformed-request")
        assert "UTF-8" in response.json()["detail"]
    pairs["Content-Type"] += "; charset=gbk"
    changed = api.patch(f"/product/{product}", content=quoted + b"+%41", headers=pairs)
    assert changed.json()["title"] == "木制沙发 A"


@pytest.mark.parametrize(
    "more", ["", '; filename=""', "; filename*=UTF-8''%E6%B2%99%E5%8F%91.png", "; FileName = x.png"]
)
def test_a_picture_is_a_file_however_it_is_named(api: httpx.Client, more: str) -> None:
    created = post_form(api, part("title", b"sofa"), part("image", picture(), more))
    assert created.status_code == 201, created.text


def test_what_was_not_chosen_is_not_sent(api: httpx.Client) -> None:
    response = post_form(api, part("title", b"sofa"), part("image", b"", '; filename=""'))
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "image")
    assert "is missing" in response.json()["detail"]


def test_two_of_one_kind_are_refused(api: httpx.Client) -> None:
    title = part("title", b"sofa")
    for parts, field in (((FILE, FILE, title), "image"), ((FILE, title, title), "title")):
        response = post_form(api, *parts)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)


def test_parameters_that_there_are_not_are_refused(api: httpx.Client) -> None:
    product = create_product(api, "凳子")
    for path, named in (
        ("/product/list?query=沙发", "query"),
        ("/product/list?q=a&q=b", "q"),
        (f"/product/{product['product_id']}?verbose=1", "verbose"),
        (f"/product/{product['product_id']}?product_id=1", "product_id"),
        ("/health?full=1", "full"),
    ):
        response = api.get(path)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, named), path
    assert api.delete(f"/product/{product['product_id']}?dry_run=true").status_code == 422
    assert api.get(product["image_url"] + "?v=2").status_code == 200
    many = api.get("/product/list", params={"q": " ".join(map(str, range(21)))})
    assert (many.status_code, many.json()["errors"][0]["field"]) == (422, "q")


def test_a_filter_takes_every_character(api: httpx.Client) -> None:
    value = "a\u0001\n\t\u007f\"\\'" + ZERO_WIDTH
    created = create_product(api, "柜子", attributes=json.dumps({value: value}))
    wait_until_indexed(api)
    assert [number for number, _ in found(api, "柜子", filters={"attributes": {value: value}})] == [
        created["product_id"]
    ]


def test_attributes_are_filtered_by_conditions(api: httpx.Client) -> None:
    sizes = {
        size: create_product(api, "衣架", category="衣架", attributes=json.dumps({"size": size, "tags": ["新"]}))
        for size in ("S", "M", 40)
    }
    wait_until_indexed(api)

    def numbers(**attributes: Any) -> set[int]:
        return {number for number, _ in found(api, "衣架", filters={"category": ["衣架"], "attributes": attributes})}

    def products(*wanted: str | int) -> set[int]:
        return {sizes[size]["product_id"] for size in wanted}

    assert numbers(size={"any_of": ["S", 40]}, tags={"contains_any": ["新"]}) == products("S", 40)
    assert numbers(size={"none_of": ["S"]}) == products("M", 40)
    assert numbers(size={"min": 39.5}) == products(40)
    assert numbers(colour={"is_set": True}) == set()
    for wrong, field in (
        ({}, "filters.attributes.size.conditions"),
        ({"any_of": []}, "filters.attributes.size.conditions.any_of"),
        ({"like": "S"}, "filters.attributes.size.conditions.like"),
        ({"min": 2, "max": 1}, "filters.attributes.size.conditions"),
        ({"any_of": [2**70]}, "filters.attributes"),
    ):
        query = {"mode": "text_to_text", "text": "衣架", "filters": {"attributes": {"size": wrong}}}
        response = api.post("/search", json=query)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field), response.text
        assert response.json()["errors"][0]["code"], response.text

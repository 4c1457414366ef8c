"""What people type, and what it is the same as: titles, queries, skus, categories, forms, filters."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import create_product, wait_until_indexed

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

"""What in a picture of two things fits a query that names one of them, by the shipped models."""

import io
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.conftest import create_product, wait_until_indexed


def first_hit(api: httpx.Client, kind: str, category: str, *, explain: bool = False) -> dict[str, Any]:
    query = {"mode": "text_to_image", "text": kind, "filters": {"category": [category]}, "explain": explain}
    hit: dict[str, Any] = api.post("/search", json=query).raise_for_status().json()["hits"][0]
    return hit


def test_the_half_that_is_asked_for_has_most_of_the_map(shop: httpx.Client) -> None:
    halves = {"沙发": "沙发", "台灯": "灯具"}
    side = 240
    pair = Image.new("RGB", (2 * side, side), "white")
    for number, (kind, category) in enumerate(halves.items()):
        hit = first_hit(shop, kind, category)
        half = Image.open(io.BytesIO(shop.get(hit["product"]["image_url"]).content)).convert("RGB")
        half.thumbnail((side, side))
        pair.paste(half, (number * side, 0))
    data = io.BytesIO()
    pair.save(data, "PNG")
    product = create_product(shop, "一对", data.getvalue(), category="一对")
    try:
        wait_until_indexed(shop)
        lefts = []
        for kind in halves:
            hit = first_hit(shop, kind, "一对", explain=True)
            cells = np.array(hit["explanation"]["relevance_map"]["cells"]).clip(0)
            lefts.append(cells[:, :3].sum() / (cells[:, :3].sum() + cells[:, 4:].sum()))
        assert lefts[0] > 0.5 > lefts[1]
    finally:
        shop.delete(f"/product/{product['product_id']}").raise_for_status()

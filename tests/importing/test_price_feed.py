"""A nightly feed of prices encodes nothing, and searches see each price when its row is in."""

import httpx

from tests.conftest import wait_until_indexed
from tests.importing.files import counts_of, csv_of, import_file
from tests.importing.test_imports import shop_of

VECTORS = "tuwen_index_vectors_total"


def vectors_of(client: httpx.Client) -> list[str]:
    """Those that were encoded, and those that were kept: a feed does neither."""
    return [line for line in client.get("/metrics").text.splitlines() if line.startswith(VECTORS)]


def test_a_file_of_prices_encodes_nothing_and_searches_see_each(api: httpx.Client) -> None:
    assert counts_of(import_file(api, shop_of("PF", 8))) == (8, 0, 0, 0)
    wait_until_indexed(api)
    before = vectors_of(api)
    assert before
    feed = csv_of(["货号", "价格"], *([f"PF-{number}", f"￥9,00{number}.50"] for number in range(8)))
    assert counts_of(import_file(api, feed, "upsert", "feed.csv")) == (0, 8, 0, 0)
    for number in range(8):
        price = {"price_min": 9000.5 + number, "price_max": 9000.5 + number}
        query = {"mode": "text_to_text", "text": "商品", "filters": price}
        [hit] = api.post("/search", json=query).json()["hits"]
        found = hit["product"]
        assert (found["sku"], found["price"], found["index_status"]) == (f"PF-{number}", 9000.5 + number, "indexed")
    assert counts_of(import_file(api, feed, "upsert", "feed.csv")) == (0, 0, 8, 0)
    assert vectors_of(api) == before

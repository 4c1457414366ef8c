"""/metrics, as Prometheus would read it. What it says of drift is tested beside reconciliation."""

import re
from typing import Any

import httpx

from tests.conftest import create_product, wait_until_indexed


def query_cache(api: httpx.Client) -> dict[str, float]:
    found = re.findall(r'tuwen_query_cache_total{result="(\w+)"} (\S+)', api.get("/metrics").text)
    return {result: float(count) for result, count in found}


def search(api: httpx.Client, text: str) -> list[Any]:
    answer = api.post("/search", json={"mode": "text_to_image", "text": text}).raise_for_status().json()
    return [(hit["product"]["product_id"], hit["score"]) for hit in answer["hits"]]


def test_metrics_show_how_many_queries_were_known(api: httpx.Client) -> None:
    create_product(api, "红色沙发")
    wait_until_indexed(api)
    before = query_cache(api)
    first = search(api, "没有人 问过的沙发")
    assert first
    for text in ("没有人 问过的沙发", "  没有人   问过的沙发 ", "没有人\t问过的沙发\n"):
        assert search(api, text) == first
    assert query_cache(api) == {"miss": before.get("miss", 0) + 1, "hit": before.get("hit", 0) + 3}


def index_vectors(api: httpx.Client) -> dict[tuple[str, str], float]:
    pattern = r'tuwen_index_vectors_total{how="(\w+)",of="(\w+)",process="[^"]+"} (\S+)'
    return {(of, how): float(count) for how, of, count in re.findall(pattern, api.get("/metrics").text)}


def test_metrics_show_what_was_encoded_and_what_was_kept(api: httpx.Client) -> None:
    product = create_product(api, "只改价格的沙发", price="10")
    wait_until_indexed(api)
    before = index_vectors(api)
    assert before["picture", "encoded"] >= 1
    api.patch(f"/product/{product['product_id']}", data={"price": "11"}).raise_for_status()
    assert api.get(f"/product/{product['product_id']}").json()["index_status"] == "indexed"
    api.patch(f"/product/{product['product_id']}", data={"category": "沙发"}).raise_for_status()
    wait_until_indexed(api)
    kept = {("picture", "kept"): 1.0, ("title", "kept"): 1.0}
    assert index_vectors(api) == before | {each: before.get(each, 0) + count for each, count in kept.items()}

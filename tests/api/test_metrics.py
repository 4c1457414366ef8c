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

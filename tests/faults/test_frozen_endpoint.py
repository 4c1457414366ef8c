"""The service whose title model is behind an endpoint that hangs: what does not need it goes on, the rest says so."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.embedding_server import COLOURS, DIM
from tests.processes import running_api, wait_until
from tests.promises import require_in_time
from tests.servers import EndpointServer, running_endpoint

TIMEOUT_S = 2.0
MEANING = {"mode": "text_to_text", "text": "红色沙发"}
PICTURES = {"mode": "text_to_image", "text": "红色沙发"}
FUSED = ({**MEANING, "lexical": True}, {"mode": "hybrid", "text": "红色沙发"})


class Shop(NamedTuple):
    client: httpx.Client
    endpoint: EndpointServer

    def search(self, query: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Titles, and what is missing."""
        response = self.client.post("/search", json=query)
        assert response.is_success, response.text
        answer = response.json()
        return [hit["product"]["title"] for hit in answer["hits"]], answer["missing"]

    def models(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/health").json()["components"]["models"]
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("endpoint-shop")
    with running_endpoint(folder / "endpoint") as endpoint:
        models = tiny_models | {"TEXT_MODEL": endpoint.name}
        with (
            running_api(folder, **models, ENDPOINT_TIMEOUT_S=TIMEOUT_S, QUERY_CACHE_SIZE=0) as url,
            httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        ):
            for title in ("红色布艺沙发", "蓝色木椅"):
                create_product(client, title)
            wait_until_indexed(client)
            yield Shop(client, endpoint)


def test_titles_are_indexed_and_found_by_the_endpoints_vectors(shop: Shop) -> None:
    assert shop.search(MEANING) == (["红色布艺沙发", "蓝色木椅"], [])
    assert shop.client.get("/health").is_success
    assert shop.models()["detail"].endswith(f" + bge-m3@{DIM}")
    answer = shop.client.post("/search", json=MEANING).json()
    assert "127.0.0.1" not in answer["index"]["model"], "every caller reads it"


def test_one_that_hangs_takes_its_own_searches_alone(shop: Shop) -> None:
    with shop.endpoint.frozen():
        started = time.monotonic()
        refused = shop.client.post("/search", json=MEANING)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:tuwen:problem:models-unavailable")
        require_in_time(time.monotonic() - started, TIMEOUT_S + 1)
        started = time.monotonic()
        titles, missing = shop.search(PICTURES)
        assert (len(titles), missing) == (2, [])
        for query in FUSED:
            titles, missing = shop.search(query)
            assert (titles[0], missing) == ("红色布艺沙发", ["meaning"])
        require_in_time(time.monotonic() - started, TIMEOUT_S)
        assert shop.models()["status"] == "down"
        assert shop.client.get("/health").status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert shop.client.get("/health/ready").is_success, "all processes share it: none of them searches better"
        created = create_product(shop.client, "绿色书柜", picture("green"))
    wait_until(lambda: shop.models()["status"] == "ok", what="the endpoint to be asked again")
    wait_until_indexed(shop.client, timeout_s=60)
    titles, missing = shop.search({"mode": "text_to_text", "text": "绿色书柜"})
    assert (titles[0], missing) == ("绿色书柜", [])
    shop.client.delete(f"/product/{created['product_id']}")


def test_nothing_is_left_out_of_what_can_not_be_judged(shop: Shop) -> None:
    measured = {"queries": 20, "hits": 100, "auroc": 0.9, "log_loss": 0.3, "calibration_error": 0.02}
    weights = {"intercept": -9.0, "title_cosine": 0.1, "words": 0.1}
    body = {"collection": shop.client.get("/calibration").json()["collection"], "weights": weights}
    shop.client.put("/calibration/hybrid", json={**body, "fitted_on": measured}).raise_for_status()
    asked = {"mode": "hybrid", "text": "红色布艺沙发", "min_score": 0.5}

    def no_match() -> bool | None:
        response = shop.client.post("/search", json=asked)
        return response.json()["no_match"] if response.is_success else None

    wait_until(lambda: no_match() is True, what="the calibration to be used")
    with shop.endpoint.frozen():
        titles, missing = shop.search(asked)
        assert (titles[0], missing) == ("红色布艺沙发", ["meaning"])
        assert no_match() is None
    wait_until(lambda: no_match() is True, what="the endpoint to be asked again")


def test_health_asks_one_that_nobody_has_asked_lately(shop: Shop) -> None:
    shop.search(MEANING)
    with shop.endpoint.frozen():
        assert shop.models()["status"] == "ok"  # it has just answered
        wait_until(lambda: shop.models()["status"] == "down", what="/health to ask by itself")
    wait_until(lambda: shop.models()["status"] == "ok", what="/health to ask again")


def test_other_vectors_than_the_index_has_are_refused_and_said(shop: Shop) -> None:
    shop.endpoint.behave(dim=DIM // 2)
    refused = shop.client.post("/search", json=MEANING)
    assert refused.json()["type"] == "urn:tuwen:problem:models-unavailable"
    assert f"vectors of {DIM // 2} numbers, not {DIM}" in shop.models()["detail"]
    created = create_product(shop.client, "绿色书柜")
    time.sleep(1)
    product = f"/product/{created['product_id']}"
    assert shop.client.get(product).json()["index_status"] == "pending", "it waits, and has not failed"
    shop.endpoint.behave()
    wait_until_indexed(shop.client, timeout_s=60)
    shop.client.delete(product)


def test_a_title_that_the_endpoint_refuses_fails_alone(shop: Shop) -> None:
    poisoned, sound = create_product(shop.client, "有毒的沙发"), create_product(shop.client, "白色的沙发")
    wait_until_indexed(shop.client)
    status = {
        each["product_id"]: shop.client.get(f"/product/{each['product_id']}").json() for each in (poisoned, sound)
    }
    assert status[sound["product_id"]]["index_status"] == "indexed"
    assert status[poisoned["product_id"]]["index_status"] == "failed"
    for each in (poisoned, sound):
        shop.client.delete(f"/product/{each['product_id']}")


def test_a_change_of_the_models_sends_the_key_to_no_other_server(shop: Shop, tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as other:
        for field in ("clip_model", "text_model"):
            request = {"clip_model": "a", "text_model": "b", field: other.name}
            refused = shop.client.post("/reindex", json=request)
            server = other.url.removesuffix("/v1")
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "unnamed_server")
            said = f"{field}: names {server}, and no setting does; ENDPOINT_SERVERS may"
            assert refused.json()["detail"] == said
        assert other.seen() == []
    job = shop.client.post("/reindex", json={"clip_model": "/nowhere", "text_model": f"{shop.endpoint.url}#m"})
    assert job.status_code == httpx.codes.ACCEPTED, "another model of the same server"


@pytest.mark.parametrize("style", ["vllm", "infinity"])
def test_a_service_whose_models_are_both_elsewhere(tmp_path_factory: pytest.TempPathFactory, style: str) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    with running_endpoint(folder / "endpoint") as endpoint:
        models = {
            "CLIP_MODEL": endpoint.name,
            "TEXT_MODEL": f"{endpoint.name}?dimensions=32",
            "CLIP_ENDPOINT_STYLE": style,
        }
        with (
            running_api(folder, **models) as url,
            httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        ):
            for name, colour in COLOURS.items():
                create_product(client, f"{name}色的东西", picture(colour))
            wait_until_indexed(client)
            shop = Shop(client, endpoint)
            asked = {"mode": "text_to_image", "text": "蓝"}
            titles, missing = shop.search(asked)
            assert (titles[0], missing) == ("蓝色的东西", [])
            titles, missing = shop.search({**asked, "explain": True})
            assert (titles[0], missing) == ("蓝色的东西", ["relevance_maps"]), "each view would be a call"
            files = {"image": ("picture.png", picture(COLOURS["绿"]))}
            found = client.post("/search", data={"mode": "image_to_image"}, files=files).json()
            assert found["hits"][0]["product"]["title"] == "绿色的东西"
            assert client.get("/health").is_success

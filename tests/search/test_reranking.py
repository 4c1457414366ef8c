"""The first 50 hits in the order of a cross-encoder: of this machine, and behind a real server that reranks."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import torch
import transformers

from nlp_models import load_reranker
from tests.conftest import create_product, picture, wait_until_indexed
from tests.embedding_server import MOST_INPUTS
from tests.processes import running_api, wait_until
from tests.promises import require_in_time
from tests.published_models import save_bge_m3, save_bge_reranker
from tests.servers import EndpointServer, running_endpoint
from tuwen.errors import ModelsUnavailable, ModelUnavailable
from tuwen.settings import Settings

QUERY, TITLES = "红色沙发", ["红色布艺沙发", "蓝色木椅 现代简约", "a", "沙发"]
NOBODY = threading.Event()


def _settings(model: Path | str, **changes: Any) -> Settings:
    return Settings(_env_file=None, reranker_model=str(model), **changes)


def test_a_cross_encoders_scores_are_its_heads(tmp_path: Path) -> None:
    folder = save_bge_reranker(tmp_path / "reranker")
    reranker = load_reranker(_settings(folder))
    assert reranker is not None
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    model.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = []
    for title in TITLES:
        with torch.no_grad():
            logits = model(**tokenizer(QUERY, title, return_tensors="pt")).logits
        expected.append(torch.sigmoid(logits)[0, 0].item())
    many = TITLES * 6  # more than are read at once
    assert np.allclose(reranker.scores(QUERY, many, NOBODY), expected * 6, atol=1e-5)
    assert len({round(score, 4) for score in expected}) == len(TITLES)
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(ModelsUnavailable, match="not waited for"):
        reranker.scores(QUERY, TITLES, given_up)


def test_what_has_no_head_of_one_score_is_refused(tmp_path: Path) -> None:
    """transformers would give it one of random weights."""
    for folder in (save_bge_m3(tmp_path / "encoder"), save_bge_reranker(tmp_path / "classes", labels=3)):
        with pytest.raises(ModelUnavailable, match=r"^RERANKER_MODEL: .* is no cross-encoder with one score"):
            load_reranker(_settings(folder))
    with pytest.raises(ModelUnavailable, match=r"^RERANKER_MODEL=.*there is no such folder"):
        load_reranker(_settings(tmp_path / "nothing"))


def test_no_model_is_loaded_that_nobody_names() -> None:
    assert load_reranker(Settings(_env_file=None)) is None


class Shop(NamedTuple):
    client: httpx.Client
    endpoint: EndpointServer

    def search(self, **query: Any) -> dict[str, Any]:
        response = self.client.post("/search", json={"mode": "text_to_text", "text": QUERY} | query)
        assert response.is_success, response.text
        found: dict[str, Any] = response.json()
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[Shop]:
    """60 products; the endpoint encodes their titles, and reranks."""
    folder = tmp_path_factory.mktemp("reranking")
    with running_endpoint(folder / "endpoint") as endpoint:
        names = {"TEXT_MODEL": endpoint.name, "RERANKER_MODEL": endpoint.name}
        with (
            running_api(folder, **(tiny_models | names), RERANKER_TIMEOUT_S=1.0) as url,
            httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        ):
            for number in range(60):
                create_product(client, f"红色沙发 {'软' * (number % 7)}{number:02}{'椅' * (number % 3)}", picture())
            wait_until_indexed(client, timeout_s=120)
            yield Shop(client, endpoint)


@pytest.fixture(autouse=True)
def _as_usual(request: pytest.FixtureRequest) -> None:
    if "shop" in request.fixturenames:
        request.getfixturevalue("shop").endpoint.behave()


def _ids(answer: dict[str, Any]) -> list[int]:
    return [hit["product"]["product_id"] for hit in answer["hits"]]


def test_the_first_50_are_in_the_rerankers_order_on_all_pages(shop: Shop) -> None:
    plain, reranked = shop.search(top_k=60), shop.search(top_k=60, rerank=True)
    assert set(_ids(reranked)[:50]) == set(_ids(plain)[:50])
    assert _ids(reranked)[:50] != _ids(plain)[:50]
    assert _ids(reranked)[50:] == _ids(plain)[50:]
    scores = [hit["rerank_score"] for hit in reranked["hits"]]
    assert scores[:50] == sorted(scores[:50], reverse=True)
    assert scores[50:] == [None] * 10
    assert [hit["rerank_score"] for hit in plain["hits"]] == [None] * 60
    assert (plain["took_ms"]["rerank"], plain["missing"], reranked["missing"]) == (None, [], [])
    assert reranked["took_ms"]["rerank"] > 0
    pages = [shop.search(top_k=7, offset=offset, rerank=True) for offset in range(0, 60, 7)]
    assert [each for page in pages for each in _ids(page)] == _ids(reranked)
    assert [hit["rank"] for page in pages for hit in page["hits"]] == list(range(1, 61))
    assert _ids(shop.search(mode="hybrid", top_k=50, rerank=True))[:1] == _ids(reranked)[:1]


def test_each_page_up_to_the_50th_hit_asks_once_and_no_other_does(shop: Shop) -> None:
    shop.endpoint.seen()
    for offset in (0, 40, 50, 55):
        shop.search(offset=offset, rerank=True)
    shop.search()
    calls = [call for call in shop.endpoint.seen() if "documents" in call]
    assert {call["query"] for call in calls} == {QUERY}
    assert sorted(len(call["documents"]) for call in calls) == [50 - MOST_INPUTS] * 2 + [MOST_INPUTS] * 2


def test_what_is_not_wanted_stays_behind(shop: Shop) -> None:
    """To the reranker it is better, which reads titles and what is wanted."""
    titles = ["沙发 扶手", "沙发 软椅脚凳灯"]
    created = [create_product(shop.client, title, picture(), category="客厅") for title in titles]
    wait_until_indexed(shop.client)
    try:
        for mode in ("hybrid", "text_to_text"):
            query = {"mode": mode, "text": "沙发 不要扶手", "filters": {"category": ["客厅"]}, "rerank": True}
            answer = shop.search(**query)
            assert answer["understood"]["without"] == ["扶手"]
            [first, last] = answer["hits"]
            assert [first["product"]["title"], last["product"]["title"]] == titles[::-1]
            assert first["rerank_score"] < last["rerank_score"]
    finally:
        for each in created:
            shop.client.delete(f"/product/{each['product_id']}")


@pytest.mark.parametrize(
    "behaviour",
    [
        {"drop": True},
        {"statuses": [503]},
        {"statuses": [422]},
        {"nan": True},
        {"raw": "[]"},
        {"raw": "null"},
        {"raw": "[" * 100_000},
        {"raw": '{"results": [{"index": Infinity, "relevance_score": 1}]}'},
        {"raw": f'{{"results": [{{"index": 0, "relevance_score": 1{"0" * 400}}}]}}'},
    ],
)
def test_without_scores_hits_are_as_they_were_and_the_answer_says_so(shop: Shop, behaviour: dict[str, Any]) -> None:
    plain = shop.search()  # whose vector is cached
    shop.endpoint.behave(**behaviour)
    answer = shop.search(rerank=True)
    assert (_ids(answer), answer["missing"]) == (_ids(plain), ["reranking"])


def test_a_reranker_that_hangs_costs_its_deadline(shop: Shop) -> None:
    plain = shop.search()  # whose vector is cached
    with shop.endpoint.frozen():
        started = time.monotonic()
        answer = shop.search(rerank=True)
        assert (_ids(answer), answer["missing"]) == (_ids(plain), ["reranking"])
        require_in_time(time.monotonic() - started, 2)
        started = time.monotonic()
        for _ in range(5):
            assert shop.search(rerank=True)["missing"] == ["reranking"]
        require_in_time(time.monotonic() - started, 3)  # its silence is known, and not each search pays for it
    wait_until(lambda: shop.search(rerank=True)["missing"] == [], what="the reranker to be asked again")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"sort": "price"}, "comes with sort or boost; send one of them"),
        ({"boost": [{"attribute": "销量", "pivot": 10, "weight": 0.5}]}, "comes with sort or boost"),
        ({"text": None, "product_id": 1}, "goes with a text alone"),
    ],
)
def test_what_has_an_order_of_its_own_is_not_reranked(shop: Shop, query: dict[str, Any], said: str) -> None:
    request = {"mode": "text_to_text", "text": QUERY, "rerank": True} | query
    refused = shop.client.post("/search", json={name: value for name, value in request.items() if value is not None})
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert said in refused.json()["detail"]


def test_it_is_off_where_no_model_is_named(api: httpx.Client) -> None:
    refused = api.post("/search", json={"mode": "text_to_text", "text": QUERY, "rerank": True})
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert refused.json()["detail"] == "rerank: is switched off here; have RERANKER_MODEL name a model"


def test_text_embeddings_inference_is_asked_in_its_own_words(tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as endpoint:
        name = endpoint.name.replace("/v1#", "#")
        reranker = load_reranker(_settings(name, reranker_endpoint_style="tei", endpoint_api_key="sk-one"))
        assert reranker is not None
        scores = reranker.scores(QUERY, TITLES, NOBODY)
        assert sorted(scores, reverse=True) == [scores[3], scores[0], scores[1], scores[2]]
        [call] = endpoint.seen()
        assert (call["key"], call["query"], call["texts"]) == ("Bearer sk-one", QUERY, TITLES)
        long = [*TITLES, "软" * 100] * 10  # 50, as a search has
        assert reranker.scores(QUERY, long, NOBODY) == [*scores, 0.0] * 10
        assert sorted(len(call["texts"]) for call in endpoint.seen()) == [50 - MOST_INPUTS, MOST_INPUTS]
        for score in ('"0.5"', "true", "null", "[0.5]", "NaN, NaN"):
            endpoint.behave(raw=f'[{{"index": 0, "score": {score}}}]')
            with pytest.raises(ModelsUnavailable, match=r"no score for each of 1 titles|no JSON"):
                reranker.scores(QUERY, TITLES[:1], NOBODY)

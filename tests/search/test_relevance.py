"""How likely a hit is what was asked for, through a running service: what `min_score` leaves out, and what is said."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import running_api, wait_until
from tuwen.search.judging import no_match_of

TITLES = {
    "SOFA-1": "三人布艺沙发",
    "SOFA-2": "红色皮质沙发",
    "LAMP-1": "北欧落地灯",
    "CUP-1": "不锈钢保温杯",
    "EAR-1": "XR-500A 头戴式耳机",
}
# Words alone: the tiny models know nothing.
BY_WORDS = {"intercept": -4.0, "words": 8.0}
FITTED_ON = {"queries": 20, "hits": 100, "auroc": 0.9, "log_loss": 0.3, "calibration_error": 0.02}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("relevance")
    lexicon = folder / "words.txt"
    lexicon.write_text("头戴耳麦=头戴式耳机\n", encoding="utf-8")
    with (
        running_api(folder, **tiny_models, LEXICON_FILE=str(lexicon)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        for number, (sku, title) in enumerate(TITLES.items()):
            create_product(client, title, picture(size=(40 + number, 40)), sku=sku)
        wait_until_indexed(client)
        yield client


def answer(api: httpx.Client, text: str, mode: str = "hybrid", **fields: Any) -> dict[str, Any]:
    response = api.post("/search", json={"mode": mode, "text": text, **fields})
    assert response.status_code == httpx.codes.OK, response.text
    found: dict[str, Any] = response.json()
    return found


def calibrate(api: httpx.Client, mode: str, *, threshold: float | None = None, **weights: float) -> httpx.Response:
    collection = api.get("/calibration").json()["collection"]
    fitted_on = {**FITTED_ON, "threshold": threshold}
    body = {"collection": collection, "weights": weights, "fitted_on": fitted_on}
    return api.put(f"/calibration/{mode}", json=body)


def in_use(api: httpx.Client, mode: str, **weights: float) -> None:
    """Once it is, here too."""
    stored = calibrate(api, mode, **weights)
    assert stored.status_code == httpx.codes.OK, stored.text
    expected = {"title_cosine": 0.0, "picture_cosine": 0.0, "words": 0.0, **weights}
    assert stored.json()["weights"] == expected
    assert api.get("/calibration").json()["modes"][mode]["weights"] == expected

    def is_used() -> bool:
        [hit, *_] = answer(api, "沙发", mode, relevance=True)["hits"]
        signals = hit["signals"]
        log_odds = weights["intercept"] + sum(weights.get(name, 0.0) * (signals[name] or 0.0) for name in signals)
        return hit["relevance"] is not None and abs(hit["relevance"] - 1 / (1 + 2.718281828459045**-log_odds)) < 1e-3

    wait_until(is_used, timeout_s=30, what="the new calibration to be used")


def skus(found: dict[str, Any]) -> list[str]:
    return [hit["product"]["sku"] for hit in found["hits"]]


def test_without_a_calibration_min_score_says_which_command_makes_one(api: httpx.Client) -> None:
    response = api.post("/search", json={"mode": "image_to_text", "image_base64": "aGk=", "min_score": 0.5})
    assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    [error] = response.json()["errors"]
    assert error["field"] == "min_score"
    assert "cli.py calibrate" in error["message"]
    assert error["code"] == "not_calibrated"
    said = api.post(
        "/search",
        json={"mode": "image_to_text", "image_base64": "aGk=", "min_score": 0.5},
        headers={"Accept-Language": "zh"},
    )
    assert "没有校准" in said.json()["errors"][0]["message"]


def test_whoever_does_not_ask_is_told_nothing(api: httpx.Client) -> None:
    in_use(api, "hybrid", **BY_WORDS)
    found = answer(api, "沙发")
    assert found["no_match"] is None
    assert {(hit["relevance"], hit["signals"]) for hit in found["hits"]} == {(None, None)}


def test_hits_below_are_left_out_or_shown_on_request(api: httpx.Client) -> None:
    in_use(api, "hybrid", **BY_WORDS)
    found = answer(api, "沙发", min_score=0.5)
    assert found["no_match"] is False
    assert sorted(skus(found)) == ["SOFA-1", "SOFA-2"]
    assert all(hit["relevance"] >= 0.5 and hit["signals"]["words"] == 1 for hit in found["hits"])
    all_of_them = answer(api, "沙发", min_score=0.5, keep_below=True)
    assert skus(all_of_them) == skus(answer(api, "沙发"))
    assert len(skus(all_of_them)) == len(TITLES)


def test_nothing_fits(api: httpx.Client) -> None:
    in_use(api, "hybrid", **BY_WORDS)
    found = answer(api, "量子力学教科书第三版", min_score=0.5)
    assert (found["no_match"], found["hits"]) == (True, [])
    nearest = answer(api, "量子力学教科书第三版", min_score=0.5, keep_below=True)
    assert nearest["no_match"] is True
    assert len(nearest["hits"]) == len(TITLES)
    assert answer(api, "量子力学教科书第三版", relevance=True)["no_match"] is None, "there is no threshold"
    assert calibrate(api, "hybrid", threshold=0.5, **BY_WORDS).status_code == httpx.codes.OK
    wait_until(
        lambda: answer(api, "量子力学教科书第三版", relevance=True)["no_match"] is True, what="the threshold to be used"
    )
    shown = answer(api, "量子力学教科书第三版", relevance=True)
    assert len(shown["hits"]) == len(TITLES), "nothing is left out without min_score"
    assert answer(api, "沙发", relevance=True)["no_match"] is False


@pytest.mark.parametrize(
    ("relevance", "is_none"),
    [([0.2, 0.4], True), ([0.2, 0.5], False), ([None, 0.9], False), ([None, 0.2], None), ([None], None), ([], True)],
)
def test_of_what_is_still_to_be_indexed_nothing_is_known(relevance: list[float | None], is_none: bool | None) -> None:
    """Its words are there at once: it may be the very product."""
    assert no_match_of(relevance, 0.5) is is_none


def test_a_mode_has_no_weights_of_signals_that_it_has_not(api: httpx.Client) -> None:
    for mode, weight in (("text_to_text", "picture_cosine"), ("image_to_image", "words")):
        refused = calibrate(api, mode, intercept=0.0, **{weight: 1.0})
        [error] = refused.json()["errors"]
        assert (error["field"], error["code"]) == (f"weights.{weight}", "no_such_signal")


def test_relevance_is_the_same_on_every_page(api: httpx.Client) -> None:
    in_use(api, "hybrid", intercept=-3.0, words=2.0, title_cosine=1.5, picture_cosine=0.5)
    whole = answer(api, "红色沙发", relevance=True)["hits"]
    paged = [
        hit
        for offset in range(len(TITLES))
        for hit in answer(api, "红色沙发", min_score=0, top_k=1, offset=offset)["hits"]
    ]
    assert [(hit["rank"], hit["relevance"], hit["signals"]) for hit in paged] == [
        (hit["rank"], hit["relevance"], hit["signals"]) for hit in whole
    ]
    assert answer(api, "红色沙发", min_score=0.99, offset=1)["no_match"] is None


def test_cosines_of_several_ways_are_those_of_each(api: httpx.Client) -> None:
    """What words found alone has them, too."""
    of_hybrid = {hit["product"]["sku"]: hit["signals"] for hit in answer(api, "XR500A", relevance=True)["hits"]}
    for mode, name in (("text_to_text", "title_cosine"), ("text_to_image", "picture_cosine")):
        for hit in answer(api, "XR500A", mode, relevance=True)["hits"]:
            signals = hit["signals"]
            assert signals[name] == pytest.approx(hit["score"], abs=1e-6)
            assert signals[name] == pytest.approx(of_hybrid[hit["product"]["sku"]][name], abs=1e-4)
            assert signals["words"] == of_hybrid[hit["product"]["sku"]]["words"]
    assert of_hybrid["EAR-1"]["words"] == 1


def test_each_picture_of_a_product_counts(api: httpx.Client) -> None:
    product = create_product(api, "双图商品", picture("white"), sku="TWO-1")
    files = {"image": ("second.png", picture("navy", size=(30, 60)))}
    added = api.post(f"/product/{product['product_id']}/image", files=files)
    assert added.status_code == httpx.codes.CREATED, added.text
    wait_until_indexed(api)
    try:
        [hit] = [each for each in answer(api, "蓝色", relevance=True)["hits"] if each["product"]["sku"] == "TWO-1"]
        [alone] = [each for each in answer(api, "蓝色", "text_to_image")["hits"] if each["product"]["sku"] == "TWO-1"]
        assert hit["signals"]["picture_cosine"] == pytest.approx(alone["score"], abs=1e-4)
    finally:
        api.delete(f"/product/{product['product_id']}")


@pytest.mark.parametrize(
    ("text", "sku", "least", "most"),
    [
        ("三人布艺沙发", "SOFA-1", 1.0, 1.0),
        ("三人布艺沙发", "CUP-1", 0.0, 0.0),
        ("紫色沙发", "SOFA-1", 0.1, 0.6),  # none is 紫色, which weighs more than what many are
        ("xr 500a", "EAR-1", 0.9, 1.0),
        ("shafa", "SOFA-1", 1.0, 1.0),  # pinyin
        ("头戴耳麦", "EAR-1", 1.0, 1.0),  # the shop's dictionary
        ("三人沙發", "SOFA-1", 0.6, 1.0),  # traditional
    ],
)
def test_the_share_of_words(api: httpx.Client, text: str, sku: str, least: float, most: float) -> None:
    [hit] = [each for each in answer(api, text, relevance=True)["hits"] if each["product"]["sku"] == sku]
    assert least - 1e-9 <= hit["signals"]["words"] <= most + 1e-9


def test_pictures_have_a_cosine_alone(api: httpx.Client) -> None:
    in_use_of_pictures = calibrate(api, "image_to_image", intercept=-10.0, picture_cosine=15.0)
    assert in_use_of_pictures.status_code == httpx.codes.OK
    files = {"image": ("query.png", picture(size=(42, 40)))}

    def answered() -> bool:
        response = api.post("/search", data={"mode": "image_to_image", "min_score": "0.5"}, files=files)
        return response.status_code == httpx.codes.OK

    wait_until(answered, timeout_s=30, what="the new calibration to be used")
    found = api.post("/search", data={"mode": "image_to_image", "min_score": "0.5"}, files=files).json()
    assert found["no_match"] is False
    assert found["hits"][0]["signals"] == {
        "title_cosine": None,
        "picture_cosine": pytest.approx(1.0, abs=1e-4),
        "words": None,
    }


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"min_score": 1.5}, "min_score", None),
        ({"min_score": True}, "min_score", None),
        ({"min_score": 0.5, "sort": "price"}, "min_score", "not_with_sort"),
        ({"keep_below": True}, "keep_below", "only_with_min_score"),
    ],
)
def test_what_makes_no_sense_is_refused(api: httpx.Client, fields: Any, field: str, code: str | None) -> None:
    response = api.post("/search", json={"mode": "hybrid", "text": "沙发", **fields})
    assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    errors = response.json()["errors"]
    assert [each["field"] for each in errors] == [field]
    assert code is None or errors[0]["code"] == code


@pytest.mark.parametrize("asked", [{"product_id": 1}, {"terms": [{"text": "沙发"}, {"text": "红色"}]}])
def test_min_score_goes_without_products_and_terms(api: httpx.Client, asked: Any) -> None:
    found = api.post("/search", json={"mode": "text_to_text", **asked, "relevance": True}).raise_for_status().json()
    assert {hit["relevance"] for hit in found["hits"]} == {None}
    assert all(hit["signals"]["title_cosine"] is not None for hit in found["hits"])
    response = api.post("/search", json={"mode": "text_to_text", **asked, "min_score": 0.5})
    assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert response.json()["errors"][0]["code"] == "not_with_products"


def test_another_index_s_calibration_is_refused(api: httpx.Client) -> None:
    body = {"collection": "products_x_y", "weights": {"intercept": 0.0}, "fitted_on": FITTED_ON}
    response = api.put("/calibration/hybrid", json=body)
    assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert response.json()["errors"][0]["code"] == "other_index"
    negative = calibrate(api, "hybrid", intercept=0.0, words=-1.0)
    assert negative.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert negative.json()["errors"][0]["field"] == "weights.words"


def test_relevance_never_falls_where_a_signal_rises(api: httpx.Client) -> None:
    in_use(api, "hybrid", **BY_WORDS)
    hits = answer(api, "红色皮质沙发 北欧", relevance=True)["hits"]
    by_words = sorted(hits, key=lambda hit: float(hit["signals"]["words"]))
    pairs = itertools.pairwise(by_words)
    assert all(lower["relevance"] <= higher["relevance"] for lower, higher in pairs)
    assert by_words[0]["relevance"] < by_words[-1]["relevance"]


def test_searches_of_a_calibration_outlive_a_restart(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    with running_api(tmp_path, **tiny_models) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        create_product(client, "三人布艺沙发", picture(), sku="A")
        wait_until_indexed(client)
        in_use(client, "hybrid", **BY_WORDS)
    with running_api(tmp_path, **tiny_models) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        assert answer(client, "沙发", min_score=0.5)["no_match"] is False
        assert answer(client, "自行车", min_score=0.5)["no_match"] is True

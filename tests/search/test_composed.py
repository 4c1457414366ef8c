"""Queries of several terms, through a running service: what they find, what they name, and what is refused."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import running_api
from tuwen.errors import InvalidInput
from tuwen.search.composed import AWAY, EncodedTerm, composed
from tuwen.search.encoding import at_once

COLOURS = {
    "R1": ("红色布艺沙发", (220, 20, 20)),
    "R2": ("红色皮质沙发", (200, 10, 30)),
    "G1": ("绿色布艺沙发", (20, 200, 20)),
    "G2": ("绿色皮质沙发", (30, 180, 10)),
    "B1": ("蓝色布艺沙发", (20, 20, 220)),
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    with (
        running_api(tmp_path_factory.mktemp("composed"), **tiny_models) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        for sku, (title, color) in COLOURS.items():
            create_product(client, title, picture(color), sku=sku)
        wait_until_indexed(client)
        yield client


@pytest.fixture(scope="module")
def ids(api: httpx.Client) -> dict[str, int]:
    return {sku: api.get(f"/product/by-sku/{sku}").json()["product_id"] for sku in COLOURS}


def search(api: httpx.Client, mode: str, terms: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    response = api.post("/search", json={"mode": mode, "terms": terms, "top_k": 20, **fields})
    assert response.status_code == httpx.codes.OK, response.text
    answer: dict[str, Any] = response.json()
    return answer


def hits_of(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(hit["product"]["sku"], hit["score"]) for hit in answer["hits"]]


def approximately(hits: list[tuple[str, float]]) -> Any:
    return [(sku, pytest.approx(score, abs=1e-4)) for sku, score in hits]


def as_base64(sku: str) -> str:
    return base64.b64encode(picture(COLOURS[sku][1])).decode()


@pytest.mark.parametrize("mode", ["image_to_image", "image_to_text", "text_to_text", "text_to_image"])
def test_one_term_finds_what_that_finds_by_itself(api: httpx.Client, ids: dict[str, int], mode: str) -> None:
    alone = api.post("/search", json={"mode": mode, "product_id": ids["R1"], "top_k": 20}).json()
    answer = search(api, mode, [{"product_id": ids["R1"], "weight": 0.3}])
    assert [sku for sku, _ in hits_of(answer)] == [sku for sku, _ in hits_of(alone)]
    assert [score for _, score in hits_of(answer)] == pytest.approx([score for _, score in hits_of(alone)], abs=1e-4)
    if not mode.startswith("image"):
        text = {"mode": mode, "text": "红色布艺沙发", "top_k": 20}
        by_text = search(api, mode, [{"text": "红色布艺沙发"}], attribute_words=False)
        by_itself = api.post("/search", json=text).json()
        assert hits_of(by_text) == approximately(hits_of(by_itself))


def test_several_pictures_find_what_is_like_all_of_them(api: httpx.Client, ids: dict[str, int]) -> None:
    stored = search(api, "image_to_image", [{"product_id": ids["R1"]}, {"product_id": ids["G1"]}])
    sent = search(api, "image_to_image", [{"image_base64": as_base64("R1")}, {"image_base64": as_base64("G1")}])
    assert {sku for sku, _ in hits_of(stored)} == {"R2", "G2", "B1"}, "what is named is not found"
    assert {sku for sku, _ in hits_of(sent)} == set(COLOURS)
    both = dict(hits_of(sent))
    others = [each for each in hits_of(sent) if each[0] in ("R2", "G2", "B1")]
    assert others == approximately(hits_of(stored))
    assert both["R1"] == pytest.approx(both["G1"], abs=0.02), "each has the same share"
    of_first = search(
        api,
        "image_to_image",
        [{"image_base64": as_base64("R1"), "weight": 0.9}, {"image_base64": as_base64("G1"), "weight": 0.1}],
    )
    assert dict(hits_of(of_first))["R1"] > dict(hits_of(of_first))["G1"]


def test_what_weighs_below_zero_is_further_away(api: httpx.Client, ids: dict[str, int]) -> None:
    with_it = dict(hits_of(search(api, "image_to_image", [{"product_id": ids["R1"]}])))
    away = dict(
        hits_of(
            search(api, "image_to_image", [{"product_id": ids["R1"]}, {"image_base64": as_base64("B1"), "weight": -1}])
        )
    )
    assert away["B1"] < with_it["B1"]
    assert away["B1"] == min(away.values())


@pytest.mark.parametrize("mode", ["image_to_image", "text_to_text"])
def test_words_of_a_term_are_wanted_or_not_by_the_sign_of_its_weight(
    api: httpx.Client, ids: dict[str, int], mode: str
) -> None:
    this = {"product_id": ids["B1"]}
    red = search(api, mode, [this, {"text": "红色", "weight": 0.5}])
    assert {sku for sku, _ in hits_of(red)[:2]} == {"R1", "R2"}
    assert red["understood"]["wanted"] == "红色"
    assert [each["value"] for each in red["understood"]["attributes"]] == ["red"]
    not_red = search(api, mode, [this, {"text": "红色", "weight": -0.5}])
    assert {sku for sku, _ in hits_of(not_red)[-2:]} == {"R1", "R2"}
    assert not_red["understood"] == {"wanted": "", "without": ["红色"], "attributes": []}
    by_vectors = search(api, mode, [this, {"text": "红色", "weight": -0.5}], negation=False)
    assert by_vectors["understood"] is None
    plain = search(api, mode, [this, {"text": "红色", "weight": 0.5}], attribute_words=False)
    assert plain["understood"] is None
    assert all(hit["boosted_score"] is None for hit in plain["hits"])


@pytest.mark.parametrize("text", ["不要红色", "not red", "without red", "非红色"])
def test_what_a_terms_text_negates_is_not_wanted(api: httpx.Client, ids: dict[str, int], text: str) -> None:
    this = {"product_id": ids["B1"]}
    said = search(api, "image_to_image", [this, {"text": text, "weight": 0.5}])
    meant = search(api, "image_to_image", [this, {"text": "red" if "red" in text else "红色", "weight": -0.5}])
    assert {sku for sku, _ in hits_of(said)[-2:]} == {"R1", "R2"}
    assert (hits_of(said), said["understood"]) == (hits_of(meant), meant["understood"])
    twice = search(api, "image_to_image", [this, {"text": text, "weight": -0.5}])
    assert hits_of(twice) == hits_of(meant), "below zero already"
    both = search(api, "image_to_image", [this, {"text": f"绿色 {text}"}])
    assert {sku for sku, _ in hits_of(both)[:2]} == {"G1", "G2"}
    assert len(both["understood"]["without"]) == 1
    as_it_stands = search(api, "image_to_image", [this, {"text": text}], negation=False, attribute_words=False)
    assert as_it_stands["understood"] is None


def test_a_form_takes_terms_as_json(api: httpx.Client, ids: dict[str, int]) -> None:
    terms: list[dict[str, Any]] = [{"product_id": ids["R1"]}, {"text": "绿色"}]
    form = {"mode": "image_to_image", "top_k": "20", "terms": json.dumps(terms)}
    sent = api.post("/search", files={name: (None, value) for name, value in form.items()})
    assert sent.status_code == httpx.codes.OK, sent.text
    assert hits_of(sent.json()) == hits_of(search(api, "image_to_image", terms))


def test_a_file_is_one_more_term(api: httpx.Client, ids: dict[str, int]) -> None:
    terms: list[dict[str, Any]] = [{"text": "绿色", "weight": 0.6}, {"product_id": ids["B1"], "weight": -0.5}]
    form = {"mode": (None, "image_to_image"), "top_k": (None, "20"), "terms": (None, json.dumps(terms))}
    sent = api.post("/search", files=[*form.items(), ("image", ("red.png", picture(COLOURS["R1"][1])))])
    assert sent.status_code == httpx.codes.OK, sent.text
    assert hits_of(sent.json()) == hits_of(search(api, "image_to_image", [*terms, {"image_base64": as_base64("R1")}]))
    only_unwanted = form | {"terms": (None, json.dumps(terms[1:]))}
    assert api.post("/search", files=[*only_unwanted.items(), ("image", ("red.png", picture()))]).is_success
    for mode in ("text_to_text", "hybrid"):
        titles = form | {"mode": (None, mode), "terms": (None, json.dumps(terms[:1]))}
        refused = api.post("/search", files=[*titles.items(), ("image", ("red.png", picture()))])
        assert (refused.status_code, refused.json()["code"]) == (422, "other_query"), refused.text


RED = {"text": "红色"}


@pytest.mark.parametrize(
    ("mode", "fields", "field", "code"),
    [
        ("image_to_image", {"terms": [RED], "product_id": 1}, "product_id", "needs_one_query"),
        ("hybrid", {"terms": [RED]}, "terms", "needs_one_query"),
        ("text_to_text", {"terms": [RED], "lexical": True}, "lexical", "no_words"),
        ("text_to_text", {"terms": [RED, {"image_base64": "AAAA"}]}, "terms.1.image_base64", "no_text"),
        ("text_to_image", {"terms": [{**RED, "product_id": 1}]}, "terms.0", "needs_one_term"),
        ("text_to_image", {"terms": [{"weight": 1}]}, "terms.0", "needs_one_term"),
        ("text_to_image", {"terms": [{**RED, "weight": 0}]}, "terms.0.weight", "no_weight"),
        ("text_to_image", {"terms": [{**RED, "weight": 1e-46}]}, "terms.0.weight", "no_weight"),
        ("text_to_image", {"terms": [{**RED, "weight": 2}]}, "terms.0.weight", "too_large"),
        ("text_to_image", {"terms": [{**RED, "weight": -1}]}, "terms", "nothing_wanted"),
        ("text_to_image", {"terms": [RED] * 9}, "terms", "too_many"),
        ("image_to_image", {"terms": [RED, {"image_base64": "红"}]}, "terms.1.image_base64", "not_base64"),
        ("image_to_image", {"terms": [RED, {"image_base64": "AAAA"}]}, "terms.1.image_base64", "not_a_picture"),
        ("image_to_image", {"terms": [{"text": " "}]}, "terms.0.text", "empty"),
    ],
)
def test_terms_that_are_none_are_refused(
    api: httpx.Client, mode: str, fields: dict[str, Any], field: str, code: str
) -> None:
    response = api.post("/search", json={"mode": mode, **fields})
    assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY, response.text
    assert (field, code) in [(error["field"], error["code"]) for error in response.json()["errors"]]


def test_a_product_that_is_not_there_is_no_term(api: httpx.Client) -> None:
    response = api.post("/search", json={"mode": "image_to_image", "terms": [RED, {"product_id": 10**9}]})
    assert response.status_code == httpx.codes.NOT_FOUND


def unit(*numbers: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = np.array(numbers, np.float32)
    return vector / np.linalg.norm(vector)


def test_what_is_under_way_is_given_up_where_one_term_fails() -> None:
    """Else it would go on in memory that is no longer counted."""
    done = list[str]()

    async def fail() -> Any:
        raise InvalidInput("no picture")

    async def encode() -> Any:
        await asyncio.sleep(0.05)
        done.append("encoded")

    async def try_it() -> None:
        with pytest.raises(InvalidInput, match="no picture"):
            await at_once([encode(), fail(), encode()])
        await asyncio.sleep(0.2)

    asyncio.run(try_it())
    assert done == []


def test_shares_are_of_what_is_wanted_and_texts_beside_pictures_are_what_they_say_more() -> None:
    east, north, up = unit(1, 0, 0), unit(0, 1, 0), unit(0, 0, 1)
    two = composed([EncodedTerm(east, 0.75, False), EncodedTerm(north, 0.25, False)], None)
    assert two == pytest.approx(unit(3, 1, 0))
    away = composed([EncodedTerm(east, 0.2, False), EncodedTerm(north, -1, False), EncodedTerm(up, -1, False)], None)
    assert away == pytest.approx(unit(1, -AWAY / 2, -AWAY / 2)), "as far as for one, whatever the weight of the others"
    further = composed(
        [EncodedTerm(east, 1, False), EncodedTerm(north, -1, False), EncodedTerm(up, -0.01, False)], None
    )
    assert further @ north == pytest.approx(unit(1, -AWAY, 0) @ north, abs=0.01), "a little more takes nothing away"
    text = EncodedTerm(unit(0, 1, 1), 0.5, True)
    beside = composed([EncodedTerm(east, 0.5, False), text], up)
    assert beside == pytest.approx(unit(*(east + unit(0, 1, 1) - up))), "what all texts have goes"


def test_terms_that_are_one_and_the_same_cancel_each_other_out() -> None:
    east, says_nothing = unit(1, 0, 0), unit(0, 1, 0)
    with pytest.raises(InvalidInput, match="cancel each other out"):
        composed([EncodedTerm(says_nothing, 1, True), EncodedTerm(east, -1, False)], says_nothing)
    assert composed([EncodedTerm(east, 1, False), EncodedTerm(east, -1, False)], None) == pytest.approx(east)

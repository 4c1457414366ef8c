"""Why a hit is one: the ranks and shares of the ways that found it, and what in its picture fits the query."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.conftest import create_product, picture, wait_until_indexed
from tuwen.encoders.base import Vector
from tuwen.errors import EncodingFailed
from tuwen.search.encoding import at_once
from tuwen.search.relevance_map import CELLS, MAPPED_VIEWS, relevance_map_of, views_of

COLOURS, KINDS = (
    ("红色", "黑色", "白色", "蓝色", "绿色"),
    ("沙发", "椅子", "餐桌", "台灯", "书柜", "地毯", "床垫", "花瓶"),
)
SERIES = "星河"
TITLES = [f"{SERIES}{colour}{kind}" for colour in COLOURS for kind in KINDS]


@pytest.fixture(scope="module")
def filled(api: httpx.Client) -> httpx.Client:
    """All have one word, and are more than each way of a fused search counts. Groups of three; every fourth has the
    picture of the one before."""
    for number, title in enumerate(TITLES):
        drawn = number - (number % 4 == 3)
        create_product(
            api,
            title,
            picture((6 * drawn, 90, 30), (60 + drawn, 48)),
            price=str(number + 1),
            attributes=json.dumps({"销量": number * number}),
            group_id=f"G{number // 3}",
        )
    wait_until_indexed(api)
    return api


def found(api: httpx.Client, **query: Any) -> dict[str, Any]:
    response = api.post("/search", json=query)
    assert response.status_code == httpx.codes.OK, response.text
    answer: dict[str, Any] = response.json()
    return answer


def map_of(hit: dict[str, Any]) -> dict[str, Any] | None:
    its: dict[str, Any] | None = hit["explanation"]["relevance_map"]
    return its


def id_of(hit: dict[str, Any]) -> int:
    number: int = hit["product"]["product_id"]
    return number


def test_shares_of_all_ways_make_the_score_and_each_has_its_rank(filled: httpx.Client) -> None:
    plain = found(filled, mode="hybrid", text="红色沙发", top_k=100)
    answer = found(filled, mode="hybrid", text="红色沙发", top_k=100, explain=True)
    assert all(hit["explanation"] is None for hit in plain["hits"])
    assert plain["took_ms"]["explain"] is None
    assert answer["took_ms"]["explain"] > 0
    assert [(id_of(hit), hit["score"]) for hit in answer["hits"]] == [
        (id_of(hit), hit["score"]) for hit in plain["hits"]
    ]
    ranks: dict[str, list[int]] = {}
    for hit in answer["hits"]:
        ways = {each["way"]: each for each in hit["explanation"]["ways"]}
        assert sum(each["share"] for each in ways.values()) == pytest.approx(hit["score"])
        assert "words" in ways or not hit["matched_words"]  # a single character may be no word
        for name, each in ways.items():
            ranks.setdefault(name, []).append(each["rank"])
    assert set(ranks) == {"meaning", "pictures", "words"}
    for each in ranks.values():
        assert sorted(each) == list(range(1, len(each) + 1))
    nearest = found(filled, mode="text_to_text", text="红色沙发", top_k=5, attribute_words=False)["hits"]
    by_meaning = {
        way["rank"]: id_of(hit)
        for hit in found(filled, mode="hybrid", text="红色沙发", top_k=100, attribute_words=False, explain=True)["hits"]
        for way in hit["explanation"]["ways"]
        if way["way"] == "meaning"
    }
    assert [by_meaning[rank] for rank in range(1, 6)] == [id_of(hit) for hit in nearest]


@pytest.mark.parametrize("text", [SERIES, "沙发", "红色沙发", None])
@pytest.mark.parametrize("showing", [{}, {"fold": True}, {"group_by": "group_id"}])
def test_a_fused_search_has_one_order_with_facets_and_without(
    filled: httpx.Client, text: str | None, showing: dict[str, object]
) -> None:
    asked = (
        {"text": text} if text else {"product_id": id_of(found(filled, mode="text_to_text", text="沙发")["hits"][0])}
    )
    query = {"mode": "hybrid", **asked, **showing}
    whole = found(filled, **query, top_k=100, facets=["category"])
    pages = [hit for offset in range(0, 40, 10) for hit in found(filled, **query, top_k=10, offset=offset)["hits"]]
    assert [(id_of(hit), hit["score"]) for hit in whole["hits"]] == [(id_of(hit), hit["score"]) for hit in pages]
    assert whole["facets"]["candidates"] == len(TITLES) - (text is None)
    assert whole["facets"]["are_all"]


def test_whatever_is_found_by_words_is_sorted(filled: httpx.Client) -> None:
    hits = found(filled, mode="hybrid", text=SERIES, sort="price", top_k=100)["hits"]
    assert [float(hit["product"]["price"]) for hit in hits] == [number + 1 for number in range(len(TITLES))]


def test_what_stands_behind_all_ways_has_none(filled: httpx.Client) -> None:
    hits = found(filled, mode="hybrid", text="沙发", top_k=100, explain=True)["hits"]
    assert {bool(hit["explanation"]["ways"]) for hit in hits} == {True, False}
    for hit in hits:
        assert bool(hit["explanation"]["ways"]) == (hit["score"] > 0)


def test_a_deadline_holds_after_one_of_several_failed() -> None:
    async def fail() -> Vector:
        raise EncodingFailed("a view")

    async def slow() -> Vector:
        await asyncio.sleep(60)
        raise AssertionError("it is given up")

    async def first_fails_second_is_slow() -> None:
        async with asyncio.timeout(0.2):
            with pytest.raises(EncodingFailed):
                await at_once([fail(), slow()])
            await at_once([slow()])

    with pytest.raises(TimeoutError):
        asyncio.run(first_fails_second_is_slow())


@pytest.mark.parametrize(
    "order",
    [
        {"sort": "-price"},
        {"boost": [{"attribute": "销量", "pivot": 2, "weight": 1}]},
        {"text": "沙发 不要红色"},
        {"attribute_words": True},
        {"group_by": "group_id"},
        {"fold": True},
        {"filters": {"price_max": 20}},
    ],
)
def test_a_rank_is_that_of_the_way_on_each_page_whatever_the_hits_are_ordered_by(
    filled: httpx.Client, order: dict[str, object]
) -> None:
    query = {"mode": "text_to_text", "text": "红色沙发", "explain": True, **order}
    whole = found(filled, **query, top_k=100)["hits"]
    ranks = [hit["explanation"]["ways"][0]["rank"] for hit in whole]
    scores = [hit["score"] for _, hit in sorted(zip(ranks, whole, strict=True), key=lambda each: each[0])]
    assert scores == sorted(scores, reverse=True)
    assert len(set(ranks)) == len(whole)
    assert min(ranks) == 1
    if "group_by" not in order and "fold" not in order:
        assert max(ranks) == len(whole)
    for offset in range(0, len(whole), 5):
        [hit] = found(filled, **query, top_k=1, offset=offset)["hits"]
        [way] = hit["explanation"]["ways"]
        assert (id_of(hit), way["rank"]) == (id_of(whole[offset]), ranks[offset])
        assert (way["way"], way["score"], way["share"]) == ("meaning", hit["score"], 1.0)


@pytest.mark.parametrize("mode", ["text_to_image", "hybrid", "image_to_image"])
def test_the_first_pictures_of_each_page_have_maps(filled: httpx.Client, mode: str) -> None:
    query = {"text": "红色沙发"} if mode != "image_to_image" else {"image_base64": base64.b64encode(picture()).decode()}
    first = found(filled, mode=mode, **query, explain=True, top_k=5)
    assert [map_of(hit) is not None for hit in first["hits"]] == [True] * 3 + [False] * 2
    assert first["missing"] == []
    [fifth] = found(filled, mode=mode, **query, explain=True, top_k=1, offset=4)["hits"]
    assert fifth["product"] == first["hits"][4]["product"]
    its = map_of(fifth)
    assert its is not None
    assert its["image_id"] == fifth["product"]["images"][0]["image_id"]
    assert np.array(its["cells"]).shape == (CELLS, CELLS)
    drawn = Image.open(io.BytesIO(base64.b64decode(its["png_base64"])))
    assert (drawn.format, max(drawn.size)) == ("PNG", 224)
    assert drawn.width > drawn.height  # as the picture


def test_where_titles_are_searched_there_is_no_map(filled: httpx.Client) -> None:
    first = id_of(found(filled, mode="text_to_text", text="沙发")["hits"][0])
    for query in ({"mode": "text_to_text", "text": "沙发"}, {"mode": "image_to_text", "product_id": first}):
        answer = found(filled, **query, explain=True)
        assert answer["missing"] == []
        for hit in answer["hits"]:
            assert map_of(hit) is None
            assert [each["way"] for each in hit["explanation"]["ways"]] == ["meaning"]


@contextmanager
def gone(folder: Path, product: dict[str, Any]) -> Iterator[None]:
    """The product's picture and thumbnail."""
    paths = [folder / "data" / str(product[name]).removeprefix("/") for name in ("image_url", "thumbnail_url")]
    kept = [(path, path.read_bytes()) for path in paths if path.exists()]
    assert kept
    for path, _ in kept:
        path.unlink()
    try:
        yield
    finally:
        for path, data in kept:
            path.write_bytes(data)


def test_a_picture_that_is_gone_costs_its_own_map_alone(filled: httpx.Client, api_folder: Path) -> None:
    query = {"mode": "text_to_image", "text": "红色沙发"}
    second = found(filled, **query, fold=True)["hits"][1]  # so that no other has the same
    with gone(api_folder, second["product"]):
        answer = found(filled, **query, fold=True, explain=True)
    assert [map_of(hit) is not None for hit in answer["hits"][:3]] == [True, False, True]
    assert answer["missing"] == ["relevance_maps"]
    assert answer["hits"][1]["explanation"]["ways"]


@pytest.mark.parametrize("size", [(300, 200), (7, 900), (1, 1)])
def test_every_part_of_any_picture_is_hidden(size: tuple[int, int]) -> None:
    views = views_of(Image.effect_noise(size, 90).convert("RGB"))
    assert len(views.views) == MAPPED_VIEWS
    assert max(views.picture.size) == 224
    changed = np.zeros((views.picture.height, views.picture.width), bool)
    for view in views.views[1:]:
        changed |= np.any(np.asarray(view) != np.asarray(views.picture), axis=2)
    if size != (1, 1):  # which is its own edge
        assert changed.mean() > 0.95


def test_cells_fall_where_what_is_looked_for_stands() -> None:
    """By an encoder of one's own: how red a view is."""
    image = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(image).rectangle((16, 16, 80, 80), fill="red")
    views = views_of(image)
    red = [np.asarray(view, np.float32) for view in views.views]
    vectors = [np.array([(each[..., 0] - each[..., 1]).clip(0).mean() / 255], np.float32) for each in red]
    its = relevance_map_of("0" * 64, views.picture, np.array([1.0], np.float32), vectors)
    cells = np.array(its.cells)
    assert cells[:3, :3].sum() > 0.8 * cells.sum() > 0
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(its.png_base64))), np.float32)
    assert (drawn[40:60, 40:60, 0] - drawn[40:60, 40:60, 1]).mean() > 100
    assert np.ptp(drawn[150:, 150:], axis=2).mean() < 1

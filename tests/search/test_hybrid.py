"""Searches by words, alone and fused with those by meaning and by pictures, through a running service."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import running_api, wait_until

TITLES = {
    "BAG-1": "粉色小化妆包",
    "BAG-2": "黑色双肩背包",
    "EAR-1": "XR-500A 头戴式耳机",
    "CUP-1": "不锈钢保温杯",
    "SHOE-1": "阿迪达斯 Adidas 运动鞋",
    "SOFA-1": "三人布艺沙发",
    "LAMP-1": "北欧落地灯",
    "DESK-1": "兒童書桌",
}
GROUPS = {"BAG-1": "BAG", "BAG-2": "BAG"}


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lexicon") / "words.txt"
    file.write_text("# 品牌\n无印良品\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str], lexicon: Path) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("hybrid")
    with (
        running_api(folder, **tiny_models, LEXICON_FILE=str(lexicon)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        for number, (sku, title) in enumerate(TITLES.items()):
            fields = {"sku": sku, "category": title[-2:], "price": str(100 + number), "group_id": GROUPS.get(sku, "")}
            create_product(client, title, picture(size=(40 + number, 40)), **fields)
        wait_until_indexed(client)
        yield client


def search(api: httpx.Client, text: str, mode: str = "hybrid", **fields: Any) -> list[dict[str, Any]]:
    response = api.post("/search", json={"mode": mode, "text": text, **fields})
    assert response.status_code == httpx.codes.OK, response.text
    hits: list[dict[str, Any]] = response.json()["hits"]
    return hits


def skus(hits: list[dict[str, Any]]) -> list[str]:
    return [hit["product"]["sku"] for hit in hits]


@pytest.mark.parametrize(
    ("text", "sku", "words"),
    [
        ("小化妆", "BAG-1", ["小化妆"]),  # a part of a compound
        ("XR-500A", "EAR-1", ["xr-500a"]),
        ("xr500a", "EAR-1", ["xr-500a"]),
        ("ｘｒ 500a", "EAR-1", ["xr-500a"]),
        ("灯", "LAMP-1", ["灯"]),  # a single character
        ("adidas运动鞋", "SHOE-1", ["adidas", "运动鞋"]),
        ("adidsa", "SHOE-1", ["adidas"]),  # two letters in each other's place
        ("addas", "SHOE-1", ["adidas"]),
        ("shafa", "SOFA-1", ["沙发"]),
        ("sanrenshafa", "SOFA-1", ["三人", "沙发"]),
        ("沙法", "SOFA-1", ["沙发"]),
        ("儿童书桌", "DESK-1", ["儿童书桌"]),  # its title is traditional
        ("保溫杯", "CUP-1", ["保温杯"]),
        ("cup1", "CUP-1", []),  # its sku's
    ],
)
def test_a_word_finds_its_product_however_it_is_written(
    api: httpx.Client, text: str, sku: str, words: list[str]
) -> None:
    for how in ({"mode": "hybrid"}, {"mode": "text_to_text", "lexical": True}):
        [hit, *_] = search(api, text, **how)
        assert (hit["product"]["sku"], hit["matched_words"]) == (sku, words), how
        assert 0 < hit["score"] <= 1


def test_a_plain_search_looks_for_no_words(api: httpx.Client) -> None:
    assert {tuple(hit["matched_words"]) for hit in search(api, "灯", mode="text_to_text")} == {()}
    refused = api.post("/search", json={"mode": "text_to_image", "text": "灯", "lexical": True})
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY


def test_pages_are_cut_of_one_list(api: httpx.Client) -> None:
    whole = search(api, "黑色包", top_k=8)
    assert len(set(skus(whole))) == len(TITLES)
    pages = [hit for offset in range(0, 8, 3) for hit in search(api, "黑色包", top_k=3, offset=offset)]
    assert [(hit["rank"], hit["product"]["sku"], hit["score"]) for hit in pages] == [
        (hit["rank"], hit["product"]["sku"], hit["score"]) for hit in whole
    ]


def test_filters_facets_orders_and_groups_hold(api: httpx.Client) -> None:
    assert set(skus(search(api, "包", filters={"price_min": 101, "price_max": 102}))) == {"BAG-2", "EAR-1"}
    assert skus(search(api, "灯", filters={"category": ["沙发"]})) == ["SOFA-1"]
    assert skus(search(api, "包", sort="-price"))[0] == "DESK-1"
    [first, *_] = search(api, "小化妆包", group_by="group_id")
    assert (first["product"]["sku"], first["group_size"]) == ("BAG-1", 2)
    assert "BAG-2" not in skus(search(api, "小化妆包", group_by="group_id"))
    answer = api.post("/search", json={"mode": "hybrid", "text": "包", "top_k": 2, "facets": ["category"]}).json()
    assert (answer["facets"]["candidates"], answer["facets"]["are_all"], len(answer["hits"])) == (8, True, 2)
    boosted = search(api, "包", boost=[{"freshness_half_life_days": 1, "weight": 0.5}])
    assert all(hit["boosted_score"] > hit["score"] for hit in boosted)


def test_a_product_asks_for_what_is_like_it(api: httpx.Client) -> None:
    product_id = next(hit["product"]["product_id"] for hit in search(api, "双肩背包"))
    answer = api.post("/search", json={"mode": "hybrid", "product_id": product_id}).json()
    assert "BAG-2" not in skus(answer["hits"])
    assert len(answer["hits"]) == len(TITLES) - 1


def test_words_are_those_of_the_last_write(api: httpx.Client) -> None:
    """Before there is any vector of it."""
    made = create_product(api, "量子咖啡机", picture(size=(99, 40)))
    path = f"/product/{made['product_id']}"
    [hit, *_] = search(api, "量子咖啡")
    assert (hit["product"]["product_id"], hit["matched_words"]) == (made["product_id"], ["量子咖啡"])
    api.patch(path, data={"title": "磨豆器"}).raise_for_status()
    assert search(api, "磨豆")[0]["product"]["product_id"] == made["product_id"]
    assert not any(hit["matched_words"] for hit in search(api, "量子"))
    api.delete(path).raise_for_status()
    assert made["product_id"] not in [hit["product"]["product_id"] for hit in search(api, "磨豆")]


def test_the_shops_own_words_are_read_while_it_runs(api: httpx.Client, lexicon: Path) -> None:
    assert search(api, "随行杯")[0]["matched_words"] != ["不锈钢保温杯"]
    lexicon.write_text("随行杯 = 不锈钢保温杯\n", encoding="utf-8")

    def is_found() -> bool:
        hit = search(api, "随行杯")[0]
        return bool((hit["product"]["sku"], hit["matched_words"]) == ("CUP-1", ["不锈钢保温杯"]))

    wait_until(is_found, timeout_s=30, what="the file to be read anew")
    lexicon.write_bytes("坏".encode("gbk"))
    until = time.monotonic() + 2.5  # by then it has looked at the file again
    while time.monotonic() < until:
        assert is_found()

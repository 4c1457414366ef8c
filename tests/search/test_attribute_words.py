"""Words that name an attribute, and negations: what texts say, and what that does to a search of a running service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from data_models import SearchMode, SearchRequest
from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import running_api
from tuwen.lexical.attribute_words import attributes_in
from tuwen.lexical.lexicon import Lexicon, Words, read_words
from tuwen.lexical.negation import asked_of
from tuwen.search.understanding import needs_reading, understand
from tuwen.search.wishes import Wishes, read_product
from tuwen.texts import lexical_text, normalise_text

TITLES = {
    "RED": "红色布艺沙发",
    "BEIGE": "米色布艺沙发 红色抱枕",
    "BLUE": "深蓝色布艺三人沙发",
    "SILENT": "现代简约沙发",
    "CHAIR": "木质餐椅 带扶手",
    "BARE": "木质餐椅 无扶手",
    "STOOL": "金属餐椅",
}
PLAIN = [
    "不锈钢水壶",
    "无线耳机",
    "非洲鼓",
    "非常好看的沙发",
    "有没有扶手的椅子",
    "没有人 问过的沙发",
    "要不要买",
    "无人机",
    "不粘锅",
    "没有",
    "不要",
]
PLAIN += [
    "人脸识别带摄像头门锁",
    "性别要求 男",
    "除虫灯户外",
    "清除外墙污渍 清洁剂",
    "拆除外壳螺丝刀",
    "去掉油污的清洁剂",
]
PLAIN += ["non-iron shirt", "non-wood-burning stove", "除黑色外", "no red, no blue"]
PLAIN += ["特别要红色的沙发", "除湿机外壳", "去除异味的喷雾", "不带扶手椅", "不要折叠床", "no red or blue", "not red"]
PLAIN += ["No. 5 perfume", "no 5", "non-stick pan", "No-Frost refrigerator", "nobody", "note book", "nothing"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("attributes")
    with (
        running_api(folder, **tiny_models) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        for number, (sku, title) in enumerate(TITLES.items()):
            create_product(client, title, picture(size=(40 + number, 40)), sku=sku)
        wait_until_indexed(client)
        yield client


def named(text: str, words: Words | None = None) -> list[tuple[str, str, str]]:
    return [(each.word, each.values[0], each.shade) for each in attributes_in(lexical_text(text), words or Words())]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("红色的沙发", [("红色", "red", "")]),
        ("紅色沙發", [("红色", "red", "")]),
        ("红沙发", [("红", "red", "")]),
        ("深红色沙发", [("深红色", "red", "dark")]),
        ("红棕色单人沙发", [("红棕色", "brown", ""), ("单人", "1", "")]),
        ("红白格子桌布", [("红白", "red", "")]),
        ("双人布艺沙发", [("双人", "2", ""), ("布艺", "fabric", "")]),
        ("白色双开门衣柜", [("白色", "white", ""), ("双开门", "2", "")]),
        ("橡木餐桌", [("橡木", "wood", "oak")]),
        ("大冰箱", [("大", "large", "")]),
        (
            "dark red leather two-seat sofa",
            [("dark red", "red", "dark"), ("leather", "leather", ""), ("two-seat", "2", "")],
        ),
        ("红酒杯", []),
        ("黄瓜", []),
        ("白板", []),
        ("积木", []),
        ("红米手机 黑米", []),
        ("蓝牙耳机", []),
        ("绿萝", []),
        ("blackboard", []),
        ("red wine", []),
        ("非洲菊 非常好", []),
        ("no. 5", []),
        ("十二抽屉柜", [("十二抽屉", "12", "")]),
        ("二十四件餐具", [("二十四件", "24", "")]),
        ("十人桌", [("十人", "10", "")]),
        *((text, [("双人", "2", "")]) for text in ("1.8双人床", "180双人床", "2024双人沙发")),
        ("sofa,2 seater", [("2 seater", "2", "")]),
        ("浅米沙发", [("浅米", "beige", "light")]),
        *((text, []) for text in ("250人会议桌", "三百六十五件", "一百二十人", "1.5 seat", "第二件半价")),
    ],
)  # fmt: skip
def test_what_names_an_attribute_is_known_and_what_only_looks_so_is_not(
    text: str, said: list[tuple[str, str, str]]
) -> None:
    assert named(text) == said


def test_the_shops_own_synonyms_of_an_attribute_name_it(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("勃艮第 = 酒红\n随行杯 = 保温杯\n", encoding="utf-8")
    assert named("勃艮第沙发 随行杯", read_words(file)) == [("勃艮第", "red", "dark")]
    assert named("勃艮第沙发") == []


@pytest.mark.parametrize(
    ("text", "wanted", "without"),
    [
        ("沙发 不带扶手", "沙发", ["扶手"]),
        ("不要扶手的椅子", "椅子", ["扶手"]),
        ("不帶扶手的椅子", "椅子", ["扶手"]),
        ("沙发不要红色和蓝色的", "沙发", ["红色", "蓝色"]),
        ("椅子 不带 扶手 白色", "椅子 白色", ["扶手"]),
        ("不要红色沙发", "沙发", ["红色"]),
        ("没有抽屉的桌子", "桌子", ["抽屉"]),
        ("非皮质沙发", "沙发", ["皮质"]),
        ("无扶手餐椅", "餐椅", ["扶手"]),
        ("除了黑色以外的沙发", "沙发", ["黑色"]),
        ("sofa without armrests", "sofa", ["armrests"]),
        ("chair without arms and wheels for kids", "chair for kids", ["arms", "wheels"]),
        ("chair, no leather", "chair", ["leather"]),
        ("no leather sofa", "sofa", ["leather"]),
        ("沙发要不带扶手的", "沙发", ["扶手"]),
        ("想要没有扶手的椅子", "想要 椅子", ["扶手"]),
        ("有没有不带扶手的椅子", "有没有 椅子", ["扶手"]),
        ("不要红色要蓝色的沙发", "蓝色的沙发", ["红色"]),
        ("没有抽屉也没有轮子的柜子", "柜子", ["抽屉", "轮子"]),
        ("椅子（不含坐垫）", "椅子", ["坐垫"]),
        ("shoes no laces size 42", "shoes size 42", ["laces"]),
        ("Sofa Without red Cushions", "Sofa", ["red Cushions"]),
        *((text, "沙发", ["红色"]) for text in ("别要红色的沙发", "除红色以外的沙发", "除红色外的沙发", "沙发 红色除外",
                                             "沙发 红色的不要", "沙发 去掉红色", "沙发 不喜欢红色")),
        *((text, "椅子", ["扶手"]) for text in ("无扶手椅子", "没有扶手椅子", "不带扶手椅子", "不要带扶手的椅子",
                                             "椅子 不要有扶手的", "别带扶手的椅子")),
        *((f"不要{material}沙发", "沙发", [material]) for material in ("皮", "真皮", "布艺")),
        *((f"非{material}沙发", "沙发", [material]) for material in ("皮", "真皮", "实木")),
        ("不要实木床", "床", ["实木"]),
        ("不要牛仔裤子", "裤子", ["牛仔"]),
        ("椅子 除了黑色都行", "椅子", ["黑色"]),
        ("椅 不要黑色白色", "椅", ["黑色", "白色"]),
        ("不要太大的沙发", "沙发", ["大"]),
        ("太阳伞 不要太阳能的", "太阳伞", ["太阳能"]),
        ("不要户外的椅子", "椅子", ["户外"]),
        ("床单 不要有机棉", "床单", ["有机棉"]),
        ("床单 不要埃及棉", "床单", ["埃及棉"]),
        ("裙子 不要日式和服", "裙子", ["日式和服"]),
        ("柜子 不要需要组装的", "柜子", ["需要组装"]),
        *((text, "sofa", ["leather"]) for text in ("non-leather sofa", "sofa, don't want leather", "sofa w/o leather",
                                                   "sofa that isn’t leather", "sofa not made of leather")),
        *((f"不要红色{word}蓝色的沙发", "沙发", ["红色", "蓝色"]) for word in ("或者", "以及", "跟", "")),
        ("黑色和白色除外的沙发", "沙发", ["黑色", "白色"]),
        ("水杯 塑料和玻璃的不要", "水杯", ["塑料", "玻璃"]),
        ("卫衣 不要太平鸟", "卫衣", ["太平鸟"]),
        ("火锅底料 除了成都", "火锅底料", ["成都"]),
        ("chair any colour but black", "chair", ["black"]),
        ("sofa not too big", "sofa", ["big"]),
        ("sofa with no arms", "sofa", ["arms"]),
        ("no red or blue sofa", "sofa", ["red", "blue"]),
        ("no leather, no wood sofa", "sofa", ["leather", "wood"]),
        *(
            (text, text, [])
            for text in PLAIN
        ),
    ],
)  # fmt: skip
def test_what_is_not_wanted_is_told_from_what_is(text: str, wanted: str, without: list[str]) -> None:
    assert asked_of(normalise_text(text)) == (wanted, tuple(without))


def search(api: httpx.Client, text: str, mode: str, **fields: Any) -> dict[str, Any]:
    response = api.post("/search", json={"mode": mode, "text": text, **fields})
    assert response.status_code == httpx.codes.OK, response.text
    answer: dict[str, Any] = response.json()
    return answer


def skus(answer: dict[str, Any]) -> list[str]:
    return [hit["product"]["sku"] for hit in answer["hits"]]


@pytest.mark.parametrize("mode", ["hybrid", "text_to_text", "text_to_image"])
def test_agreement_lifts_contradiction_lowers_and_silence_does_nothing(api: httpx.Client, mode: str) -> None:
    """Whatever a tiny model thinks of it."""
    answer = search(api, "红色的沙发", mode, attribute_words=True)
    assert answer["understood"] == {
        "wanted": "红色的沙发",
        "without": [],
        "attributes": [{"word": "红色", "kind": "colour", "value": "red"}],
    }
    hits = {hit["product"]["sku"]: hit for hit in answer["hits"]}
    assert hits["RED"]["boosted_score"] > hits["RED"]["score"]
    assert hits["SILENT"]["boosted_score"] == hits["SILENT"]["score"]
    assert all(hits[sku]["boosted_score"] < hits[sku]["score"] for sku in ("BLUE", "BEIGE"))
    order = [hit["boosted_score"] for hit in answer["hits"]]
    assert order == sorted(order, reverse=True)
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(TITLES) + 1))
    by_default = search(api, "红色的沙发", mode)
    assert (by_default["hits"] == answer["hits"]) == (mode == "hybrid")  # elsewhere scores stay what they were
    off = search(api, "红色的沙发", mode, attribute_words=False)
    assert (off["understood"], {hit["boosted_score"] for hit in off["hits"]}) == (None, {None})


@pytest.mark.parametrize("mode", ["hybrid", "text_to_text", "text_to_image"])
def test_what_is_not_wanted_is_lowered_and_not_looked_for(api: httpx.Client, mode: str) -> None:
    answer = search(api, "餐椅 不带扶手", mode)
    assert (answer["understood"]["wanted"], answer["understood"]["without"]) == ("餐椅", ["扶手"])
    hits = {hit["product"]["sku"]: hit for hit in answer["hits"]}
    assert hits["CHAIR"]["boosted_score"] < hits["CHAIR"]["score"]
    assert hits["BARE"]["boosted_score"] >= hits["BARE"]["score"]  # it says that it has none
    if mode == "hybrid":
        assert skus(answer)[-1] == "CHAIR"
        assert hits["CHAIR"]["matched_words"] == ["餐椅"]
    assert search(api, "餐椅 不带扶手", mode, negation=False)["understood"] is None


def test_pages_filters_boosts_and_sorting_go_with_it(api: httpx.Client) -> None:
    whole = search(api, "红色的沙发", "hybrid")
    pages = [
        sku for offset in range(0, 7, 2) for sku in skus(search(api, "红色的沙发", "hybrid", offset=offset, top_k=2))
    ]
    assert pages == skus(whole)
    boosted = search(api, "红色的沙发", "hybrid", boost=[{"freshness_half_life_days": 1, "weight": 0.5}])
    assert boosted["hits"][0]["product"]["sku"] == "RED"
    lifted = {hit["product"]["sku"]: hit["boosted_score"] for hit in whole["hits"]}
    assert boosted["hits"][0]["boosted_score"] > lifted["RED"]
    newest = search(api, "红色的沙发", "hybrid", sort="-created_at")
    assert skus(newest) == list(reversed(TITLES))


def test_a_plain_text_is_not_even_read(api: httpx.Client) -> None:
    """And answers as with both switched off, to the bit."""
    off = {"attribute_words": False, "negation": False}
    for text in ("现代简约沙发", "餐厅家具", "modern furniture", "无线蓝牙"):
        for mode in (SearchMode.HYBRID, SearchMode.TEXT_TO_TEXT, SearchMode.TEXT_TO_IMAGE):
            on_hits, off_hits = (
                search(api, text, mode.value, **each)["hits"] for each in ({"attribute_words": True}, off)
            )
            assert on_hits == off_hits
    assert not needs_reading(SearchRequest(mode=SearchMode.HYBRID, text="现代简约沙发"))
    assert not needs_reading(SearchRequest(mode=SearchMode.HYBRID, text="红色沙发", **off))


def lift(wishes: Wishes, title: str, attributes: dict[str, Any]) -> float:
    return wishes.lift(read_product(title, attributes, wishes.words))


@pytest.mark.parametrize("text", ["Sofa Without Armrests", "餐椅 无扶手", "Chair NO Wheels"])
def test_a_title_that_says_it_has_none_is_lifted(text: str) -> None:
    """However it is written."""
    wishes = understand(SearchRequest(mode=SearchMode.HYBRID, text=text), Lexicon(None)).wishes
    assert wishes is not None
    assert lift(wishes, text, {}) > 0


@pytest.mark.parametrize(
    ("unwanted", "title"),
    [
        ("可乐 不要糖", "无糖可乐"),
        ("可乐 不要糖", "0糖可乐"),
        ("可乐 不要糖", "零糖可乐"),
        ("可乐 不要糖", "不加糖的可乐"),
        ("沙发 不要真皮", "非真皮沙发"),
        ("cola without sugar", "Sugar-free cola"),
        ("cola without sugar", "Zero sugar cola"),
        ("sofa without leather", "Non-leather sofa"),
        ("fridge without frost", "No-frost fridge"),
    ],
)
def test_a_word_that_says_it_has_none_is_no_word_that_it_has_some(unwanted: str, title: str) -> None:
    wishes = understand(SearchRequest(mode=SearchMode.HYBRID, text=unwanted), Lexicon(None)).wishes
    assert wishes is not None
    assert lift(wishes, title, {}) > 0


OF_SOME = [("可乐 不要糖", "10糖可乐"), ("包 不要钱包", "零钱包"), ("cola without sugar", "Sugar cola")]
OF_SOME += [("耳机 不要蓝牙", "5.0蓝牙耳机"), ("锁 不带门铃", "人脸识别带门铃的锁"), ("汽车 不要配件", "汽车零配件")]
OF_SOME += [("chair without wheels", "Office chair with wheels free shipping")]


@pytest.mark.parametrize(("unwanted", "title"), OF_SOME)
def test_what_is_there_besides_is_shown(unwanted: str, title: str) -> None:
    wishes = understand(SearchRequest(mode=SearchMode.HYBRID, text=unwanted), Lexicon(None)).wishes
    assert wishes is not None
    assert lift(wishes, title, {}) < 0


@pytest.mark.parametrize("text", ["不要红色的", "除了红色", "not red", "no red or blue"])
def test_where_nothing_is_left_to_look_for_what_is_not_wanted_is_not_wished(text: str) -> None:
    assert understand(SearchRequest(mode=SearchMode.HYBRID, text=text), Lexicon(None)).wishes is None


def test_what_only_looks_like_an_attribute_names_none() -> None:
    for text in ("steam iron", "ice cream maker", "paper towel", "olive oil", "Rubber Duck", "black pepper mill"):
        assert named(text) == []


def test_a_text_of_many_attributes_names_a_few_of_them_once() -> None:
    understood = understand(SearchRequest(mode=SearchMode.HYBRID, text="1人" * 200 + "红色蓝色红色沙发"), Lexicon(None))
    assert understood.wishes is not None
    assert [each.word for each in understood.wishes.wanted] == ["1人", "红色", "蓝色"]


def test_words_weigh_by_attributes_of_the_product_too() -> None:
    wishes = understand(SearchRequest(mode=SearchMode.HYBRID, text="红色沙发"), Lexicon(None)).wishes
    assert wishes is not None
    assert lift(wishes, "沙发", {"颜色": "酒红"}) > 0
    assert lift(wishes, "沙发", {"颜色": "蓝色"}) < 0
    assert lift(wishes, "沙发", {"author": "Blue", "title_en": "Blue sofa"}) == 0
    assert 0 < lift(wishes, "沙发", {"title_en": "Red sofa"}) < lift(wishes, "红色沙发", {})
    assert lift(wishes, "沙发", {"nested": {"颜色": "蓝色"}, "n": 3, "list": [1, None]}) == 0

"""Makes the query files of words that name an attribute, and of negated ones, from the demo catalogue; always the same.

    python -m evaluation.make_attribute_queries

`attributes.jsonl` asks for a kind of product in a colour or of a material; right is what has both by its title. In
`negation.jsonl` each pair asks for a kind (`plain`) and for the same without something (`negated`): `unwanted` has
those of the kind whose title says that they have it. `*_tuning.jsonl` ask for other kinds: what is tuned is tuned on
these alone. Nothing of the service reads the tables below.
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from clients.catalogue_import import CatalogueItem, read_catalogue
from evaluation.make_queries import CATALOGUE, Record, write

Made = TypeVar("Made")

SEED = 27
QUERIES, OF_A_KIND, PAIRS_OF_A_KIND, MOST_RELEVANT = 100, 6, 12, 40
SHOWING = 1  # product at least of a kind that shows what is not wanted, and one that does not


class Kind(NamedTuple):
    """`pattern`: titles of it, in these categories."""

    chinese: str
    english: str
    categories: str
    pattern: str


KINDS = [
    Kind(*line.split("|", 3))
    for line in """
沙发|sofa|沙发|沙发(?!床)
餐椅|dining chair|椅凳|餐椅
扶手椅|armchair|椅凳 沙发|扶手椅|扶手.*椅|单人沙发
吧台椅|bar stool|椅凳|吧台?椅|吧台?凳|高脚吧
椅子|chair|椅凳|椅
凳子|stool|椅凳 五金工具|凳
餐桌|dining table|桌几|餐桌
茶几|coffee table|桌几|茶几
书桌|desk|桌几|书桌|办公桌
桌子|table|桌几|桌
双人床|double bed|床具|双人床
床|bed|床具|床
衣柜|wardrobe|柜架|衣柜|衣橱
书柜|bookcase|柜架|书柜|书架
橱柜|kitchen cabinet|柜架|橱柜|地柜
吊柜|wall cabinet|柜架|吊柜
床头柜|nightstand|柜架|床头柜
斗柜|dresser|柜架|斗柜|抽屉柜
台灯|table lamp|灯具|台灯
吊灯|pendant lamp|灯具|吊灯
落地灯|floor lamp|灯具|落地灯
路灯|street lamp|灯具|路灯
门|door|门窗|门
窗户|window|门窗|窗
马桶|toilet|卫浴|马桶
洗手盆|washbasin|卫浴|洗手盆|台盆
浴缸|bathtub|卫浴|浴缸
毛巾架|towel rack|卫浴|毛巾架
浴室柜|bathroom vanity|卫浴|浴室柜
冰箱|refrigerator|厨房电器 家用电器|冰箱
烤箱|oven|厨房电器|烤箱
咖啡机|coffee machine|厨房电器|咖啡机
燃气灶|gas stove|厨房电器|燃气灶
抽油烟机|range hood|厨房电器|抽油烟机
暖气片|radiator|家用电器 卫浴 五金工具|暖气片
插座|socket|五金工具|插座
开关|switch|五金工具|开关
电视|television|数码影音|电视机
音箱|speaker|数码影音|音箱
手机|phone|数码影音|手机
汽车|car|车辆|轿车|汽车
卡车|truck|车辆|卡车|货车
摩托车|motorcycle|车辆|摩托车
自行车|bicycle|车辆 运动健身|自行车
花瓶|vase|家居饰品|花瓶
盆栽|potted plant|绿植花卉|盆栽
花盆|flower pot|绿植花卉 户外庭院|花盆
杯子|cup|餐厨用品|杯
盘子|plate|餐厨用品|盘
刀|knife|餐厨用品 五金工具|刀
勺子|spoon|餐厨用品|勺|匙
水壶|kettle|餐厨用品 厨房电器|水壶
鞋子|shoes|服饰配件|鞋|靴
裙子|skirt|服饰配件|裙
背包|backpack|收纳箱包|背包
箱子|box|收纳箱包|箱
垃圾桶|trash bin|收纳箱包 户外庭院 卫浴 家用电器|垃圾桶
长椅|bench|户外庭院 椅凳|长凳|长椅
栏杆|railing|户外庭院 建筑构件|栏杆|护栏|围栏
遮阳伞|parasol|户外庭院|伞
石灯|stone lantern|户外庭院|石灯
雕像|figurine|家居饰品 动物|摆件
玩具车|toy car|玩具童趣|车
婴儿床|baby crib|母婴儿童 床具|婴儿床
人物模特|mannequin|人物模特|人物模特
剪刀|scissors|办公文具 五金工具|剪刀|剪
螺丝刀|screwdriver|五金工具|螺丝刀
地毯|carpet|布艺软装|地毯|地垫
毛巾|towel|卫浴 布艺软装|毛巾
酒瓶|wine bottle|食品饮料|瓶
""".strip().splitlines()
]
# Each with the pattern of a title that is of it: of several colours in one word the last (红棕色 is a brown), or each
# (红白格子).
COLOURS = {
    "红色": ("red", "[红]"), "黄色": ("yellow", "黄"), "绿色": ("green", "绿"), "蓝色": ("blue", "蓝|藏青"),
    "紫色": ("purple", "紫"), "黑色": ("black", "黑"), "白色": ("white", "白"), "灰色": ("grey", "灰"),
    "棕色": ("brown", "棕|褐"), "粉色": ("pink", "粉"), "橙色": ("orange", "橙"), "银色": ("silver", "银"),
    "米色": ("beige", "米(?=色|黄)"),
}  # fmt: skip
LEADING = re.compile(r"^[深浅淡暗宝天湖墨翠草酒玫]?([红橙橘黄绿蓝紫黑白灰棕褐粉银米藏青]+)(色?)")
MATERIALS = {
    "木质": ("wooden", "木(?!马|偶|乃)"), "皮质": ("leather", "皮质|皮面|皮革|麂皮"),
    "布艺": ("fabric", "布艺|布面|麻布|绒面|帆布"),
    "金属": ("metal", "金属|铁艺|不锈钢|钢管|铝"), "塑料": ("plastic", "塑料"), "玻璃": ("glass", "玻璃"),
    "陶瓷": ("ceramic", "陶瓷|白瓷|陶罐"), "藤编": ("rattan", "藤编"),
}  # fmt: skip
FORMS = ("{0}的{1}", "{0}{1}", "{1} {0}", "{2} {3}")
# What a product may have: Chinese, English, and titles that say so.
PARTS = [
    ("扶手", "armrests", "扶手"),
    ("抽屉", "drawers", "抽屉|三抽"),
    ("玻璃", "glass", "玻璃"),
    ("坐垫", "cushions", "坐垫|软垫|靠垫"),
    ("靠背", "a backrest", "靠背"),
    ("烤箱", "an oven", "烤箱"),
    ("条纹", "stripes", "条纹"),
    ("花纹", "a pattern", "花纹|图案"),
    ("金属", "metal", "金属|铁艺|不锈钢"),
    ("皮质", "leather", "皮质|皮面"),
    ("木质", "wood", "木(?!马|偶|乃)"),
    ("轮子", "wheels", "轮"),
    ("手柄", "a handle", "手柄|把手|拉手"),
    ("盖子", "a lid", "盖(?!款)"),
    ("灯罩", "a shade", "灯罩"),
    ("底座", "a base", "底座"),
    ("花盆", "a pot", "花盆|圆盆|方盆"),
    ("抱枕", "pillows", "抱枕|靠枕"),
    ("床品", "bedding", "床品|床罩|床单"),
    ("台面", "a worktop", "台面"),
]
WITHOUT = (
    "{0} 不带{1}",
    "不要{1}的{0}",
    "没有{1}的{0}",
    "{0} 不要{1}",
    "{0}，不含{1}",
    "{2} without {3}",
    "{2}, no {3}",
)
NOT_SHOWN = re.compile("无扶手|无靠背|无格")


class Queries:
    def __init__(self, items: Sequence[CatalogueItem]) -> None:
        self._of_kind = {kind: [item for item in items if is_of(item, kind)] for kind in KINDS}

    def attributes(self, kinds: Sequence[Kind], chance: random.Random) -> Iterator[Record]:
        for kind in kinds:
            asked = chance.sample([*COLOURS.items(), *MATERIALS.items()], len(COLOURS) + len(MATERIALS))
            made = (self._of_attribute(kind, word, *rest, chance) for word, rest in asked)
            yield from [query for query in made if query][:OF_A_KIND]

    def _of_attribute(self, kind: Kind, word: str, english: str, pattern: str, chance: random.Random) -> Record | None:
        is_colour = word in COLOURS
        right = [
            item.sku
            for item in self._of_kind[kind]
            if (has_colour(item.title, pattern) if is_colour else re.search(pattern, item.title.split()[0]))
        ]
        if not 0 < len(right) <= MOST_RELEVANT or len(right) == len(self._of_kind[kind]):
            return None
        text = chance.choice(FORMS).format(word, kind.chinese, english, kind.english)
        category = "colour" if is_colour else "material"
        return {"mode": "hybrid", "text": text, "relevant": right, "category": category}

    def negation(self, kinds: Sequence[Kind], chance: random.Random) -> Iterator[tuple[Record, Record]]:
        for kind in kinds:
            colours = [(word, english, pattern) for word, (english, pattern) in COLOURS.items()]
            asked = [*PARTS, *colours]
            made = (self._without(kind, *each, chance) for each in chance.sample(asked, len(asked)))
            yield from [pair for pair in made if pair][:PAIRS_OF_A_KIND]

    def _without(
        self, kind: Kind, word: str, english: str, pattern: str, chance: random.Random
    ) -> tuple[Record, Record] | None:
        if word in kind.chinese or word[:2] in kind.chinese or re.search(pattern, kind.chinese):
            return None
        of_kind = self._of_kind[kind]
        has = has_colour if word in COLOURS else _says
        showing = [item.sku for item in of_kind if has(item.title, pattern)]
        others = [item.sku for item in of_kind if item.sku not in showing]
        if min(len(showing), len(others)) < SHOWING:
            return None
        form = chance.choice(WITHOUT)
        judged = {"relevant": others, "unwanted": showing}
        plain = kind.english if form.startswith("{2}") else kind.chinese
        negated = form.format(kind.chinese, word, kind.english, english)
        return (
            {"mode": "hybrid", "text": plain, **judged, "category": "plain"},
            {"mode": "hybrid", "text": negated, **judged, "category": "negated"},
        )


def is_of(item: CatalogueItem, kind: Kind) -> bool:
    return item.category in kind.categories.split() and bool(re.search(kind.pattern, item.title))


def has_colour(title: str, pattern: str) -> bool:
    leading = LEADING.match(title)
    if leading is None:
        return False
    colours, is_one = leading[1], bool(leading[2])
    beige = pattern.startswith("米")
    if beige:
        return bool(re.match(f"[浅淡]?{pattern}", title))
    return bool(re.search(pattern, colours[-1] if is_one and colours != "藏青" else colours))


def _says(title: str, pattern: str) -> bool:
    return bool(re.search(pattern, NOT_SHOWN.sub("", title)))


def main() -> None:
    queries = Queries(read_catalogue(CATALOGUE))
    for kinds, suffix, seed in ((KINDS[::2], "", SEED), (KINDS[1::2], "_tuning", SEED + 1)):
        chance = random.Random(seed)
        asked = list(queries.attributes(kinds, chance))
        write(f"attributes{suffix}", some_of(asked, QUERIES, chance))
        pairs = list(queries.negation(kinds, chance))
        write(f"negation{suffix}", [query for pair in some_of(pairs, QUERIES, chance) for query in pair])


def some_of(made: Sequence[Made], wanted: int, chance: random.Random) -> list[Made]:
    """In their order."""
    chosen = sorted(chance.sample(range(len(made)), min(wanted, len(made))))
    return [made[number] for number in chosen]


if __name__ == "__main__":
    main()

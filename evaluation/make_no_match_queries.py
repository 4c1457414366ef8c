"""Makes the query files of what fits nothing from the demo catalogue and `missing_products.txt`; always the same.

    python -m evaluation.make_no_match_queries

Half of each file asks for what the demo catalogue has, half for what it has not (`"relevant": []`): neighbours of its
goods, other branches of trade, books, services, model numbers, nonsense. `no_match.jsonl` is held out: whoever fits or
tunes does so on `no_match_tuning.jsonl`, which asks for other kinds, other products and other missing things. Nothing
of the service reads the tables below, nor the list.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from clients.catalogue_import import CatalogueItem, read_catalogue
from evaluation.make_attribute_queries import COLOURS, FORMS, KINDS, LEADING, MATERIALS, Kind, Queries, is_of, some_of
from evaluation.make_queries import CATALOGUE, Record, write

SEED = 31
MISSING = Path(__file__).resolve().parent / "missing_products.txt"
# Of a file's 200, how many are of which sort; what is sold by its looks is asked for with a colour or material, too.
OF_MISSING = {"neighbour": 77, "other trade": 62, "book": 14, "service": 18, "model number": 15, "nonsense": 14}
WITH_ATTRIBUTE, ATTRIBUTES_AMONG = {"neighbour", "other trade"}, 0.4
ATTRIBUTES, KINDS_ALONE, PARTS, OTHER_WORDS, ENGLISH = 50, 30, 50, 40, 30
SHORTEST_PART, MOST_ALIKE = 4, 20
# What a buyer calls it, and how titles do.
CALLED = [
    line.split("|", 1)
    for line in """
单车|自行车
雪柜|冰箱
坐厕|马桶|坐便器
电脑桌|书桌|办公桌
写字台|书桌|写字台
瓦斯炉|燃气灶
宝宝推车|婴儿推车
洋娃娃|娃娃
手机电话|手机
游水池|游泳池
相机|数码相机|单反相机
吃饭的桌子|餐桌
睡觉的床|双人床|单人床
放衣服的柜子|衣柜|衣橱
放书的架子|书柜|书架
吹风的电扇|风扇|电风扇
挡雨的伞|雨伞
切菜用的板|砧板
写字的笔|圆珠笔|铅笔|记号笔
拧螺丝的工具|螺丝刀
敲钉子|铁锤
给花浇水的壶|喷壶|喷雾瓶
扫地的工具|扫帚
量长度的尺|卷尺|直尺
看时间的表|手表
看电影的机器|投影仪|电视机|DVD
听歌的耳机|耳机
喝咖啡的杯子|咖啡杯|马克杯
喝红酒的杯子|红酒杯
烧水的壶|水壶
烤面包的机器|烤面包机|烤箱
煮饭的锅|电饭煲
洗衣服的机器|洗衣机
洗脸的盆|洗手盆|洗脸盆|台盆
泡澡的缸|浴缸
取暖的炉子|柴火炉|壁炉
天花板上的灯|吊灯|吸顶灯
放在桌上的灯|台灯
墙上的灯|壁灯
马路上的灯|路灯
小孩骑的车|儿童三轮车
宝宝睡的床|婴儿床
小狗|犬
小猫咪|猫(?!砂)
马儿|马匹|骏马
圣诞节的树|圣诞树
下棋的|国际象棋
踢的球|足球(?!门|机|桌)
打的篮球|篮球
乒乓球桌|乒乓球台
跑步的机器|跑步机
练肌肉的器械|训练器|仰卧板|腹肌
吉他|吉他
弹的钢琴|钢琴
大卡车|卡车|货车
小轿车|轿车|汽车
摩托|摩托车
行李箱子|行李箱|手提箱
女士包|手提包
书包|双肩背包
墨镜|太阳镜
近视眼镜|眼镜
高跟鞋子|高跟鞋
牛仔裤子|牛仔长裤|牛仔短裤
帽子|礼帽|棒球帽
袜|袜子
连衣裙子|连衣裙
唇膏|口红
香水|香水瓶
梳头的|梳子|发刷
药|药瓶|药盒
灭火的|灭火器
邮筒|信箱
睡袋|睡袋
露营的帐篷|帐篷|野营帐
草坪割草|割草机
梯子|人字梯|梯凳
电钻工具|手电钻
开关面板|开关
网口|网线插座
电源插座|插座
监控|监控摄像头
平板|平板电脑
手提电脑|笔记本电脑
打印机器|打印机
固定电话|电话机
游戏机|游戏主机|弹珠机
热水器|热水器
空调|空调
抽烟机|抽油烟机
纸箱子|纸箱
垃圾箱|垃圾桶
屏风隔断|屏风
窗户帘子|窗帘
地垫|地垫|门垫
花束|花束|插花
仙人球|仙人掌
""".strip().splitlines()
]

Made = tuple[str, list[str]]


class Found:
    """What the catalogue has: `kinds` of products, and `items` of it."""

    def __init__(self, items: Sequence[CatalogueItem], half: int) -> None:
        self._all = items
        self._items = items[half::2]
        self._kinds = KINDS[half::2]
        self._called = CALLED[half::2]

    def records(self, chance: random.Random) -> Iterator[Record]:
        attributes = list(Queries(self._all).attributes(self._kinds, chance))
        made = [(each["text"], each["relevant"]) for each in attributes]
        yield from _as_records("attribute", some_of(made, ATTRIBUTES, chance))
        yield from _as_records("kind", some_of(list(self._of_kinds(chance)), KINDS_ALONE, chance))
        yield from _as_records("part of a title", self._some_of(self._part, PARTS, chance))
        other_words = [(text, self._matching(pattern)) for text, pattern in self._called]
        yield from _as_records("other words", some_of([each for each in other_words if each[1]], OTHER_WORDS, chance))
        yield from _as_records("English title", self._some_of(self._english, ENGLISH, chance))

    def _of_kinds(self, chance: random.Random) -> Iterator[Made]:
        for kind in self._kinds:
            if relevant := [item.sku for item in self._all if is_of(item, kind)]:
                yield _named(kind, chance), relevant

    def _some_of(self, make: Callable[[CatalogueItem], Made | None], wanted: int, chance: random.Random) -> list[Made]:
        items = chance.sample(self._items, len(self._items))
        return list(islice((made for item in items if (made := make(item))), wanted))

    def _part(self, item: CatalogueItem) -> Made | None:
        """The first words of its title, without the colour."""
        first = item.title.split()[0]
        leading = LEADING.match(first)
        part = first[leading.end() :] if leading else first
        alike = self._matching(re.escape(part))
        return (part, alike) if len(part) >= SHORTEST_PART and len(alike) <= MOST_ALIKE else None

    def _english(self, item: CatalogueItem) -> Made | None:
        text = str(item.attributes.get("title_en", "")).partition(" with ")[0]
        if len(text.split()) < SHORTEST_PART - 1:
            return None
        return text, [each.sku for each in self._all if text in str(each.attributes.get("title_en", ""))]

    def _matching(self, pattern: str) -> list[str]:
        return [item.sku for item in self._all if re.search(pattern, item.title)]


def _named(kind: Kind, chance: random.Random) -> str:
    return chance.choice((kind.chinese, kind.chinese, kind.english))


def _as_records(category: str, made: Sequence[Made]) -> Iterator[Record]:
    for text, relevant in made:
        yield {"mode": "hybrid", "text": text, "relevant": relevant, "category": category}


def missing(half: int) -> Iterator[Record]:
    of_attributes = random.Random(f"{SEED} {half}")
    for sort, things in read_missing().items():
        halves: tuple[list[str], list[str]] = ([], [])
        for names in random.Random(f"{SEED} {sort}").sample(things, len(things)):  # the same for both halves
            min(halves, key=len).extend(names)
        for text in halves[half][: OF_MISSING[sort]]:
            asked = text
            if sort in WITH_ATTRIBUTE and of_attributes.random() < ATTRIBUTES_AMONG:
                asked = _with_attribute(text, of_attributes)
            yield {"mode": "hybrid", "text": asked, "relevant": [], "category": sort}


def _with_attribute(text: str, chance: random.Random) -> str:
    word, (english, _) = chance.choice([*COLOURS.items(), *MATERIALS.items()])
    if text.isascii():
        return f"{english} {text}"
    return chance.choice(FORMS[:3]).format(word, text)


def read_missing() -> dict[str, list[list[str]]]:
    """By sort, things with all their names: a thing is in one file, whatever it is called there."""
    things: dict[str, list[list[str]]] = {}
    sort = ""
    for line in MISSING.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            sort = line[2:]
        else:
            things.setdefault(sort, []).extend(names.split(" = ") for names in line.split(" | "))
    return things


def main() -> None:
    items = read_catalogue(CATALOGUE)
    for half, name in enumerate(("no_match", "no_match_tuning")):
        write(name, [*Found(items, half).records(random.Random(SEED + half)), *missing(half)])


if __name__ == "__main__":
    main()

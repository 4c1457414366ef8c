"""Makes the query files of `evaluation/query_files/` from the demo catalogue: always the same, by a fixed seed.

    python -m evaluation.make_queries

`lexical.jsonl` asks by brands (the models' authors), numbers (of the skus), parts of compounds, typos, pinyin and
traditional characters; `semantic.jsonl` by what a title means, in other words. `tuning.jsonl` has other queries of both
kinds, of other products: what is tuned is tuned on these, and never on the two.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import opencc
import rjieba
from pypinyin import lazy_pinyin

from clients.catalogue_import import CatalogueItem, read_catalogue

FOLDER = Path(__file__).resolve().parent / "query_files"
CATALOGUE = FOLDER.parent.parent / "demo" / "catalogue.jsonl"
SEED, TUNING_SEED = 15, 51
QUERIES = 200
MOST_RELEVANT = 20
MEANT = 2  # words, or one more
HAN = re.compile("[\u4e00-\u9fff]+")
NUMBER = re.compile(r"[a-z]+\d+")
# What a buyer says who does not know the title. Nothing of the service reads this.
OTHER_WORDS = {
    "木质": "木头做的", "实木": "真木头的", "布艺": "布料包的", "皮质": "皮面的", "金属": "铁的", "塑料": "塑胶的",
    "玻璃": "透明玻璃做的", "不锈钢": "银亮钢制的", "白色": "雪白的", "黑色": "乌黑的", "红色": "大红的",
    "棕色": "咖啡色的",
    "灰色": "浅灰的", "绿色": "翠绿的", "蓝色": "湛蓝的", "黄色": "明黄的", "米色": "奶油色的", "银色": "银亮的",
    "单人": "一个人坐的", "双人": "两个人用的", "三人": "能坐三个人的", "餐椅": "吃饭坐的椅子", "餐桌": "吃饭用的桌子",
    "书桌": "写字的桌子", "办公": "上班用的", "台灯": "放桌上的灯", "落地灯": "立在地上的灯", "吊灯": "挂天花板的灯",
    "吸顶灯": "贴着天花板的灯", "书柜": "放书的柜子", "衣柜": "放衣服的柜子", "橱柜": "厨房的柜子",
    "冰箱": "冷藏食物的电器",
    "洗衣机": "洗衣服的机器", "烤箱": "烤面包的电器", "马桶": "坐便器", "浴缸": "泡澡的缸", "盆栽": "种在盆里的植物",
    "沙发": "软座长椅", "茶几": "客厅小桌", "婴儿": "宝宝", "儿童": "小孩", "汽车": "轿车", "自行车": "单车",
    "电视": "看节目的屏幕", "音箱": "放音乐的喇叭", "行李箱": "旅行用的箱子", "门": "房门", "窗": "窗户", "枕": "靠垫",
}  # fmt: skip
HOMOPHONES = {
    "沙": "纱", "发": "法", "椅": "倚", "桌": "卓", "灯": "登", "柜": "贵", "箱": "厢", "机": "基", "器": "气",
    "板": "版",
    "包": "苞", "杯": "背", "瓶": "平", "盆": "喷", "栏": "兰", "门": "们", "窗": "床", "架": "价", "镜": "竟",
    "刀": "到",
    "琴": "勤", "鞋": "协", "帽": "貌", "车": "彻", "梯": "踢", "篮": "蓝", "伞": "散", "书": "叔", "画": "话",
    "花": "华",
}  # fmt: skip
Record = dict[str, Any]
Make = Callable[[CatalogueItem, random.Random], "tuple[str, list[str]] | None"]


class Maker:
    def __init__(self, items: Sequence[CatalogueItem]) -> None:
        self._items = items
        self._jieba = rjieba.Jieba()
        self._traditional = opencc.OpenCC("s2t")
        self._words = {item.sku: self._words_of(item) for item in items}
        self._sounds = {item.sku: {"".join(lazy_pinyin(word)) for word in self._words[item.sku]} for item in items}
        self.lexical: dict[str, Make] = {
            "brand": self._brand,
            "number": self._number,
            "part": self._part,
            "typo": self._typo,
            "pinyin": self._pinyin,
            "traditional": self._in_traditional,
        }

    def _words_of(self, item: CatalogueItem) -> list[str]:
        return [word for run in HAN.findall(item.title) for word in self._jieba.cut_for_search(run) if len(word) > 1]

    def _with(self, part: str) -> list[str]:
        return [item.sku for item in self._items if part in item.title]

    def _brand(self, item: CatalogueItem, chance: random.Random) -> tuple[str, list[str]] | None:
        author, word = str(item.attributes.get("author", "")), chance.choice(self._words[item.sku] or [""])
        of_both = [each.sku for each in self._items if each.attributes.get("author") == author and word in each.title]
        return (chance.choice((f"{author}{word}", f"{word} {author.lower()}")), of_both) if author else None

    def _number(self, item: CatalogueItem, chance: random.Random) -> tuple[str, list[str]] | None:
        numbers = NUMBER.findall(item.sku)
        if not numbers:
            return None
        number = numbers[-1]
        letters, digits = number.rstrip("0123456789"), number.lstrip("abcdefghijklmnopqrstuvwxyz")
        typed = chance.choice((f"{letters.upper()}-{digits}", number.upper(), f"{letters} {digits}"))
        same = [each.sku for each in self._items if re.search(rf"(^|-){number}(-|$)", each.sku)]
        return (typed, same) if same else None

    def _part(self, item: CatalogueItem, chance: random.Random) -> tuple[str, list[str]] | None:
        """Three or four characters that begin with a word and end within one."""
        run = max(HAN.findall(item.title), key=len)
        length = chance.choice((3, 4))
        words = list(self._jieba.cut(run))
        begins = [sum(map(len, words[:number])) for number in range(len(words))]
        begin = chance.choice(begins)
        part, is_cut = run[begin : begin + length], begin + length not in (*begins, len(run))
        return (part, self._with(part)) if is_cut and len(part) == length else None

    def _typo(self, item: CatalogueItem, chance: random.Random) -> tuple[str, list[str]] | None:
        words = [word for word in self._words[item.sku] if any(character in HOMOPHONES for character in word)]
        if not words:
            return None
        word = chance.choice(words)
        at = next(number for number, character in enumerate(word) if character in HOMOPHONES)
        return word[:at] + HOMOPHONES[word[at]] + word[at + 1 :], self._with(word)

    def _pinyin(self, item: CatalogueItem, chance: random.Random) -> tuple[str, list[str]] | None:
        sound = "".join(lazy_pinyin(chance.choice(self._words[item.sku] or [""])))
        return (sound, [sku for sku, sounds in self._sounds.items() if sound in sounds]) if sound else None

    def _in_traditional(self, item: CatalogueItem, chance: random.Random) -> tuple[str, list[str]] | None:
        words = [word for word in self._words[item.sku] if self._traditional.convert(word) != word]
        if not words:
            return None
        word = chance.choice(words)
        return self._traditional.convert(word), self._with(word)

    def semantic(self, item: CatalogueItem, chance: random.Random) -> tuple[str, list[str]] | None:
        """Two or three of a title's words in others, and none as it stands there."""
        words = [word for run in HAN.findall(item.title) for word in self._jieba.cut(run) if word in OTHER_WORDS]
        if len(set(words)) < MEANT:
            return None
        meant = chance.sample(sorted(set(words)), chance.choice((MEANT, min(MEANT + 1, len(set(words))))))
        same = [each.sku for each in self._items if all(word in each.title for word in meant)]
        return "".join(OTHER_WORDS[word] for word in meant), same


def queries(
    make: Make, items: Sequence[CatalogueItem], mode: str, category: str, wanted: int, chance: random.Random
) -> Iterator[Record]:
    seen: set[str] = set()
    for item in chance.sample(list(items), len(items)) * 3:
        if len(seen) == wanted:
            return
        made = make(item, chance)
        if made and made[0] not in seen and 0 < len(made[1]) <= MOST_RELEVANT:
            seen.add(made[0])
            yield {"mode": mode, "text": made[0], "relevant": made[1], "category": category}


def lexical(maker: Maker, items: Sequence[CatalogueItem], wanted: int, chance: random.Random) -> list[Record]:
    found: list[Record] = []
    for number, (category, make) in enumerate(maker.lexical.items()):
        of_category = (wanted - len(found)) // (len(maker.lexical) - number)
        found += queries(make, items, "text_to_text", category, of_category, chance)
    return found


def write(name: str, records: Sequence[Record]) -> None:
    numbered = [{"id": f"{name}-{number}", **record} for number, record in enumerate(records, start=1)]
    lines = [json.dumps(record, ensure_ascii=False) for record in numbered]
    (FOLDER / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    items = read_catalogue(CATALOGUE)
    maker = Maker(items)
    held_out, for_tuning = items[::2], items[1::2]
    chance = random.Random(SEED)
    write("lexical", lexical(maker, held_out, QUERIES, chance))
    write("semantic", list(queries(maker.semantic, held_out, "text_to_text", "in other words", QUERIES, chance)))
    chance = random.Random(TUNING_SEED)
    tuning = lexical(maker, for_tuning, QUERIES, chance)
    tuning += queries(maker.semantic, for_tuning, "text_to_text", "in other words", QUERIES, chance)
    write("tuning", tuning)


if __name__ == "__main__":
    main()

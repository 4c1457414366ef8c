"""What words name: colours, materials, sizes and counts, in simplified Chinese and in English. Data, and its index.

A value is a word's meaning; a shade or a sort narrows it (深红 is a red, 橡木 a wood). `NOTHING` has words that only
look as if they named one: 红酒 is no red, 白板 no white, 积木 no wood.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

COLOUR, MATERIAL, SIZE, COUNT = "colour", "material", "size", "count"
DARK, LIGHT = "dark", "light"


class Meaning(NamedTuple):
    kind: str
    values: tuple[str, ...]
    """The first is meant, others are near to it."""
    shade: str = ""


COLOUR_CHARACTERS = {
    "红": "red", "橙": "orange", "橘": "orange", "黄": "yellow", "绿": "green", "青": "green", "蓝": "blue",
    "紫": "purple", "黑": "black", "白": "white", "灰": "grey", "棕": "brown", "褐": "brown", "粉": "pink",
    "银": "silver", "金": "gold", "米": "beige",
}  # fmt: skip
# Of one character alone these are mostly something else: rice, money.
NEVER_ALONE = frozenset("银金米青")
SHADES = {"深": DARK, "暗": DARK, "浅": LIGHT, "淡": LIGHT}
NUMBERS = {"单": 1, "双": 2, "一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9,
           "十": 10}  # fmt: skip
UNITS = {
    "人": "人", "座": "人", "门": "门", "开门": "门", "扇门": "门", "抽屉": "抽屉", "抽": "抽屉", "斗": "抽屉",
    "层": "层", "头": "头", "孔": "孔", "扇": "扇", "轮": "轮", "格": "格", "眼": "眼", "口": "口", "件": "件",
}  # fmt: skip
LATIN_NUMBERS = {"single": 1, "double": 2, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
                 "eight": 8, "nine": 9, "ten": 10, "triple": 3}  # fmt: skip
LATIN_UNITS = {
    "seat": "人", "seater": "人", "seats": "人", "person": "人", "bed": "人", "door": "门", "doors": "门",
    "drawer": "抽屉", "drawers": "抽屉", "tier": "层", "tiers": "层", "shelf": "层", "shelves": "层", "light": "头",
    "burner": "眼", "wheel": "轮", "wheels": "轮", "piece": "件", "pieces": "件",
}  # fmt: skip

# By meaning: a value, further values that are near, and what narrows it behind a colon.
COLOURS = {
    "red": "大红 正红 朱红 赤色 绯红 red scarlet",
    "red:dark": "酒红 枣红 绛红 burgundy maroon crimson",
    "pink red": "玫红 玫瑰红 桃红 magenta fuchsia",
    "pink": "粉红 粉色 藕粉 pink rose",
    "orange": "橘色 orange",
    "orange red": "橘红 橙红 coral",
    "yellow": "鹅黄 明黄 柠檬黄 yellow",
    "yellow gold": "金黄",
    "green": "翠绿 草绿 果绿 嫩绿 荧光绿 橄榄绿 军绿 green lime olive",
    "green:dark": "墨绿",
    "green blue": "青色 蓝绿 湖绿 teal turquoise cyan",
    "blue": "宝蓝 湛蓝 湖蓝 牛仔蓝 blue",
    "blue:dark": "藏青 藏蓝 海军蓝 墨蓝 navy",
    "blue:light": "天蓝 水蓝 婴儿蓝 azure",
    "purple": "紫罗兰 purple violet",
    "purple:light": "薰衣草紫 lilac lavender",
    "black": "乌黑 漆黑 black ebony",
    "white": "雪白 纯白 white ivory",
    "white beige": "米白 乳白 奶白 象牙白 off-white cream",
    "beige": "米色 杏色 奶油色 beige",
    "beige yellow": "米黄",
    "beige brown": "卡其 卡其色 驼色 khaki camel tan taupe",
    "grey": "grey gray charcoal",
    "brown": "咖啡色 咖色 焦糖色 巧克力色 茶色 brown chestnut",
    "silver grey": "银色 silver silvery",
    "gold yellow": "金色 gold golden",
    "brown gold": "古铜色 bronze",
    "transparent": "透明 clear transparent",
    "colourful": "彩色 彩虹 彩虹色 多彩 五彩 七彩 colorful colourful multicolor multicolour multicolored rainbow",
}
MATERIALS = {
    "wood": (
        "木质 木制 木头 木色 原木 原木色 实木 木纹 木条 木板 木框 木面 木架 木脚 木腿 木柄 木艺 木桌 木椅 木凳 "
        "木床 木门 木柜 木箱 木碗 木梯 红木 wood wooden timber"
    ),
    "wood:oak": "橡木 oak", "wood:pine": "松木 pinewood", "wood:teak": "柚木 teak", "wood:walnut": "胡桃木 walnut",
    "wood:beech": "榉木 beech", "wood:birch": "桦木 birch", "wood:alder": "赤杨木 alder", "wood:pear": "梨木",
    "wood:bamboo": "竹木",
    "bamboo": "竹子 竹制 竹编 竹质 bamboo",
    "rattan": "藤编 藤条 藤制 藤艺 rattan wicker",
    "metal": "金属 五金 metal metallic",
    "metal:iron": "铁艺 铁制 铁质 铸铁 铁架 铁皮 铁门 铁床 iron", "metal:steel": "钢制 钢管 钢板 钢筋 steel chrome",
    "metal:stainless": "不锈钢 stainless", "metal:aluminium": "铝合金 铝制 aluminium aluminum",
    "metal:brass": "黄铜 纯铜 铜制 铜质 brass copper",
    "leather": "皮质 皮革 真皮 皮面 皮沙发 皮椅 皮包 皮靴 皮制 牛皮 羊皮 皮艺 leather", "leather:suede": "麂皮 suede",
    "fabric": (
        "布艺 布沙发 布面 布料 布罩 织物 棉麻 绒布 绒面 帆布 麻布 亚麻 天鹅绒 fabric linen cotton canvas velvet "
        "cloth upholstered"
    ),
    "plastic": "塑料 塑胶 亚克力 plastic acrylic",
    "glass": "玻璃 水晶 glass crystal",
    "ceramic": "陶瓷 瓷器 白瓷 陶土 红陶 粗陶 ceramic porcelain terracotta pottery",
    "stone": "石材 石头 石雕 石制 大理石 花岗岩 岩板 石板 石纹 混凝土 水泥 stone marble granite concrete",
    "paper": "纸质 纸板 牛皮纸 纸盒 paper cardboard",
    "rubber": "橡胶 硅胶 rubber silicone",
}  # fmt: skip
SIZES = {
    "large": "大号 大型 大码 加大 特大 超大 大尺寸 large big huge oversized",
    "small": "小号 小型 小码 小尺寸 small little compact",
    "small:mini": "迷你 mini tiny",
}
SIZE_CHARACTERS = {"大": "large", "小": "small"}
MATERIAL_CHARACTERS = {"木": "wood", "竹": "bamboo", "铁": "metal", "钢": "metal", "皮": "leather", "布": "fabric"}
NOTHING = (
    "红酒 红酒杯 红包 红枣 红豆 红薯 红茶 红旗 红糖 红外 红外线 红烧 红绿灯 红十字 网红 口红 黄瓜 黄油 黄豆 黄金 "
    "黄酒 黄芥末 黄沙 绿茶 绿豆 绿萝 绿植 绿叶 绿化 蓝牙 蓝莓 蓝光 蓝宝石 紫菜 紫砂 紫砂壶 紫外线 紫薯 黑板 黑胶 "
    "黑咖啡 黑芝麻 黑莓 黑鹰 白板 白酒 白糖 白菜 白炽灯 白领 白金 白兰地 白葡萄酒 红葡萄酒 白面 灰尘 灰缸 烟灰 "
    "烟灰缸 橙子 橙汁 橘子 粉底 粉丝 粉笔 粉末 面粉 奶粉 金枪鱼 金鱼 金针菇 银行 银耳 米饭 米粉 大米 小米 棕榈 "
    "棕榈树 咖啡 木瓜 木耳 木马 木偶 木乃伊 积木 木琴 木鱼 木星 乌木 水晶吊灯 钢琴 钢笔 铁锹 铁路 铁锤 皮带 皮球 "
    "皮肤 皮影 布丁 布谷鸟 布鲁斯 红发 金发 黑发 棕发 白发 红果 黄金果 木槿 竹笋 竹竿 大衣 大衣柜 大麦 大蒜 大象 "
    "大学 大厦 大力 大力剪 大提琴 小说 小麦 小孩 小学 小提琴 小号手 小便池 小便器 小轮车 小鹿 小人 小吃 纸巾 "
    "纸巾架 纸杯 石榴 石榴石 一次性 人字梯 无花果 大人 小夜灯 小轿车 小汽车 大巴 大卡车 小票 大闸蟹 三人行"
)
NOTHING_IN_ENGLISH = (
    "red wine",
    "white wine",
    "red bull",
    "black tea",
    "green tea",
    "brown sugar",
    "white board",
    "black board",
    "wine glass",
    "wine glasses",
    "orange juice",
    "brown bread",
    "golden retriever",
    "green house",
    "light bulb",
    "eye glasses",
    "glasses case",
    "big mac",
    *(f"{which} iron" for which in ("steam", "curling", "waffle", "soldering", "golf", "travel")),
    *(
        f"{which} cream"
        for which in ("ice", "face", "hand", "eye", "sun", "shaving", "whipped", "body", "day", "night")
    ),
    *(f"{which} paper" for which in ("toilet", "baking", "photo", "copy", "wrapping", "tissue", "sand")),
    *(f"paper {what}" for what in ("towel", "towels", "clip", "clips", "shredder", "plane", "tray")),
    *(f"glass {what}" for what in ("cleaner", "cutter", "scraper")),
    *(f"rubber {what}" for what in ("band", "bands", "duck", "ducks", "stamp")),
    *(f"cotton {what}" for what in ("candy", "swab", "swabs", "bud", "buds", "pads")),
    "cream cheese",
    "ironing board",
    "iron man",
    "metal detector",
    "wood glue",
    "crystal ball",
    "chrome browser",
    "olive oil",
    "lavender oil",
    "rose water",
    "lime juice",
    "orange peeler",
    "orange squeezer",
    "black pepper",
    "black friday",
    "white noise",
    "white rice",
    "brown rice",
    "green screen",
    "red cross",
    "blue ray",
    "tan lines",
    "coral reef",
    "rainbow fish",
    "silver surfer",
)


def _entries(kind: str, table: dict[str, str]) -> dict[str, Meaning | None]:
    found: dict[str, Meaning | None] = {}
    for meant, words in table.items():
        values, _, shade = meant.partition(":")
        found |= dict.fromkeys(words.split(), Meaning(kind, tuple(values.split()), shade))
    return found


@cache
def meanings() -> dict[str, Meaning | None]:
    """By word; None of what only looks like one."""
    singles = {word: Meaning(COLOUR, (value,)) for word, value in COLOUR_CHARACTERS.items() if word not in NEVER_ALONE}
    singles |= {word: Meaning(MATERIAL, (value,)) for word, value in MATERIAL_CHARACTERS.items()}
    singles |= {word: Meaning(SIZE, (value,)) for word, value in SIZE_CHARACTERS.items()}
    known: dict[str, Meaning | None] = {**singles, **dict.fromkeys([*NOTHING.split(), *NOTHING_IN_ENGLISH])}
    return known | _entries(COLOUR, COLOURS) | _entries(MATERIAL, MATERIALS) | _entries(SIZE, SIZES)


def meanings_of_synonyms(synonyms: Mapping[str, tuple[str, ...]]) -> dict[str, Meaning | None]:
    """Of words of the shop's own that mean what is known."""
    known = meanings()
    found = {
        word: next((known[other] for other in others if known.get(other)), None) for word, others in synonyms.items()
    }
    return {word: meaning for word, meaning in found.items() if meaning and word not in known}

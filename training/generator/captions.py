"""What the training pictures are called: titles and names in two languages, with another colour where it was changed.

Owns the named colours that pictures are recoloured to. Knows no pictures.
"""

import re
from dataclasses import dataclass

from training.alignment import Caption
from training.collect import Product

TITLE_WEIGHT, NAME_WEIGHT, COLOURED_NAME_WEIGHT, CATEGORY_WEIGHT = 5.0, 1.5, 1.5, 1.0


@dataclass(frozen=True)
class Colour:
    """A colour with its names and its red, green and blue, 0 to 255."""

    names_zh: tuple[str, ...]
    names_en: tuple[str, ...]
    rgb: tuple[int, int, int]


COLOURS = (
    Colour(("红色",), ("red",), (200, 30, 35)),
    Colour(("橙色",), ("orange",), (236, 125, 30)),
    Colour(("黄色",), ("yellow",), (242, 206, 50)),
    Colour(("绿色",), ("green",), (50, 140, 65)),
    Colour(("蓝色",), ("blue",), (40, 85, 190)),
    Colour(("紫色",), ("purple",), (122, 60, 152)),
    Colour(("粉色", "粉红色"), ("pink",), (240, 150, 182)),
    Colour(("棕色",), ("brown",), (118, 72, 42)),
    Colour(("黑色",), ("black",), (38, 38, 41)),
    Colour(("白色",), ("white",), (238, 238, 236)),
    Colour(("灰色",), ("grey", "gray"), (135, 138, 142)),
    Colour(("米色",), ("beige",), (226, 209, 176)),
)

_HUES = "红橙黄绿蓝紫粉棕褐黑白灰青银金米"
_COLOUR_ZH = re.compile(rf"[深浅暗亮淡墨酒宝天湖玫藏翠草原旧柚梨]?[{_HUES}驼木铜彩]+色")
_OTHER_HUE_ZH = re.compile(r"(?!金属|榻榻米)[红橙黄绿蓝紫粉棕褐黑白灰青银金彩]")
_HUES_EN = (
    "red|orange|yellow|green|blue|navy|teal|turquoise|cyan|purple|violet|lilac|pink|magenta|brown|tan|black|white|grey|"
    "gray|beige|cream|ivory|silver|golden|gold|bronze|copper|burgundy|colou?rful|multicolou?red"
)
_COLOUR_EN = re.compile(
    rf"\b(?:(?:dark|light|pale|deep|bright|wine|reddish|bluish|greenish|yellowish|off|silver)[ -])*(?:{_HUES_EN})\b",
    re.I,
)


def own_captions(product: Product) -> tuple[Caption, ...]:
    """For the product as it is: titles often, then names, names with the title's first colour, and the category."""
    weights = {product.title_zh: TITLE_WEIGHT, product.title_en: TITLE_WEIGHT, product.category_zh: CATEGORY_WEIGHT}
    chinese, english = _COLOUR_ZH.match(product.title_zh), _COLOUR_EN.match(product.title_en)
    for colour, name, joined in ((chinese, product.name_zh, ""), (english, product.name_en.lower(), " ")):
        if name:
            weights.setdefault(name, NAME_WEIGHT)
        if name and colour:
            weights.setdefault(colour.group().lower() + joined + name, COLOURED_NAME_WEIGHT)
    return tuple(Caption(text, weight) for text, weight in weights.items())


def recoloured_captions(product: Product, colour: Colour) -> tuple[Caption, ...]:
    """For the product in another colour: short names with the colour's, and titles in which it can be put.

    Its own titles stay for the product as it is, of which they tell more than the colour.
    """
    weights: dict[str, float] = {}
    for word in colour.names_zh:
        share = 1 / len(colour.names_zh)
        if product.name_zh and not _COLOUR_ZH.search(product.name_zh):
            weights[f"{word}{product.name_zh}"] = weights[f"{word}的{product.name_zh}"] = NAME_WEIGHT * share
        if title := title_in_colour_zh(product.title_zh, word):
            weights[title] = TITLE_WEIGHT * share
    for word in colour.names_en:
        share = 1 / len(colour.names_en)
        if not _COLOUR_EN.search(product.name_en):
            weights[f"{word} {product.name_en.lower()}"] = 2 * NAME_WEIGHT * share
        if title := title_in_colour_en(product.title_en, word):
            weights[title] = TITLE_WEIGHT * share
    own = {product.title_zh, product.title_en}
    return tuple(Caption(text, weight) for text, weight in weights.items() if text not in own)


def title_in_colour_zh(title: str, colour: str) -> str | None:
    """The title with its only colour word replaced, or the word put before; None where colours are named twice."""
    found = list(_COLOUR_ZH.finditer(title))
    if len(found) > 1 or _OTHER_HUE_ZH.search(_COLOUR_ZH.sub("", title)):
        return None
    return _COLOUR_ZH.sub(colour, title) if found else colour + title


def title_in_colour_en(title: str, colour: str) -> str | None:
    """The same for an English title."""
    found = list(_COLOUR_EN.finditer(title))
    if len(found) > 1:
        return None
    if not found:
        return f"{colour} {title[:1].lower()}{title[1:]}"
    start, end = found[0].span()
    return title[:start] + (colour.capitalize() if start == 0 else colour) + title[end:]


def name_side(captions: tuple[Caption, ...], side: tuple[str, str]) -> tuple[Caption, ...]:
    """The captions with the side that is seen, in Chinese or English as they are."""
    chinese, english = side
    return tuple(
        Caption(caption.text + (f", {english}" if caption.text.isascii() else f" {chinese}"), caption.weight)
        for caption in captions
    )

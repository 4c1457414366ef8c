"""The texts that the small text towers are distilled on: names, composed product titles and common nouns.

Composed titles come in pairs that mean the same in both languages; all randomness has a fixed seed.
"""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.names import DATA, ImageNetClass, Lexicon

PART_SHARE, DETAIL_SHARE, NUMBER_SHARE = 0.45, 0.3, 0.12  # how often a composed title has one
PICTURED_KINDS = {"05", "06", "13", "20"}  # WordNet's lexicographer files: animal, artefact, food, plant
FIRST_ARTEFACT = 398  # ImageNet's classes before it are animals


NOUN_LENGTHS = range(2, 6)  # characters
LONGEST_IN_PHRASES = {True: 8, False: 24}  # characters of a Chinese name, and of an English one
CHINESE_PHRASES = ["一只{}", "一个{}", "一条{}", "一辆{}", "一把{}", "一张{}", "一台{}", "一件{}", "一朵{}", "一棵{}"]
CHINESE_PHRASES += ["一些{}", "小{}", "{}照片", "{}图片", "{}的照片", "{}特写", "一张{}的照片"]
ENGLISH_PHRASES = [
    "the {}",
    "one {}",
    "some {}",
    "a small {}",
    "this {}",
    "photo of {}",
    "photo of the {}",
    "{} picture",
]
ENGLISH_PHRASES += ["a {}", "a {}", "a {}", "a photo of a {}"]  # "an" before a vowel
UNITS = (
    ("厘米", "cm"),
    ("cm", "cm"),
    ("毫升", "ml"),
    ("件套", "piece set"),
    ("寸", "inch"),
    ("瓦", "W"),
    ("号", "size"),
)


def read_title_parts(path: Path = DATA / "title_parts.tsv") -> dict[str, list[tuple[str, str]]]:
    """(Chinese, English) parts of product titles by kind: style, colour, material, detail."""
    parts: dict[str, list[tuple[str, str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            kind, chinese, english = line.split("\t")
            parts.setdefault(kind, []).append((chinese, english))
    return parts


def noun_pairs(lexicon: Lexicon, classes: Sequence[ImageNetClass]) -> list[tuple[str, str]]:
    """(Chinese, English) names of things that are sold, every synonym with every synonym."""
    pairs = [(zh, en) for en, names in lexicon.entries.items() for zh in names]
    pairs += [(zh, en) for names in classes[FIRST_ARTEFACT:] for zh in names.names_zh for en in names.names_en]
    return list(dict.fromkeys(pairs))


def compose_titles(nouns: Sequence[tuple[str, str]], count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Up to `count` pairs, e.g. (深棕色皮质沙发 带扶手, dark brown leather sofa with armrests)."""
    rng = random.Random(seed)
    parts = read_title_parts()
    titles = []
    for _ in range(count):
        noun = rng.choice(nouns)
        before = [rng.choice(parts[kind]) for kind in ("style", "colour", "material") if rng.random() < PART_SHARE]
        after = [rng.choice(parts["detail"])] if rng.random() < DETAIL_SHARE else []
        joint = rng.choice(("", " "))
        chinese = "".join(zh for zh, _ in before) + noun[0] + "".join(joint + zh for zh, _ in after)
        english = " ".join([*(en for _, en in before), noun[1], *(en for _, en in after)])
        if rng.random() < NUMBER_SHARE:
            chinese, english = _with_number(chinese, english, rng)
        titles.append((chinese, english))
    return list(dict.fromkeys(titles))


def _with_number(chinese: str, english: str, rng: random.Random) -> tuple[str, str]:
    number = rng.choice((rng.randint(1, 12), rng.randrange(20, 200, 5), rng.randint(100, 2000)))
    unit = rng.choice(UNITS)
    return f"{chinese} {number}{unit[0]}", f"{english} {number} {unit[1]}"


def chinese_nouns(dictionary: Path, count: int) -> list[str]:
    """The most frequent nouns of jieba's dictionary (word, frequency, part of speech)."""
    entries = (line.split() for line in dictionary.read_text(encoding="utf-8").splitlines())
    nouns = [(int(frequency), word) for word, frequency, kind in entries if kind in {"n", "nz"}]
    nouns = [(frequency, word) for frequency, word in nouns if len(word) in NOUN_LENGTHS]
    return [word for _, word in sorted(nouns, reverse=True)[:count]]


def english_nouns(wordnet: Path) -> list[str]:
    """WordNet's names of animals, artefacts, foods and plants in one or two words; no proper or Latin names."""
    nouns = []
    for line in wordnet.read_text(encoding="latin-1").splitlines():
        fields = line.split(" ")
        if fields[0] and fields[1] in PICTURED_KINDS:  # the licence's lines start with blanks
            words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
            nouns += [word for word in words if word.islower() and word.count(" ") <= 1]
    return list(dict.fromkeys(nouns))


def in_phrases(texts: Sequence[str], known: Sequence[int], count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """`count` random short texts, and the `known` rows twice, in phrases that change little of what a picture must show
    ("一只猫", "photo of a cat"); and the rows that they are of."""
    rng = random.Random(seed)
    short = [row for row, text in enumerate(texts) if len(text) <= LONGEST_IN_PHRASES[_is_chinese(text)]]
    rows = [*rng.choices(short, k=count), *known, *known]
    phrases = [rng.choice(CHINESE_PHRASES if _is_chinese(texts[row]) else ENGLISH_PHRASES) for row in rows]
    return [_with_article(phrase, texts[row]) for phrase, row in zip(phrases, rows, strict=True)], rows


def _with_article(phrase: str, name: str) -> str:
    if phrase.endswith("a {}") and name[0].lower() in "aeiou":
        phrase = phrase.removesuffix("a {}") + "an {}"
    return phrase.format(name)


def _is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def unique(*groups: Iterable[str]) -> list[str]:
    """All texts once, in order."""
    return list(dict.fromkeys(text for group in groups for text in group if text.strip()))

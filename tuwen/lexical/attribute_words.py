"""Words that name an attribute: which colour, material, size or count a text says, and how far two of them agree.

Of the words of `vocabulary.py` the longest counts, so that 红酒杯 and blackboard name no colour; one of a single
character (红沙发) where jieba has it as a word by itself. Knows no product.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from tuwen.lexical.lexicon import Words
from tuwen.lexical.terms import HAN, is_han, jieba
from tuwen.lexical.vocabulary import (
    COLOUR,
    COLOUR_CHARACTERS,
    COUNT,
    DARK,
    LATIN_NUMBERS,
    LATIN_UNITS,
    LIGHT,
    NUMBERS,
    SHADES,
    UNITS,
    Meaning,
    meanings,
)

TOKENS = re.compile(rf"[{HAN}]+|[^\W_{HAN}]+")
COMPOUND = re.compile(rf"([{''.join(SHADES)}]?)([{''.join(COLOUR_CHARACTERS)}]{{1,3}})(色?)")
NO_COLOUR = re.compile("^[红黑紫]米$")  # a brand, and rice
WORDS = re.compile(r"[^\W_]+")
DIGITS = "".join(NUMBERS)
# Not the end of a larger number: 250人, 三百六十五件, 1.5 seat.
COUNTED = re.compile(
    rf"((?<![第百千万{DIGITS}])(?:[{DIGITS}]?十[{DIGITS}]?|[{DIGITS}])|(?<![\d.第])\d{{1,2}})"
    rf"({'|'.join(sorted(UNITS, key=len, reverse=True))})"
    rf"|(?<!\d[.,])\b({'|'.join(LATIN_NUMBERS)}|\d{{1,2}})[- ]"
    rf"({'|'.join(sorted(LATIN_UNITS, key=len, reverse=True))})\b"
)
LATIN_SHADES = {"dark": DARK, "deep": DARK, "light": LIGHT, "pale": LIGHT}
LONGEST_HAN, LONGEST_LATIN = 5, 2  # characters, and words
# Of a red that is asked for: what another colour is that is near to it (橙红), a red of another shade, or of none.
NEAR, OTHER_SHADE, NO_SHADE = 0.5, 0.3, 0.8

Known = Mapping[str, Meaning | None]


class Attribute(NamedTuple):
    """What a word of a text names, and where it stands there."""

    kind: str
    values: tuple[str, ...]
    shade: str
    word: str
    begin: int
    end: int

    def agreement(self, asked: "Attribute") -> float:
        """0 to 1; both are of one kind."""
        if self.values[0] == asked.values[0]:
            share = 1.0
        elif self.values[0] in asked.values or asked.values[0] in self.values:
            share = NEAR
        else:
            return 0.0
        if asked.shade and asked.shade != self.shade:
            share *= OTHER_SHADE if self.shade else NO_SHADE
        return share


def attributes_in(text: str, words: Words) -> list[Attribute]:
    """In the order of the text, which is as `lexical_text` makes it. `words`: the shop's own, where synonyms of what
    names an attribute name it, too."""
    own, latin = words.attributes, []
    found: list[Attribute] = []
    for token in TOKENS.finditer(text):
        if is_han(token[0]):
            found += _of_han(token[0], token.start(), own)
        else:
            latin.append(token)
    found += _of_latin(text, latin, own)
    found += _counts(text)
    return sorted(found, key=lambda each: each.begin)


def may_name(text: str) -> bool:
    """Whether it is worth to look closer."""
    return not _signs()[0].isdisjoint(text) or not _signs()[1].isdisjoint(WORDS.findall(text))


@cache
def _signs() -> tuple[frozenset[str], frozenset[str]]:
    """What a Chinese word begins with, and the English words' beginnings."""
    known = [*meanings(), *NUMBERS, *SHADES]
    latin = (
        {word.split()[0] for word in known if word.isascii()} | {*LATIN_NUMBERS} | {str(each) for each in range(100)}
    )
    return frozenset(word[0] for word in known if not word.isascii()), frozenset(latin)


def _of_han(run: str, offset: int, own: Known) -> Iterator[Attribute]:
    at, alone = 0, _Alone(run)
    while at < len(run):
        shade = SHADES.get(run[at], "") if at + 1 < len(run) else ""
        begin = at + bool(shade)
        word, meaning = _longest(run, begin, own)
        compound = COMPOUND.match(run, at)
        if compound and compound.end() > begin + len(word) and not NO_COLOUR.search(compound[0]):
            if compound[3] or alone.has(compound.span()) or alone.has_each(compound.span(2)):
                yield _colour(compound, offset)
                at = compound.end()
                continue
            if not word:
                at += 1
                continue
        if meaning and (len(word) > 1 or shade or alone.has((begin, begin + 1))):
            yield Attribute(meaning.kind, meaning.values, shade or meaning.shade, run[at : begin + len(word)],
                            offset + at, offset + begin + len(word))  # fmt: skip
        at = begin + len(word) if word else at + 1


def _longest(run: str, at: int, own: Known) -> tuple[str, Meaning | None]:
    known = meanings()
    for length in range(min(LONGEST_HAN, len(run) - at), 0, -1):
        word = run[at : at + length]
        if word in own or word in known:
            return word, own[word] if word in own else known[word]
    return "", None


class _Alone:
    """Which characters of a run are words by themselves; jieba is asked where that matters."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._spans: set[tuple[int, int]] | None = None

    def has(self, span: tuple[int, int]) -> bool:
        if self._spans is None:
            self._spans, at = set(), 0
            for word in jieba().cut(self._run):
                self._spans.add((at, at + len(word)))
                at += len(word)
        return span in self._spans

    def has_each(self, span: tuple[int, int]) -> bool:
        return all(self.has((at, at + 1)) for at in range(*span))


def _colour(compound: re.Match[str], offset: int) -> Attribute:
    """Of 红棕色 the last is meant, and it is near to the first; of 红白 either, the first before the other."""
    colours = [COLOUR_CHARACTERS[character] for character in compound[2]]
    values = tuple(dict.fromkeys(reversed(colours) if compound[3] else colours))
    shade = SHADES.get(compound[1], "")
    return Attribute(COLOUR, values, shade, compound[0], offset + compound.start(), offset + compound.end())


def _of_latin(text: str, tokens: list[re.Match[str]], own: Known) -> Iterator[Attribute]:
    known, at = meanings(), 0
    while at < len(tokens):
        for length in range(min(LONGEST_LATIN, len(tokens) - at), 0, -1):
            begin, end = tokens[at].start(), tokens[at + length - 1].end()
            word = text[begin:end]
            if word in own or word in known:
                meaning = own[word] if word in own else known[word]
                before = tokens[at - 1][0] if at else ""
                shade = LATIN_SHADES.get(before, "")
                if meaning:
                    begin = tokens[at - 1].start() if shade else begin
                    yield Attribute(*meaning[:2], shade or meaning.shade, text[begin:end], begin, end)
                at += length
                break
        else:
            at += 1


def _counts(text: str) -> Iterator[Attribute]:
    for found in COUNTED.finditer(text):
        number, unit = (found[1], UNITS[found[2]]) if found[1] else (found[3], LATIN_UNITS[found[4]])
        yield Attribute(f"{COUNT} {unit}", (str(_number(number)),), "", found[0], *found.span())


def _number(word: str) -> int:
    """Of 十二 and 二十四, too."""
    if len(word) > 1 and "十" in word:
        tens, _, ones = word.partition("十")
        return 10 * NUMBERS.get(tens, 1) + NUMBERS.get(ones, 0)
    return NUMBERS.get(word) or LATIN_NUMBERS.get(word) or int(word)

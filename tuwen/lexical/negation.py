"""What a text does not want: 沙发 不带扶手, 不要红色的沙发, sofa without armrests. By rules, without a model.

What is negated ends with its clause, at 的, or at an English preposition; where nothing would be left to look for
(不要红色沙发) its first word alone is negated. Knows no product.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tuwen.lexical.terms import HAN, jieba

# Not 有没有, 要不要, 是不是, which ask, nor 没有人; nor no. 5 and no 5.
IN_CHINESE = re.compile("(?<![有要是])(?:不想要|不要|不带|不含|不是|没有(?!人)|没带|去掉|除了)")
# One character is a negation where jieba has it as a word by itself: not in 无线, 非洲, 无人机.
SHORT = re.compile("[无非没]")
IN_ENGLISH = re.compile(
    r"(?<![\w'’-])(?:without|excluding|except(?: for)?|no(?!\s*[.\d№])|not|non(?=-))(?:[\s-]+)(?=\w)", re.I
)
CLAUSE = re.compile(r"[^\s,，.。;；!！?？()（）]+")
ENGLISH_CLAUSE = re.compile(r"[^,，.。;；!！?？()（）]+")
ENGLISH_END = re.compile(r"\b(?:but|for|in|with|that|which|from|on|under|please)\b", re.I)
ARTICLES = re.compile(r"^(?:(?:a|an|any|the|of)\s+)+", re.I)
AND = re.compile(r"(?<=.)[、和或与及](?=.)")
ENGLISH_AND = re.compile(r"\s+(?:and|or|nor)\s+|\s*/\s*", re.I)
BESIDES = re.compile("(?:以外|之外|外)$")
LEFT_OVER = re.compile(r"^[\s,，.。;；、的]+|[\s,，.。;；、的]+$")
BLANKS = re.compile(r"\s+")
MOST_PARTS, MOST_WORDS = 5, 4


class Asked(NamedTuple):
    wanted: str
    without: tuple[str, ...]


class _Part(NamedTuple):
    begin: int
    end: int
    without: tuple[str, ...]


def asked_of(text: str) -> Asked:
    """`text` as `normalise_text` makes it. Without a negation it is wanted as it is."""
    if not may_negate(text):
        return Asked(text, ())
    wanted, at, without = "", 0, list[str]()
    for part in _parts(text):
        if part.begin >= at and len(without) < MOST_PARTS:
            wanted, at = f"{wanted}{text[at : part.begin]} ", part.end
            without += part.without
    wanted = _tidy(wanted + text[at:])
    if wanted or not without:
        return Asked(wanted, tuple(dict.fromkeys(without))) if without else Asked(text, ())
    first, rest = _first_word(text)
    return Asked(rest, (first,)) if first and rest else Asked(text, ())


def may_negate(text: str) -> bool:
    return bool(IN_CHINESE.search(text) or SHORT.search(text) or IN_ENGLISH.search(text))


def _parts(text: str) -> Iterator[_Part]:
    found = [_in_chinese(text, each) for each in IN_CHINESE.finditer(text)]
    found += [_in_english(text, each) for each in IN_ENGLISH.finditer(text)]
    if SHORT.search(text):
        found += _short_ones(text)
    yield from sorted((part for part in found if part.without), key=lambda part: part.begin)


def _in_chinese(text: str, negation: re.Match[str]) -> _Part:
    begin = negation.end()
    while begin < len(text) and text[begin].isspace():
        begin += 1
    clause = CLAUSE.match(text, begin)
    if clause is None:
        return _Part(negation.start(), negation.end(), ())
    end = clause.end()
    for another in (IN_CHINESE.search(text, begin, end), IN_ENGLISH.search(text, begin, end)):
        end = min(end, another.start()) if another else end
    without, at = [], begin
    for piece in AND.split(text[begin:end]):
        word, of, _ = piece.partition("的")
        without.append(BESIDES.sub("", word))
        at = text.index(piece, at) + (len(word) + len(of) if of else len(piece))
    return _Part(negation.start(), at, tuple(filter(None, without)))


def _in_english(text: str, negation: re.Match[str]) -> _Part:
    clause = ENGLISH_CLAUSE.match(text, negation.end())
    if clause is None:
        return _Part(negation.start(), negation.end(), ())
    end = clause.end()
    for another in (ENGLISH_END, IN_ENGLISH, IN_CHINESE):
        if found := another.search(text, negation.end(), end):
            end = found.start()
    words = [ARTICLES.sub("", each.strip()) for each in ENGLISH_AND.split(text[negation.end() : end])]
    if any(len(word.split()) > MOST_WORDS for word in words):
        return _Part(negation.start(), negation.end(), ())
    return _Part(negation.start(), end, tuple(filter(None, words)))


def _short_ones(text: str) -> Iterator[_Part]:
    for run in re.finditer(f"[{HAN}]+", text):
        words, at = jieba().cut(run[0]), run.start()
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if SHORT.fullmatch(word) and following and not SHORT.fullmatch(following):
                end = at + len(word) + len(following)
                yield _Part(at, end, (following,) if following != "的" else ())
            at += len(word)


def _first_word(text: str) -> tuple[str, str]:
    """Of what is negated first, and what else there is: of 不要红色沙发 and no leather sofa."""
    negation = IN_CHINESE.match(text) or IN_ENGLISH.match(text)
    if negation is None:
        return "", ""
    rest = text[negation.end() :].lstrip()
    if rest.isascii():
        first, _, others = ARTICLES.sub("", rest).partition(" ")
    else:
        first = next(iter(jieba().cut(rest)), "")
        others = rest[len(first) :]
    return first, _tidy(others)


def _tidy(text: str) -> str:
    return BLANKS.sub(" ", LEFT_OVER.sub("", text))

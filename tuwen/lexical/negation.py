"""What a text does not want: 沙发 不带扶手, 不要红色的沙发, sofa without armrests. By rules, without a model.

What is negated ends with its clause, at 的, or at an English preposition; where nothing would be left to look for
(不要红色沙发) its first word alone is negated. Knows no product.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tuwen.lexical.attribute_words import attributes_in
from tuwen.lexical.lexicon import Words
from tuwen.lexical.terms import HAN, jieba
from tuwen.texts import lexical_text

# Not 有没有, 要不要, 是不是, which ask, nor 没有人; nor no. 5 and no 5, nor non-stick and no-frost, which are words.
IN_CHINESE = re.compile("不想要|(?<!要)不要|不带|不含|(?<!是)不是|(?<!有)没有(?!人)|没带|除了")
# One character is a negation where jieba has it as a word by itself: not in 无线, 非洲, 无人机.
SHORT = re.compile("[无非没]")
IN_ENGLISH = re.compile(r"(?<![\w'’-])(?:without|excluding|except(?: for)?|no(?!\s*[.\d№])|not)\s+(?=\w)", re.I)
CLAUSE = re.compile(r"[^\s,，.。;；!！?？()（）]+")
ENGLISH_CLAUSE = re.compile(r"[^,，.。;；!！?？()（）]+")
ENGLISH_END = re.compile(r"\b(?:but|for|in|with|that|which|from|on|under|please)\b", re.I)
ARTICLES = re.compile(r"^(?:(?:a|an|any|the|of)\s+)+", re.I)
AND = re.compile(r"(?<=.)[、和或与及](?=.)")
ENGLISH_AND = re.compile(r"\s+(?:and|or|nor)\s+|\s*/\s*", re.I)
BESIDES = re.compile("(?:以外|之外|外|也|还|又|且)$")
# 不要红色要蓝色的: what is wanted after all.
BUT = re.compile("要")
LEFT_OVER = re.compile(r"[(（]\s*[)）]|^[\s,，.。;；、的要]+|[\s,，.。;；、的要]+$")
BLANKS = re.compile(r"\s+")
MOST_PARTS = 5


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
    if but := BUT.search(text, begin, end):
        end = but.start()
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
    words, at = [], negation.end()
    for piece in ENGLISH_AND.split(text[negation.end() : end]):
        named = _noun_of(ARTICLES.sub("", piece.strip()))
        words.append(named)
        at = text.index(named, at) + len(named)
    return _Part(negation.start(), at, tuple(filter(None, words)))


def _noun_of(phrase: str) -> str:
    """English has no 的 that ends what is negated: a word, and what names an attribute before it."""
    words = phrase.split()
    for number, word in enumerate(words, start=1):
        if not attributes_in(lexical_text(word), Words()):
            return " ".join(words[:number])
    return phrase


def _short_ones(text: str) -> Iterator[_Part]:
    for run in re.finditer(f"[{HAN}]+", text):
        words, at = jieba().cut(run[0]), run.start()
        for word, following in zip(words, [*words[1:], ""], strict=True):
            is_negated = following and not SHORT.fullmatch(following)
            if SHORT.fullmatch(word) and is_negated and (word != "非" or attributes_in(following, Words())):
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

"""The terms of a query: what is looked up for it, how much each weighs, and which word of the query it stands for."""

import re
from collections.abc import Iterator, Set
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from tuwen.lexical import terms
from tuwen.lexical.lexicon import Words
from tuwen.lexical.terms import PINYIN, TERM_LENGTH, is_han, joined, pairs_of, parts_of, runs_of, sounds_of
from tuwen.texts import lexical_text

WORD, PAIR, SINGLE, PART, SOUND, SYNONYM, CORRECTED = 1.0, 0.4, 0.15, 0.4, 0.5, 0.8, 0.6
MOST_TERMS = 60
SHORT = 4  # characters: of longer ones single characters tell nothing that pairs don't
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
SHORTEST_CORRECTED, LONGEST_CORRECTED = 4, 16
SYLLABLE = re.compile(r"[a-zü]+")
LONGEST_SYLLABLE = 6  # zhuang, chuang, shuang


class QueryTerm(NamedTuple):
    term: str
    weight: float
    impact: float = 1.0
    """Of this term in a title."""
    instead_of: str = ""
    """Another term, which this one may have been meant by: where it is found that one is not missed."""
    joins: tuple[str, ...] = ()
    """The two that this one is, written as one: who has it misses neither, and who has both does not miss it."""


def query_terms(text: str, words: Words) -> list[QueryTerm]:
    """Those that weigh most, each once."""
    return _heaviest(_terms(lexical_text(text), words))[:MOST_TERMS]


def sounds_instead_of(unknown: Set[str], text: str) -> list[QueryTerm]:
    """Of pairs of the query's characters that no product has, what sounds like them: 沙法 as 沙发."""
    runs = [run for run in runs_of(lexical_text(text)) if is_han(run) and not unknown.isdisjoint(pairs_of(run))]
    return _heaviest(
        QueryTerm(sound, SOUND, terms.SOUND, instead_of=pair)
        for run in runs
        for pair, sound in zip(pairs_of(run), sounds_of(run), strict=True)
        if pair in unknown
    )


def _heaviest(found: Iterator[QueryTerm]) -> list[QueryTerm]:
    heaviest: dict[str, QueryTerm] = {}
    for each in found:
        before = heaviest.get(each.term)
        if len(each.term) <= TERM_LENGTH and (before is None or each.weight > before.weight):
            heaviest[each.term] = each
    return sorted(heaviest.values(), key=lambda each: -each.weight)


def _terms(text: str, words: Words) -> Iterator[QueryTerm]:
    runs = runs_of(text)
    for run in runs:
        yield from _of_han(run, words) if is_han(run) else _of_letters(run)
    for first, second in pairwise(runs):  # XR 500A
        if not is_han(first) and not is_han(second):
            yield QueryTerm(joined(first + second), WORD, joins=(joined(first), joined(second)))
    for synonym in _synonyms_in(text, words):
        for run in runs_of(synonym):
            yield from (
                each._replace(weight=each.weight * SYNONYM)
                for each in (_of_han(run, words) if is_han(run) else _of_letters(run))
            )


def _of_han(run: str, words: Words) -> Iterator[QueryTerm]:
    if len(run) == 1:
        yield QueryTerm(run, WORD, terms.SINGLE)
        return
    for word in words.cut(run):
        if len(word) > 1:
            yield QueryTerm(word, WORD)
    yield from (QueryTerm(pair, PAIR) for pair in pairs_of(run))
    if len(run) <= SHORT:
        yield from (QueryTerm(character, SINGLE, terms.SINGLE) for character in run)


def _of_letters(run: str) -> Iterator[QueryTerm]:
    whole = joined(run)
    yield QueryTerm(whole, WORD)
    yield from (QueryTerm(part, PART, terms.PART) for part in parts_of(run) if part != whole)
    syllables = syllables_of(whole)
    for first, second in pairwise(syllables):
        yield QueryTerm(f"{PINYIN}{first}{second}", SOUND, terms.SOUND, instead_of=whole)


def _synonyms_in(text: str, words: Words) -> Iterator[str]:
    for begin in range(len(text) if words.longest else 0):
        for end in range(begin + 1, min(len(text), begin + words.longest) + 1):
            yield from words.synonyms.get(text[begin:end], ())


def corrections_of(word: str) -> list[str]:
    """What it may be with one letter too few, too many, wrong, or two in each other's place (Norvig's edits). Only of
    letters alone: another number is another product."""
    if not (SHORTEST_CORRECTED <= len(word) <= LONGEST_CORRECTED and word.isascii() and word.isalpha()):
        return []
    splits = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    deleted = [a + b[1:] for a, b in splits if b]
    swapped = [a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1]
    replaced = [a + letter + b[1:] for a, b in splits if b for letter in ALPHABET]
    inserted = [a + letter + b for a, b in splits for letter in ALPHABET]
    return [each for each in dict.fromkeys([*deleted, *swapped, *replaced, *inserted]) if each != word]


def syllables_of(word: str) -> list[str]:
    """Of pinyin without tones and blanks, the fewest syllables that it may be; empty for what is none."""
    if not SYLLABLE.fullmatch(word) or len(word) > TERM_LENGTH:
        return []
    known = _syllables()
    best: list[list[str] | None] = [[]] + [None] * len(word)
    for end in range(1, len(word) + 1):
        for begin in range(max(0, end - LONGEST_SYLLABLE), end):
            before = best[begin]
            syllable = word[begin:end]
            if (
                before is not None
                and syllable in known
                and (best[end] is None or len(best[end] or ()) > len(before) + 1)
            ):
                best[end] = [*before, syllable]
    return best[-1] or []


@cache
def _syllables() -> frozenset[str]:
    return frozenset(terms.lazy_pinyin()([chr(code) for code in range(0x4E00, 0x9FA6)]))

"""How much of a query's words a product has, whatever found it: for its relevance, not for its place among the hits.

A word counts by how rare it is; one that no product has counts most, and is missing in all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import unwrap
from typing import NamedTuple, Self, TypeVar

from data_models import Product
from tuwen.lexical.lexicon import Words
from tuwen.lexical.query_terms import CORRECTED, SOUND, QueryTerm
from tuwen.lexical.terms import PINYIN, is_han, joined, parts_of, runs_of, sounds_of, texts_in
from tuwen.texts import lexical_text

Read = TypeVar("Read")

MOST_SPELLINGS = 4  # of a query, with synonyms in the place of its words
KEPT_TEXTS, LONGEST_KEPT = 16_384, 200  # texts, and characters of one


@dataclass
class WordPart:
    """A term of a query, and what may have been meant by it."""

    weight: float = 0.0
    terms: list[str] = field(default_factory=list)
    """Each of which is as good."""
    guesses: list[str] = field(default_factory=list)
    """By which a word may have been meant that no product has."""
    sounds: list[str] = field(default_factory=list)
    """Of which all should be there."""
    of_sounds: float = 0.0
    """What they count where all are."""


class _Text(NamedTuple):
    """As `terms_of_product` would look at it; a title is looked at for many searches."""

    text: str
    words: frozenset[str]
    """Of letters and digits, whole and in parts."""


@dataclass(frozen=True)
class Having:
    """What a product has."""

    texts: Sequence[_Text]

    @classmethod
    def of(cls, product: Product) -> Self:
        texts = (product.title, product.sku or "", product.category or "", *texts_in(product.attributes))
        return cls([_kept(_read, text) for text in texts if text])

    def has(self, term: str) -> bool:
        if term.startswith(PINYIN):
            return any(term in _kept(_sounds_in, each.text) for each in self.texts)
        if is_han(term):
            return any(term in each.text for each in self.texts)
        return any(term in each.words for each in self.texts)


def spellings_of(text: str, words: Words) -> list[str]:
    """And with a synonym of the shop's dictionary in the place of a word: who has either has all of it."""
    text = lexical_text(text)
    found = [text]
    for word, synonyms in words.synonyms.items() if words.longest else ():
        if word in text:
            found += [text.replace(word, synonym) for synonym in synonyms]
        if len(found) >= MOST_SPELLINGS:
            break
    return found[:MOST_SPELLINGS]


def parts_of_query(asked: Sequence[QueryTerm], counts: Mapping[str, int], products: int) -> list[WordPart]:
    """`counts`: how many have a term; `products`: how many there are."""
    parts: dict[str, WordPart] = {}
    for each in asked:
        if each.joins:
            for word in each.joins:
                parts.setdefault(word, WordPart()).terms.append(each.term)
            continue
        part = parts.setdefault(each.instead_of or each.term, WordPart())
        if each.term.startswith(PINYIN):
            part.sounds.append(each.term)
            part.of_sounds = SOUND if is_han(each.instead_of) else 1.0  # shafa is 沙发, and 沙法 may be
        elif each.instead_of:
            part.guesses.append(each.term)
        else:
            part.terms.append(each.term)
        if not each.instead_of:
            part.weight = each.weight * math.log(1 + products / counts.get(each.term, 1))
    return [part for part in parts.values() if part.weight]


def share_of(parts: Sequence[WordPart], having: Having) -> float:
    """From 0 to 1."""
    total = sum(part.weight for part in parts)
    return sum(part.weight * _had(part, having) for part in parts) / total if total else 0.0


def _had(part: WordPart, having: Having) -> float:
    if any(having.has(term) for term in part.terms):
        return 1.0
    if any(having.has(term) for term in part.guesses):
        return CORRECTED
    had = sum(having.has(sound) for sound in part.sounds)
    return part.of_sounds * had / len(part.sounds) if part.sounds else 0.0


def _kept(read: Callable[[str], Read], text: str) -> Read:
    """Of long texts, which are a product's own, nothing is kept: so many of them would fill the memory."""
    return read(text) if len(text) <= LONGEST_KEPT else unwrap(read)(text)


@lru_cache(KEPT_TEXTS)
def _read(text: str) -> _Text:
    text = lexical_text(text)
    words: set[str] = set()
    for run in runs_of(text):
        if not is_han(run):
            words.update((joined(run), *parts_of(run)))
    return _Text(text, frozenset(words))


@lru_cache(KEPT_TEXTS)
def _sounds_in(text: str) -> frozenset[str]:
    return frozenset(sound for run in runs_of(text) if is_han(run) for sound in sounds_of(run))

"""Products by the words of a query: which terms are looked up, what each weighs, and which words a hit has of it."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from data_models import Product, SearchFilters
from tuwen.catalogue.terms import MOST_PRODUCTS, TermCounts, best_products, known_terms
from tuwen.database.engine import Database, Session
from tuwen.lexical.lexicon import Lexicon
from tuwen.lexical.query_terms import (
    CORRECTED,
    SINGLE,
    WORD,
    QueryTerm,
    corrections_of,
    query_terms,
    sounds_instead_of,
)
from tuwen.lexical.terms import PINYIN, SEPARATORS, is_han, joined, pairs_of, runs_of, sounds_of
from tuwen.search.word_shares import Having, WordPart, parts_of_query, share_of, spellings_of
from tuwen.texts import lexical_text

# Products that the terms of one search have together: the rarest terms are taken first, and at least one.
MOST_READ = 6000
# Of words that name attributes, which have a say of their own; chosen on `query_files/attributes_tuning.jsonl`.
BESIDE_KIND = 0.3
KEPT_TITLES = 2_048
MOST_CORRECTED, MOST_CORRECTIONS = 3, 5  # words of a query, each some hundred spellings; and those that are kept


class WordQuery(NamedTuple):
    text: str
    filters: SearchFilters
    limit: int
    """Products at most."""
    shop_id: str | None = None
    """Of which alone anything is found, counted and known; None: of all."""
    as_of: datetime | None = None
    """Without what was created since."""
    kind: str = ""
    """Where it is said, the part of the text that weighs most."""


@dataclass(frozen=True)
class WordHits:
    products: Sequence[tuple[int, float]]
    """Best first, each with how much of the query's words it has, from 0 to 1."""
    words: frozenset[str] = frozenset()
    """By which they were found: terms that tell something by themselves."""


class LexicalSearch:
    """All of it blocks."""

    def __init__(self, database: Database, lexicon: Lexicon) -> None:
        self._database = database
        self._lexicon = lexicon
        self._counts = TermCounts()

    def find_all(self, queries: Sequence[WordQuery]) -> list[WordHits]:
        asked = [query_terms(query.text, self._lexicon.words) for query in queries]
        found: dict[int, WordHits] = {}
        for shop_id in dict.fromkeys(query.shop_id for query in queries):
            with self._database.of_shop(shop_id).read_at_length() as session:
                mine = [number for number, query in enumerate(queries) if query.shop_id == shop_id]
                counts = self._counts.of(session, {each.term for number in mine for each in asked[number]})
                guesses = [self._guesses(session, queries[number].text, asked[number], counts) for number in mine]
                counts |= self._counts.of(session, {each.term for each in chain.from_iterable(guesses)})
                for number, guessed in zip(mine, guesses, strict=True):
                    found[number] = self._found(session, queries[number], [*asked[number], *guessed], counts)
        return [found[number] for number in range(len(queries))]

    def shares(self, database: Database, text: str, products: Sequence[Product]) -> list[float]:
        """Of each product, how much of the text's words it has. Unlike in `WordHits` it is no matter where it has them
        and how long its title is: who has all of them has 1. `database`: of the shop that asks."""
        words = self._lexicon.words
        as_it_stands = replace(words, synonyms={}, longest=0)
        spellings = [query_terms(each, as_it_stands) for each in spellings_of(text, words)]
        with database.read() as session:
            counts = self._counts.of(session, {each.term for asked in spellings for each in asked})
            weighed = [self._weighed(session, text, asked, counts) for asked in spellings]
        having = [Having.of(product) for product in products]
        return [max(share_of(parts, each) for parts in weighed) for each in having]

    def _weighed(
        self, session: Session, text: str, asked: Sequence[QueryTerm], counts: Mapping[str, int]
    ) -> list[WordPart]:
        guesses = self._guesses(session, text, asked, counts)
        return parts_of_query([*asked, *guesses], counts, self._counts.products(session))

    def _found(
        self, session: Session, query: WordQuery, asked: Sequence[QueryTerm], counts: Mapping[str, int]
    ) -> WordHits:
        weights, best = _weights(self._towards_kind(asked, query.kind), counts, self._counts.products(session))
        rarest = {term: weights[term] for term in _rarest(weights, counts)}
        found = best_products(session, rarest, query.filters, query.limit, query.as_of) if rarest else []
        scores = [(product_id, min(1.0, score / best)) for product_id, score in found]
        return WordHits(scores, frozenset(each.term for each in asked if each.weight > SINGLE and each.term in weights))

    def _towards_kind(self, asked: Sequence[QueryTerm], kind: str) -> Sequence[QueryTerm]:
        if not kind:
            return asked
        of_kind = {each.term for each in query_terms(kind, self._lexicon.words)}
        return [each if each.term in of_kind else each._replace(weight=each.weight * BESIDE_KIND) for each in asked]

    def _guesses(
        self, session: Session, text: str, asked: Sequence[QueryTerm], counts: Mapping[str, int]
    ) -> list[QueryTerm]:
        """What may have been meant by terms that no product has."""
        unknown = {each.term for each in asked if each.term not in counts}
        if not unknown:
            return []
        sounds = [each for each in asked if each.instead_of in unknown]
        heard = {each.instead_of for each in sounds} - {each.instead_of for each in sounds if each.term in unknown}
        words = [each for each in asked if each.weight >= WORD and not each.joins]
        meant = _spellings([each.term for each in words if each.term in unknown - heard])
        known = self._counts.of(session, known_terms(session, meant))
        commonest = sorted(known, key=lambda term: (-known[term], term))[:MOST_CORRECTIONS]
        corrected = [QueryTerm(term, CORRECTED, instead_of=meant[term]) for term in commonest]
        return sounds_instead_of(unknown, text) + corrected


def _spellings(unknown: Sequence[str]) -> dict[str, str]:
    """Of words that nobody has, how they may have been meant, each with the word."""
    corrections = {word: each for word in unknown if (each := corrections_of(word))}
    return {term: word for word in list(corrections)[:MOST_CORRECTED] for term in corrections[word]}


def _weights(asked: Sequence[QueryTerm], counts: Mapping[str, int], products: int) -> tuple[dict[str, float], float]:
    """Of the terms that any product has, by how rare they are; and what a product has that has all that was asked for:
    what none has is missing in it, too, unless something else was meant.

    Of a word's corrections a product has one, and none weighs more for being rarer: shaft is not likelier than 沙发.
    """
    guesses = [each for each in asked if each.instead_of and each.term in counts]
    commonest: dict[str, int] = {}
    for each in guesses:
        if not each.term.startswith(PINYIN):
            commonest[each.instead_of] = max(counts[each.term], commonest.get(each.instead_of, 0))
    found_instead = {each.instead_of for each in guesses}
    found_instead |= {word for each in asked if each.term in counts for word in each.joins}
    weights: dict[str, float] = {}
    best, best_of_word = 0.0, dict.fromkeys(commonest, 0.0)
    for each in asked:
        is_known, is_correction = each.term in counts, each.instead_of and not each.term.startswith(PINYIN)
        if not is_known and (each.instead_of or each.joins or each.term in found_instead):
            continue
        count = commonest[each.instead_of] if is_correction else counts.get(each.term, 1)
        weight = each.weight * math.log(1 + products / count)
        if is_known:
            weights[each.term] = weight
        if is_correction:
            best_of_word[each.instead_of] = max(best_of_word[each.instead_of], weight * each.impact)
        elif not each.joins:
            best += weight * each.impact
    return weights, best + sum(best_of_word.values())


def _rarest(weights: Mapping[str, float], counts: Mapping[str, int]) -> list[str]:
    chosen: list[str] = []
    read = 0
    for term in sorted(weights, key=lambda each: counts[each]):
        read += min(counts[term], MOST_PRODUCTS)
        if chosen and read > MOST_READ:
            break
        chosen.append(term)
    return chosen


def matched_words(title: str, terms: Set[str]) -> list[str]:
    """Those of a title that a query has: `WordHits.words`."""
    return list(_words_in(title, terms, has_sounds=any(term.startswith(PINYIN) for term in terms)))


@lru_cache(KEPT_TITLES)
def _runs_in(title: str) -> tuple[str, ...]:
    return tuple(runs_of(lexical_text(title)))


def _words_in(title: str, terms: Set[str], *, has_sounds: bool) -> Iterator[str]:
    for run in _runs_in(title):
        if not is_han(run):
            if joined(run) in terms or run in terms:
                yield run
            else:
                yield from (piece for piece in dict.fromkeys(filter(None, SEPARATORS.split(run))) if piece in terms)
            continue
        marked = [False] * len(run)
        sounds = sounds_of(run) if has_sounds else []
        for at, pair in enumerate(pairs_of(run)):
            if pair in terms or (sounds and sounds[at] in terms):
                marked[at] = marked[at + 1] = True
        if not any(marked):
            marked = [character in terms for character in run]
        yield from _marked(run, marked)


def _marked(run: str, marked: Sequence[bool]) -> Iterator[str]:
    word = ""
    for character, is_marked in zip(run, marked, strict=True):
        if is_marked:
            word += character
        elif word:
            yield word
            word = ""
    if word:
        yield word

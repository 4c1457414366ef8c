"""Several searches for one text, as one: by meaning, by words, and by what pictures show; ranks fused (RRF).

Each leg gives its best, as many whatever the page is, and the order of all of them is one list that pages are cut of.
Behind it comes what is further by meaning.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

from data_models import Product, SearchFilters, Way
from tuwen.catalogue.queries import texts_of
from tuwen.database.engine import Database
from tuwen.lexical.lexicon import Words
from tuwen.search.hits import BoundRows, HitMaker, ProductHit
from tuwen.search.lexical import LexicalSearch, WordHits, WordQuery, matched_words
from tuwen.search.lookup import Lookups
from tuwen.search.nearest import Found, Lookup
from tuwen.search.order import WISHED, Part, Ranked, Showing, order_values
from tuwen.search.turns import Turns
from tuwen.search.wishes import Read, read_all

# Two of Milvus's rows more are asked for (`nearest.py`), and one product that says whether these are all.
LEG_DEPTH = 29
PICTURES_DEPTH = 13  # which weigh least, and cost as much: further ones changed no figure on the files for tuning
FILTERED_LANES = 4
# Reciprocal rank fusion (Cormack and others, SIGIR 2009). The constant and the weights were chosen on
# `evaluation/query_files/tuning.jsonl`; that of words is by how much of the query a product has, to this power.
RRF_CONSTANT = 10
DENSE, PICTURES, WORDS, SHARPNESS = 1.0, 0.1, 4.0, 2.0
WAYS: tuple[Way, ...] = "meaning", "pictures"


@dataclass(frozen=True)
class HybridQuery:
    text: str
    filters: SearchFilters
    lookups: Sequence[Lookup]
    """By meaning first; each with `showing` as the whole search has it."""
    kind: str = ""
    """Of the text, without the words that name attributes, where any does."""


class _Ending(NamedTuple):
    """What is left to do of a search: the products that are shown."""

    lookup: Lookup
    fused: Sequence[Ranked]
    legs: Sequence[Found]
    words: WordHits
    counted: Sequence[int]
    """Where candidates are asked for, products of all ways, the first of each way first."""


class _Reader(NamedTuple):
    shop_id: str | None
    words: Words


class _Grouping(NamedTuple):
    rows: BoundRows
    ranked: Sequence[Ranked]


class HybridSearch:
    """`lanes`: turns of searches that may be under way at once."""

    def __init__(
        self, database: Database, lookups: Lookups, words: LexicalSearch, *, lanes: int, queue_size: int
    ) -> None:
        self._database = database
        self._lookups = lookups
        self._words = Turns("looking-for-words", words.find_all, lanes=lanes, queue_size=queue_size)
        # What filters cost the database is of one search alone, and so is its deadline.
        self._filtered_words = Turns(
            "looking-for-words-within", words.find_all, lanes=FILTERED_LANES, queue_size=queue_size, most=1
        )
        self._endings = Turns("making-hits", self._found_all, lanes=lanes, queue_size=queue_size)
        self._groups = Turns("looking-up-groups", self._grouped_all, lanes=lanes, queue_size=queue_size)
        self._hits = HitMaker(database)

    async def find(self, query: HybridQuery) -> Found:
        """Raises what `Lookups.find` does."""
        [first, *_] = query.lookups
        depth = max(LEG_DEPTH, first.showing.least)
        without = first.without_product_ids
        words = WordQuery(query.text, query.filters, depth + len(without), first.shop_id, first.as_of, query.kind)
        turns = self._words if query.filters == SearchFilters() else self._filtered_words
        legs: list[Found]
        by_words, *legs = await _all_of([turns.begin(words), *map(self._begin_leg, _legs(query.lookups, depth))])
        # Whatever is counted besides, so that pages with facets and without have the same order.
        parts = parts_of(legs, by_words, without, max(LEG_DEPTH, first.showing.lifted))
        of_words = [product_id for product_id, _ in by_words.products if product_id not in without]
        fused = await self._grouped(first, fuse(parts, [*legs[0].candidates, *of_words]))
        counted: list[int] = []
        if first.showing.candidates:
            counted += dict.fromkeys(chain((part.product_id for part in parts), of_words, legs[0].candidates))
        are_all = legs[0].are_all
        while not are_all and first.showing.shown_of(fused) < first.showing.wanted:
            fused, are_all = await self._with_further(first, fused)
        return replace(await self._endings.ask(_Ending(first, fused, legs, by_words, counted)), parts=parts)

    def _begin_leg(self, leg: Lookup) -> asyncio.Future[Found]:
        if leg.vector.size:
            return self._lookups.begin(leg)
        nothing = asyncio.get_running_loop().create_future()
        nothing.set_result(Found([], 0.0, are_all=True))
        return nothing

    async def _with_further(self, lookup: Lookup, fused: list[Ranked]) -> tuple[list[Ranked], bool]:
        """Pages past all legs: what they have is left out of the search by meaning, whose order goes on behind it. And
        whether nothing more is behind that."""
        further = await self._lookups.find(_leg(lookup, 2 * len(fused) + lookup.showing.wanted))
        seen = {each.product_id for each in fused}
        new = [Ranked(product_id, None, 0.0) for product_id in further.candidates if product_id not in seen]
        return fused + await self._grouped(lookup, new), further.are_all or not new

    async def _grouped(self, lookup: Lookup, ranked: list[Ranked]) -> list[Ranked]:
        if not ranked or not (lookup.showing.by_group or lookup.showing.folds):
            return ranked
        return await self._groups.ask(_Grouping(lookup.rows, ranked))

    def _grouped_all(self, groupings: Sequence[_Grouping]) -> list[list[Ranked]]:
        grouped = []
        for rows, ranked in groupings:
            groups = self._hits.groups(rows, [each.product_id for each in ranked])
            pairs = ((each, groups.get(each.product_id, (None, None))) for each in ranked)
            grouped.append([each._replace(group=group, twin_key=twin_key) for each, (group, twin_key) in pairs])
        return grouped

    def _found_all(self, endings: Sequence[_Ending]) -> list[Found]:
        started = time.perf_counter()
        read = self._read(endings)
        ordered = [self._ordered(ending, read.get(_reader(ending))) for ending in endings]
        shown: dict[BoundRows, set[int]] = {}
        for ending, ranked in zip(endings, ordered, strict=True):
            first = [each.product_id for each in ranked[: ending.lookup.showing.wanted]]
            shown.setdefault(ending.lookup.rows, set()).update(first)
        products = {of: self._hits.products(of, sorted(ids)) for of, ids in shown.items()}
        hits = [
            self._made(ending, ranked, products[ending.lookup.rows])
            for ending, ranked in zip(endings, ordered, strict=True)
        ]
        took_ms = (time.perf_counter() - started) * 1000
        return [_as_found(ending, its, took_ms) for ending, its in zip(endings, hits, strict=True)]

    def _read(self, endings: Sequence[_Ending]) -> dict[_Reader | None, Mapping[int, Read]]:
        """What products say, for whom wishes for something of them: those who ask at the same time ask for much the
        same ones."""
        product_ids: dict[_Reader, set[int]] = {}
        for ending in endings:
            if (reader := _reader(ending)) is not None:
                first = (each.product_id for each in ending.fused[:WISHED])
                product_ids.setdefault(reader, set()).update(first)
        read: dict[_Reader | None, Mapping[int, Read]] = {}
        for reader, wanted in product_ids.items():
            with self._database.of_shop(reader.shop_id).read() as session:
                texts = texts_of(session, wanted)
            read[reader] = read_all(texts, reader.words)
        return read

    def _ordered(self, ending: _Ending, read: Mapping[int, Read] | None) -> list[Ranked]:
        lookup, showing, fused = ending.lookup, ending.lookup.showing, ending.fused
        known = [each.product_id for each in fused[: showing.least]]
        values = order_values(self._database.of_shop(lookup.shop_id), showing, known, read)
        return showing.in_order(fused, values)

    def _made(self, ending: _Ending, ordered: Sequence[Ranked], products: Mapping[int, Product]) -> list[ProductHit]:
        """Of these, as many as are wanted. What was deleted since is passed over."""
        wanted, words = ending.lookup.showing.wanted, ending.words.words
        hits: list[ProductHit] = []
        waiting = list(ordered)
        while waiting and len(hits) < wanted:
            some, waiting = waiting[: wanted - len(hits)], waiting[wanted - len(hits) :]
            hits += [
                ProductHit(each.score, product, None, each.boosted_score, matched_words(product.title, words))
                for each in some
                if (product := products.get(each.product_id))
            ]
            if len(hits) < wanted and waiting:
                following = [each.product_id for each in waiting[: wanted - len(hits)]]
                products = self._hits.products(ending.lookup.rows, following)
        return hits


async def _all_of(ways: list[asyncio.Future[Any]]) -> list[Any]:
    """Where one fails the others are given up."""
    try:
        return await asyncio.gather(*ways)
    finally:
        while ways:  # and none of them is held by this frame, which its error holds
            ways.pop().cancel()


def _reader(ending: _Ending) -> _Reader | None:
    """Of what products say; None: nobody asks that."""
    showing = ending.lookup.showing
    if showing.wishes is None or showing.sort is not None:
        return None
    return _Reader(ending.lookup.shop_id, showing.wishes.words)


def _as_found(ending: _Ending, hits: list[ProductHit], took_ms: float) -> Found:
    showing, legs = ending.lookup.showing, ending.legs
    candidates = tuple(ending.counted[: showing.candidates])
    deepest = legs[0] if ending.lookup.vector.size else legs[-1]  # the model of the meaning may be away
    are_all = deepest.are_all and len(ending.counted) <= showing.candidates
    return Found(hits, max(leg.metadata_ms for leg in legs) + took_ms, candidates, are_all)


def _legs(lookups: Sequence[Lookup], depth: int) -> Iterator[Lookup]:
    by_meaning, *by_pictures = lookups
    yield _leg(by_meaning, depth)
    yield from (_leg(each, PICTURES_DEPTH if by_meaning.vector.size else depth) for each in by_pictures)


def _leg(lookup: Lookup, depth: int) -> Lookup:
    return replace(lookup, showing=Showing(wanted=0, candidates=depth))


def fuse(parts: Iterable[Part], further: Iterable[int]) -> list[Ranked]:
    """`further`: products that stand behind those with a part, unless they have one."""
    scores: dict[int, float] = {}
    for part in parts:
        scores[part.product_id] = scores.get(part.product_id, 0.0) + part.score
    ranked = sorted(scores.items(), key=lambda each: (-each[1], each[0]))
    ranked += [(product_id, 0.0) for product_id in dict.fromkeys(further) if product_id not in scores]
    return [Ranked(product_id, None, min(1.0, score)) for product_id, score in ranked]


def parts_of(legs: Sequence[Found], words: WordHits, without: frozenset[int], depth: int) -> list[Part]:
    """`legs`: by meaning, and by pictures if that was asked; of each the first `depth` count, however many are there.
    Scores are shares of what the first of every leg has."""
    weights = (DENSE, PICTURES)[: len(legs)]
    highest = (sum(weights) + WORDS) / (RRF_CONSTANT + 1)
    parts = [
        Part(way, product_id, rank, weight / (RRF_CONSTANT + rank) / highest)
        for way, weight, leg in zip(WAYS, weights, legs, strict=False)
        for rank, product_id in enumerate(leg.candidates[:depth], start=1)
    ]
    found = [each for each in words.products if each[0] not in without][:depth]
    parts += [
        Part("words", product_id, rank, WORDS * share**SHARPNESS / (RRF_CONSTANT + rank) / highest)
        for rank, (product_id, share) in enumerate(found, start=1)
    ]
    return parts

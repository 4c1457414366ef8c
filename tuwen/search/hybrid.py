"""Several searches for one text, as one: by meaning, by words, and by what pictures show; ranks fused (RRF).

Each leg gives its best, as many whatever the page is, and the order of all of them is one list that pages are cut of.
Behind it comes what is further by meaning.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_models import SearchFilters
from tuwen.background import WorkPool
from tuwen.database.engine import Database
from tuwen.search.hits import BoundRows, HitMaker, ProductHit
from tuwen.search.lexical import LexicalSearch, WordHits
from tuwen.search.lookup import Lookups
from tuwen.search.nearest import Found, Lookup
from tuwen.search.order import Ranked, Showing, order_values

# Two of Milvus's rows more are asked for (`nearest.py`), and one product that says whether these are all.
LEG_DEPTH = 61
# Reciprocal rank fusion (Cormack and others, SIGIR 2009). The constant and the weights were chosen on
# `evaluation/query_files/tuning.jsonl`; that of words is by how much of the query a product has, to this power.
RRF_CONSTANT = 10
DENSE, PICTURES, WORDS, SHARPNESS = 1.0, 0.1, 4.0, 2.0


@dataclass(frozen=True)
class HybridQuery:
    text: str
    filters: SearchFilters
    lookups: Sequence[Lookup]
    """By meaning first; each with `showing` as the whole search has it."""


class HybridSearch:
    def __init__(self, database: Database, lookups: Lookups, words: LexicalSearch, threads: WorkPool) -> None:
        self._database = database
        self._lookups = lookups
        self._words = words
        self._threads = threads
        self._hits = HitMaker(database)

    async def find(self, query: HybridQuery) -> Found:
        """Raises what `Lookups.find` does."""
        [first, *_] = query.lookups
        depth = max(LEG_DEPTH, first.showing.candidates)
        legs, words = await asyncio.gather(
            asyncio.gather(*(self._lookups.find(_leg(lookup, depth)) for lookup in query.lookups)),
            self._threads.run(self._words.find, query.text, query.filters, depth, first.shop_id),
        )
        fused = fuse(legs, words, {first.without_product_id})
        if len(fused) < first.showing.wanted and not legs[0].are_all:
            fused = await self._with_further(first, fused)
        return await self._threads.run(self._found, first, fused, legs, words)

    async def _with_further(self, lookup: Lookup, fused: list[Ranked]) -> list[Ranked]:
        """Pages past all legs: what they have is left out of the search by meaning, whose order goes on behind it."""
        further = await self._lookups.find(_leg(lookup, len(fused) + lookup.showing.wanted))
        seen = {each.product_id for each in fused}
        new = [product_id for product_id in further.candidates if product_id not in seen]
        return fused + [Ranked(product_id, None, 0.0) for product_id in new]

    def _found(self, lookup: Lookup, fused: list[Ranked], legs: Sequence[Found], words: WordHits) -> Found:
        started, showing = time.perf_counter(), lookup.showing
        if showing.by_group:
            groups = self._hits.groups(lookup.rows, [each.product_id for each in fused])
            fused = [each._replace(group=groups.get(each.product_id)) for each in fused]
        candidates = tuple(each.product_id for each in fused[: showing.candidates])
        values = order_values(self._database.of_shop(lookup.shop_id), showing, candidates)
        hits = self._made(lookup.rows, showing.in_order(fused, values), showing.wanted, words)
        metadata_ms = max(leg.metadata_ms for leg in legs) + (time.perf_counter() - started) * 1000
        are_all = legs[0].are_all and len(fused) <= showing.candidates
        return Found(hits, metadata_ms, candidates, are_all)

    def _made(self, of: BoundRows, ordered: Sequence[Ranked], wanted: int, words: WordHits) -> list[ProductHit]:
        """What was deleted since is passed over."""
        hits: list[ProductHit] = []
        waiting = list(ordered)
        while waiting and len(hits) < wanted:
            some, waiting = waiting[: wanted - len(hits)], waiting[wanted - len(hits) :]
            products = self._hits.products(of, [each.product_id for each in some])
            titles = {product_id: product.title for product_id, product in products.items()}
            matched = self._words.matched_words(titles, words.terms, of.shop_id) if words.terms else {}
            hits += [
                ProductHit(
                    each.score, products[each.product_id], None, each.boosted_score, matched.get(each.product_id, [])
                )
                for each in some
                if each.product_id in products
            ]
        return hits


def _leg(lookup: Lookup, depth: int) -> Lookup:
    return replace(lookup, showing=Showing(wanted=0, candidates=depth))


def fuse(legs: Sequence[Found], words: WordHits, without: set[int | None]) -> list[Ranked]:
    """`legs`: by meaning, and by pictures if that was asked. Scores are shares of what the first of every leg has."""
    scores: dict[int, float] = {}
    weights = (DENSE, PICTURES)[: len(legs)]
    for weight, leg in zip(weights, legs, strict=True):
        for rank, product_id in enumerate(leg.candidates, start=1):
            scores[product_id] = scores.get(product_id, 0.0) + weight / (RRF_CONSTANT + rank)
    for rank, (product_id, share) in enumerate(words.products, start=1):
        scores[product_id] = scores.get(product_id, 0.0) + WORDS * share**SHARPNESS / (RRF_CONSTANT + rank)
    highest = (sum(weights) + WORDS) / (RRF_CONSTANT + 1)
    ranked = sorted(scores.items(), key=lambda each: (-each[1], each[0]))
    return [
        Ranked(product_id, None, min(1.0, score / highest)) for product_id, score in ranked if product_id not in without
    ]

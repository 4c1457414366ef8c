"""Searches that wait together ask the stores together: one Milvus call for each field and filter, one SELECT for all.

No timer fills a batch: while one is under way the next gathers by itself, and a search that comes alone goes at once.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from data_models import MAX_IMAGES
from tuwen.background import WorkPool
from tuwen.catalogue.prices import FEW, Prices, first_fitting_rows, pages_of_fitting_rows
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import Overloaded, VectorDBUnavailable, VectorsRejected
from tuwen.search.hits import Bound, ProductHit, best_of_each, bound_products
from tuwen.vectors.registry import LiveIndex
from vector_db import MAX_SEARCH_LIMIT, RowKey, VectorDB, VectorField, VectorHit

logger = logging.getLogger(__name__)

MAX_BATCH = 64
# Rows that no product binds (replaced a moment ago, or left by a crash), the product that is left out and pictures of
# one and the same take places in Milvus's answer. Each costs time, and where these few don't do it asks again.
SPARE_HITS = 2
# Where many products fit a range of prices, so many times as many of the nearest are looked at, and again so many;
# after DEEP_LIMIT without enough that fit, all that do are gone through.
WIDER, DEEP_LIMIT = 4, 2048


@dataclass(frozen=True)
class Lookup:
    """The nearest products to a vector, `wanted` of them."""

    index: LiveIndex
    field: VectorField
    vector: Vector
    filter_expression: str
    wanted: int
    without_product_id: int | None
    prices: Prices | None = None
    few_fit: bool = False
    """Of the prices, and then the filter names them."""

    @property
    def growth(self) -> int:
        return WIDER if self.prices is not None and not self.few_fit else 2

    @property
    def first_limit(self) -> int:
        spared = self.wanted + SPARE_HITS
        return min(spared * WIDER, MAX_SEARCH_LIMIT) if self.growth == WIDER else spared


class Found(NamedTuple):
    hits: list[ProductHit]
    """Best first, at most `wanted`."""
    metadata_ms: float
    """Of the whole time, what the database took."""


Outcome = Found | Exception


@dataclass(eq=False)
class _Waiting:
    lookup: Lookup
    future: asyncio.Future[Found] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Lookups:
    """`lanes`: how many batches may be under way at once."""

    def __init__(self, database: Database, vector_db: VectorDB, *, lanes: int, queue_size: int) -> None:
        self._database = database
        self._vector_db = vector_db
        self._threads = WorkPool("searching", threads=lanes, max_waiting=lanes)
        self._queue_size = queue_size
        self._free_lanes = lanes
        self._waiting: deque[_Waiting] = deque()
        self._at_work: set[asyncio.Task[None]] = set()

    async def find(self, lookup: Lookup) -> Found:
        """Raises Overloaded, VectorDBUnavailable, VectorsRejected or DatabaseUnavailable."""
        if len(self._waiting) >= self._queue_size:
            raise Overloaded(f"{len(self._waiting)} searches wait for Milvus already; try again in a second.")
        waiting = _Waiting(lookup)
        self._waiting.append(waiting)
        if self._free_lanes:
            self._free_lanes -= 1
            task = asyncio.create_task(self._work())
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)
        return await waiting.future

    async def _work(self) -> None:
        try:
            while batch := self._next_batch():
                await self._answer(batch)
        finally:
            self._free_lanes += 1

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < MAX_BATCH:
            waiting = self._waiting.popleft()
            if not waiting.future.done():  # whoever hung up meanwhile is not worked for
                batch.append(waiting)
        return batch

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        outcomes: Sequence[Outcome]
        try:
            outcomes = await self._threads.run(self._look_up, [waiting.lookup for waiting in batch])
        except Exception as error:
            outcomes = [error] * len(batch)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.future.done():
                continue
            if isinstance(outcome, Exception):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)

    def _look_up(self, lookups: Sequence[Lookup]) -> list[Outcome]:
        """On a thread. Raises what concerns all of them; what concerns one alone is its outcome."""
        started = time.perf_counter()
        lookups = self._within_prices(lookups)
        metadata_s = time.perf_counter() - started
        outcomes: dict[int, Outcome] = {}
        limits = {number: lookup.first_limit for number, lookup in enumerate(lookups)}
        while limits:
            nearest: dict[int, list[VectorHit]] = {}
            for group in _groups(lookups, limits):
                found = self._nearest([lookups[number] for number in group], max(limits[number] for number in group))
                for number, hits in zip(group, found, strict=True):
                    if isinstance(hits, Exception):
                        outcomes[number] = hits
                        del limits[number]
                    else:
                        nearest[number] = hits[: limits[number]]
            started = time.perf_counter()
            counting = self._counting_hits(lookups, nearest)
            metadata_s += time.perf_counter() - started
            for number, products in counting.items():
                wanted, is_all = lookups[number].wanted, len(nearest[number]) < limits[number]
                if len(products) >= wanted or is_all or limits[number] == MAX_SEARCH_LIMIT:
                    outcomes[number] = Found(products[:wanted], round(metadata_s * 1000, 2))
                    del limits[number]
                elif lookups[number].growth == WIDER and limits[number] >= DEEP_LIMIT:
                    outcomes[number] = self._among_all_that_fit(lookups[number], metadata_s)
                    del limits[number]
                else:  # too many of them were unbound, of other prices, or pictures of one and the same product
                    growth = max(lookups[number].growth, min(wanted // max(len(products), 1) + 1, MAX_IMAGES))
                    limits[number] = min(limits[number] * growth, MAX_SEARCH_LIMIT)
        return [outcomes[number] for number in range(len(lookups))]

    def _within_prices(self, lookups: Sequence[Lookup]) -> list[Lookup]:
        """Those that few products fit name them to Milvus."""
        if not any(lookup.prices for lookup in lookups):
            return list(lookups)
        narrowed = []
        with self._database.read() as session:
            for lookup in lookups:
                if lookup.prices is not None:
                    rows = first_fitting_rows(session, lookup.index.vector_index_id, lookup.prices)
                    narrowed.append(_among(lookup, rows) if len(rows) < FEW else lookup)
                else:
                    narrowed.append(lookup)
        return narrowed

    def _among_all_that_fit(self, lookup: Lookup, metadata_s: float) -> Outcome:
        """The nearest of all are of other prices: what fits is gone through, page by page."""
        assert lookup.prices is not None, "else all of the nearest fit"
        with self._database.read() as session:
            pages = list(pages_of_fitting_rows(session, lookup.index.vector_index_id, lookup.prices))
        best: list[ProductHit] = []
        for page in pages:
            among = _among(lookup, page)
            hits = self._nearest([among], among.first_limit)[0]
            if isinstance(hits, Exception):
                return hits
            best += self._counting_hits([among], {0: hits})[0]
            best = best_of_each(sorted(best, key=lambda hit: (-hit.score, hit.product.milvus_id)))[: lookup.wanted]
        return Found(best, round(metadata_s * 1000, 2))

    def _nearest(
        self, group: Sequence[Lookup], limit: int
    ) -> Sequence[list[VectorHit] | VectorsRejected | VectorDBUnavailable]:
        """One call for a group of one collection, field and filter; where that fails of one, each is tried alone."""
        first = group[0]
        try:
            return self._vector_db.search(
                first.index.collection,
                first.field,
                [lookup.vector for lookup in group],
                limit=limit,
                filter_expression=first.filter_expression,
            )
        except (VectorsRejected, VectorDBUnavailable) as error:
            if len(group) == 1 or not self._is_of_one(error):
                return [error] * len(group)
            return [outcome for lookup in group for outcome in self._nearest([lookup], limit)]

    def _is_of_one(self, error: VectorsRejected | VectorDBUnavailable) -> bool:
        """Whether one search of a batch may be to blame: not if Milvus is away."""
        if isinstance(error, VectorDBUnavailable):
            try:
                self._vector_db.check()
            except VectorDBUnavailable:
                return False
        return True

    def _counting_hits(
        self, lookups: Sequence[Lookup], nearest: Mapping[int, Sequence[VectorHit]]
    ) -> dict[int, list[ProductHit]]:
        """For each lookup those of its hits that are bound, of its prices, and not the product to be left out: each
        product once, by its best row."""
        rows: dict[int, set[RowKey]] = {}
        for number, hits in nearest.items():
            rows.setdefault(lookups[number].index.vector_index_id, set()).update(hit.row for hit in hits)
        bound = bound_products(self._database, rows)
        counting: dict[int, list[ProductHit]] = {}
        for number, hits in nearest.items():
            lookup = lookups[number]
            bound_here = bound[lookup.index.vector_index_id]
            counting[number] = best_of_each(
                bound_here[hit.row].as_hit(hit.score, lookup.field)
                for hit in hits
                if hit.row in bound_here and _fits(lookup, bound_here[hit.row])
            )
        return counting


def _among(lookup: Lookup, rows: Sequence[int]) -> Lookup:
    """`rows`: Milvus ids."""
    expression = " and ".join(filter(None, [f"id in {list(rows)}", lookup.filter_expression]))
    return replace(lookup, filter_expression=expression, few_fit=True)


def _fits(lookup: Lookup, bound: Bound) -> bool:
    product = bound.product
    is_of_prices = lookup.prices is None or lookup.prices.include(product.price)
    return bound.counts_in(lookup.field) and is_of_prices and product.product_id != lookup.without_product_id


def _groups(lookups: Sequence[Lookup], numbers: Iterable[int]) -> list[list[int]]:
    """Of these lookups, those that one call of Milvus answers."""
    groups: dict[tuple[str, VectorField, str], list[int]] = {}
    for number in numbers:
        lookup = lookups[number]
        groups.setdefault((lookup.index.collection, lookup.field, lookup.filter_expression), []).append(number)
    return list(groups.values())

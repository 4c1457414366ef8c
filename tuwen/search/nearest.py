"""The nearest products to vectors, in steps: each is one call of Milvus for all of one field, filter and limit, and one
SELECT. What is short after its step says what to ask for next.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from data_models import MAX_IMAGES
from tuwen.catalogue.prices import FEW, FittingPage, Prices, first_fitting_rows, page_of_fitting_rows
from tuwen.catalogue.queries import group_of
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import VectorDBUnavailable, VectorsRejected
from tuwen.search.hits import Bound, BoundRows, HitMaker, Nearest, ProductHit
from tuwen.search.order import Part, Showing, order_values
from tuwen.vectors.registry import LiveIndex
from vector_db import MAX_SEARCH_LIMIT, RowKey, VectorDB, VectorField, VectorHit

# Rows that no product binds (replaced a moment ago, or left by a crash), the product that is left out and pictures of
# one and the same take places in Milvus's answer. Each costs time, and where these few don't do it asks again.
SPARE_HITS = 2
LEAST_LIMIT = 16
CHEAP_LIMIT = 128
# Where many products fit a range of prices, so many times as many of the nearest are looked at, and again so many;
# after DEEP_LIMIT without enough that fit, all that do are gone through, MOST_PAGES at most.
WIDER, DEEP_LIMIT, MOST_PAGES = 4, 2048, 40
# Steps' costs are counted in hits, as they take Milvus and the database together.
COST_OF_OWN_CALL, NAMED_ROWS_PER_HIT = 200, 5


@dataclass(frozen=True)
class Lookup:
    """The nearest products to a vector, and which of them are shown."""

    index: LiveIndex
    field: VectorField
    vector: Vector
    filter_expression: str
    showing: Showing
    without_product_ids: frozenset[int]
    prices: Prices | None = None
    exact: bool = False
    shop_id: str | None = None
    """Of which alone products are found, as `filter_expression` says, too; None: of all."""
    as_of: datetime | None = None
    """Without what was indexed since."""

    @property
    def rows(self) -> BoundRows:
        has_time = self.as_of is not None
        return BoundRows(self.index.vector_index_id, self.showing.least > 0, self.shop_id, has_time)

    @property
    def is_within_prices(self) -> bool:
        return self.prices is not None

    @property
    def narrow_limit(self) -> int:
        return limit_of(self.showing.needed + SPARE_HITS)

    @property
    def wide_limit(self) -> int:
        return limit_of((self.showing.needed + SPARE_HITS) * WIDER)


@dataclass(frozen=True)
class Found:
    hits: list[ProductHit]
    """Best first, at most `wanted`."""
    metadata_ms: float
    """Of the whole time, what the database took."""
    candidates: tuple[int, ...] = ()
    """Product ids, as many as were to be named."""
    are_all: bool = False
    """Where some were: no others fit."""
    parts: Sequence[Part] = ()
    """Of a search of several ways, what each gave."""


@dataclass(frozen=True)
class Step:
    """What a lookup asks for next."""

    lookup: Lookup
    limit: int
    filter_expression: str
    named: int = 0
    """So many rows, by the filter."""
    names_few: bool = False
    """If the database says that few fit the prices, they are to be named."""
    many_fit: bool = False
    """The database has said so."""
    page: FittingPage | None = None
    """Of all that fit the prices."""
    pages: int = 0
    best: tuple[Nearest, ...] = ()
    """Of the pages before."""
    metadata_ms: float = 0.0

    @classmethod
    def first(cls, lookup: Lookup) -> Self:
        return cls(lookup, lookup.narrow_limit, lookup.filter_expression)

    @property
    def cost(self) -> int:
        is_alone = self.names_few or self.named or self.lookup.exact
        return self.limit + self.named // NAMED_ROWS_PER_HIT + (COST_OF_OWN_CALL if is_alone else 0)

    @property
    def is_cheap(self) -> bool:
        return self.cost <= CHEAP_LIMIT

    def wider(self, found: int) -> Self:
        """Too many of them were unbound, of other prices, pictures of one and the same product, or of one group."""
        least = WIDER if self.lookup.is_within_prices and not self.named else 2
        growth = max(least, min(self.lookup.showing.needed // max(found, 1) + 1, MAX_IMAGES))
        return replace(self, limit=limit_of(self.limit * growth))

    def among(self, rows: Sequence[int]) -> Self:
        """`rows`: Milvus ids."""
        lookup = self.lookup
        expression = " and ".join(filter(None, [f"id in {list(rows)}", lookup.filter_expression]))
        return replace(self, limit=lookup.narrow_limit, filter_expression=expression, named=len(rows), names_few=False)


Outcome = Found | Step | Exception


def limit_of(rows: int) -> int:
    """A power of two. What Milvus finds depends on the limit (HNSW's `ef` follows it), and its price does; so those of
    one limit are asked for together, and it is nobody's matter who waits beside him."""
    return min(max(LEAST_LIMIT, 1 << (rows - 1).bit_length()), MAX_SEARCH_LIMIT)


class NearestProducts:
    """All of it blocks."""

    def __init__(self, database: Database, vector_db: VectorDB) -> None:
        self._database = database
        self._vector_db = vector_db
        self._hits = HitMaker(database)

    def take(self, steps: Sequence[Step]) -> list[Outcome]:
        """Raises what concerns all of them; what concerns one alone is its outcome."""
        steps = [self._narrowed(step) if step.names_few else step for step in steps]
        outcomes: dict[int, Outcome] = {}
        nearest: dict[int, list[VectorHit]] = {}
        for group in _groups(steps):
            found = self._nearest([steps[number] for number in group])
            for number, hits in zip(group, found, strict=True):
                if isinstance(hits, Exception):
                    outcomes[number] = hits
                else:
                    nearest[number] = hits
        started = time.perf_counter()
        answered = {
            number: self._after(steps[number], products, is_all=len(nearest[number]) < steps[number].limit)
            for number, products in self._products(steps, nearest).items()
        }
        took_ms = (time.perf_counter() - started) * 1000
        for number, outcome in answered.items():
            outcomes[number] = replace(outcome, metadata_ms=outcome.metadata_ms + took_ms)
        return [outcomes[number] for number in range(len(steps))]

    def _after(self, step: Step, products: list[Nearest], *, is_all: bool) -> Found | Step:
        """`is_all`: no further row is there, or named."""
        lookup = step.lookup
        if not is_all and not lookup.showing.is_enough(products):
            if lookup.prices is not None and not step.named:
                return self._within_prices(step, lookup.prices, products)
            if step.limit < MAX_SEARCH_LIMIT:
                return step.wider(len(products))
        if step.page is not None and lookup.prices is not None:
            return self._next_page(step, lookup.prices, products)
        return self._found(step, products, are_all=is_all)

    def _within_prices(self, step: Step, prices: Prices, products: list[Nearest]) -> Found | Step:
        """Of the nearest too few fit: more of them are looked at, up to a bound, unless few fit at all."""
        widest = max(step.lookup.wide_limit, DEEP_LIMIT)
        if step.limit >= widest:
            return self._next_page(step, prices, [])
        wider = step.wider(len(products))
        is_rare = len(products) * WIDER < step.lookup.showing.needed
        return replace(wider, limit=min(wider.limit, widest), names_few=is_rare and not step.many_fit)

    def _narrowed(self, step: Step) -> Step:
        assert step.lookup.prices is not None, "else nothing is rare"
        with self._database.of_shop(step.lookup.shop_id).read() as session:
            rows = first_fitting_rows(session, step.lookup.index.vector_index_id, step.lookup.prices)
        return step.among(rows) if len(rows) < FEW else replace(step, names_few=False, many_fit=True)

    def _next_page(self, step: Step, prices: Prices, products: list[Nearest]) -> Found | Step:
        """The nearest of all are of other prices: what fits is gone through."""
        nearest = sorted([*step.best, *products], key=lambda each: (-each.score, each.bound.row.milvus_id))
        best = step.lookup.showing.keep(nearest)
        page = None
        if step.pages < MOST_PAGES:
            with self._database.of_shop(step.lookup.shop_id).read() as session:
                page = page_of_fitting_rows(session, step.lookup.index.vector_index_id, prices, step.page)
        if page is None:
            return self._found(step, best, are_all=step.pages < MOST_PAGES)
        return replace(step.among(page.rows), page=page, pages=step.pages + 1, best=tuple(best))

    def _nearest(self, group: Sequence[Step]) -> Sequence[list[VectorHit] | VectorsRejected | VectorDBUnavailable]:
        """One call for a group; where that fails of one, each is tried alone."""
        first = group[0]
        try:
            return self._vector_db.search(
                first.lookup.index.collection,
                first.lookup.field,
                [step.lookup.vector for step in group],
                limit=first.limit,
                filter_expression=first.filter_expression,
                exact=first.lookup.exact,
            )
        except (VectorsRejected, VectorDBUnavailable) as error:
            if len(group) == 1 or not self._is_of_one(error):
                return [error] * len(group)
            return [outcome for step in group for outcome in self._nearest([step])]

    def _is_of_one(self, error: VectorsRejected | VectorDBUnavailable) -> bool:
        """Whether one search of a batch may be to blame: not if Milvus is away."""
        if isinstance(error, VectorDBUnavailable):
            try:
                self._vector_db.check()
            except VectorDBUnavailable:
                return False
        return True

    def _products(self, steps: Sequence[Step], nearest: Mapping[int, Sequence[VectorHit]]) -> dict[int, list[Nearest]]:
        """For each step those of its hits that are bound, of its prices, and not the product to be left out: each
        product once, by its best row, and no more than it takes."""
        rows: dict[BoundRows, set[RowKey]] = {}
        for number, hits in nearest.items():
            rows.setdefault(steps[number].lookup.rows, set()).update(hit.row for hit in hits)
        bound = self._hits.bound_products(rows)
        products: dict[int, list[Nearest]] = {}
        for number, hits in nearest.items():
            lookup = steps[number].lookup
            counting = self._counting(lookup, hits, bound[lookup.rows])
            products[number] = lookup.showing.keep(counting)
        return products

    def _counting(self, lookup: Lookup, hits: Sequence[VectorHit], bound: Mapping[RowKey, Bound]) -> Iterator[Nearest]:
        as_candidates = lookup.rows.as_candidates
        for hit in hits:
            product = bound.get(hit.row)
            if product is None or not _fits(lookup, product):
                continue
            made = None if as_candidates else self._hits.hit(product, hit.score, lookup.field)
            if made or as_candidates:
                columns = product.columns
                group = group_of(columns.shop_id, columns.group_id)
                yield Nearest(columns.product_id, group, hit.score, product, made, twin_key=columns.twin_id)

    def _found(self, step: Step, products: Sequence[Nearest], *, are_all: bool) -> Found:
        lookup, showing = step.lookup, step.lookup.showing
        candidates = tuple(each.product_id for each in products[: showing.candidates])
        known = tuple(each.product_id for each in products[: showing.least])
        values = order_values(self._database.of_shop(lookup.shop_id), showing, known)
        ordered = showing.in_order(products, values)
        hits = self._hits.hits(lookup.rows, lookup.field, ordered, showing.wanted)
        are_all = are_all and len(products) <= showing.candidates
        return Found(hits, step.metadata_ms, candidates, are_all)


def _fits(lookup: Lookup, bound: Bound) -> bool:
    product = bound.columns
    is_of_prices = lookup.prices is None or lookup.prices.include(product.price)
    if lookup.as_of is not None and product.indexed_at is not None and product.indexed_at > lookup.as_of:
        return False
    return bound.counts_in(lookup.field) and is_of_prices and product.product_id not in lookup.without_product_ids


def _groups(steps: Sequence[Step]) -> list[list[int]]:
    """By number, those that one call of Milvus answers; those who want few first."""
    groups: dict[tuple[int, str, VectorField, str, bool], list[int]] = {}
    for number, step in enumerate(steps):
        lookup = step.lookup
        key = step.limit, lookup.index.collection, lookup.field, step.filter_expression, lookup.exact
        groups.setdefault(key, []).append(number)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]

"""The terms of products in the database: written with the product, made for those without, looked up by searches.

Never commits: the caller's `Database.write()` block is the transaction.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import SearchFilters
from orm_models import ProductRow, ProductTermRow
from tuwen.catalogue.filters import Selection, conditions_of
from tuwen.database.shops import shop_of
from tuwen.lexical.terms import VERSION, terms_of_product

OF_TERMS = frozenset({"title", "sku", "category", "attributes"})
"""What a product's terms are made of."""
# Of one term at most so many products are looked at, the oldest: a search must not read a million that are 红.
MOST_PRODUCTS = 5000
FULL_IMPACT = 100
COUNT_EVERY_S, MOST_KEPT = 10.0, 20_000
MOST_AT_ONCE = 200  # terms of a statement; SQLite takes no more than 500
MOST_COUNTED = 100_000  # products of a shop
_TERM = cast("sa.Table", ProductTermRow.__table__)
_PRODUCT_ID, _SCORE = sa.column("product_id", sa.BigInteger), sa.column("score", sa.Float)


def write_terms(session: orm.Session, products: Sequence[ProductRow], *, are_new: bool = False) -> None:
    """Of products whose rows are locked, or made by this transaction and flushed."""
    if not are_new:
        outdated = ProductTermRow.product_id.in_([row.product_id for row in products])
        session.execute(sa.delete(ProductTermRow).where(outdated).execution_options(synchronize_session=False))
    rows = [
        {"term": term, "shop_id": row.shop_id, "product_id": row.product_id, "impact": impact}
        for row in products
        for term, impact in terms_of_product(row.title, row.sku, row.category, row.attributes).items()
    ]
    if rows:
        # Past the ORM, which would not know that each row has its shop.
        session.connection().execute(sa.insert(_TERM), sorted(rows, key=lambda row: str(row["term"])))
    for row in products:
        row.terms_version = VERSION


def products_without_terms(session: orm.Session, limit: int) -> list[int]:
    """Or with those of another version."""
    outdated = sa.select(ProductRow.product_id).where(ProductRow.terms_version < VERSION)
    return list(session.scalars(outdated.limit(limit)))


def make_terms(session: orm.Session, product_ids: Collection[int]) -> None:
    """Where another did so meanwhile, again: it costs less than a look."""
    statement = sa.select(ProductRow).where(ProductRow.product_id.in_(product_ids)).order_by(ProductRow.product_id)
    if products := session.scalars(statement.with_for_update()).all():
        write_terms(session, products)


def count_products(session: orm.Session, terms: Sequence[str]) -> dict[str, int]:
    """How many have each of these, up to MOST_PRODUCTS; without those that none has."""
    if not terms:
        return {}
    shop_id = shop_of(session)
    asked = _of_shop(shop_id) | {f"t{number}": term for number, term in enumerate(terms)}
    counts = session.connection().execute(_counting(len(terms), of_shop=shop_id is not None), asked)
    return {terms[number]: count for number, count in counts if count}


class TermCounts:
    """How many products of the session's shop have a term, and how many it has, as it was some seconds ago: for what is
    rare and what is not. A term that nobody had is asked for again each time, since the next product may have it."""

    def __init__(self) -> None:
        self._terms: dict[tuple[str | None, str], int] = {}
        self._products: dict[str | None, int] = {}
        self._until = 0.0

    def of(self, session: orm.Session, terms: Collection[str]) -> dict[str, int]:
        """Without what no product has. Several queries ask better together, and share statements."""
        if time.monotonic() >= self._until or len(self._terms) > MOST_KEPT:
            self._terms, self._products = {}, {}
            self._until = time.monotonic() + COUNT_EVERY_S
        shop_id, kept = shop_of(session), self._terms  # which another thread may begin anew meanwhile
        unknown = sorted(term for term in set(terms) if (shop_id, term) not in kept)
        for begin in range(0, len(unknown), MOST_AT_ONCE):
            counts = count_products(session, unknown[begin : begin + MOST_AT_ONCE])
            kept.update({(shop_id, term): count for term, count in counts.items()})
        return {term: kept[shop_id, term] for term in terms if (shop_id, term) in kept}

    def products(self, session: orm.Session) -> int:
        shop_id, kept = shop_of(session), self._products
        if shop_id not in kept:
            kept[shop_id] = max(1, _products_of(session))
        return kept[shop_id]


def known_terms(session: orm.Session, terms: Collection[str]) -> set[str]:
    """Those that any product has."""
    if not terms:
        return set()
    return set(session.scalars(sa.select(ProductTermRow.term).where(ProductTermRow.term.in_(terms)).distinct()))


def best_products(
    session: orm.Session,
    weights: Mapping[str, float],
    filters: SearchFilters,
    limit: int,
    as_of: datetime | None = None,
) -> list[tuple[int, float]]:
    """Products with any of these terms that fit the filters, and their scores: what their terms weigh, by impact.
    `as_of`: without what was created since."""
    shop_id = shop_of(session)
    parameters = _of_shop(shop_id) | {"limit": limit}
    for number, (term, weight) in enumerate(weights.items()):
        parameters |= {f"t{number}": term, f"w{number}": weight / FULL_IMPACT}
    terms, of_shop = len(weights), shop_id is not None
    conditions = conditions_of(Selection(filters=filters), session.get_bind().dialect.name)
    conditions += [ProductRow.created_at <= as_of] if as_of is not None else []
    if not conditions:
        rows: sa.Result[Any] = session.connection().execute(_best(terms, of_shop=of_shop), parameters)
    else:
        found = sa.text(_scoring(terms, of_shop=of_shop)).columns(_PRODUCT_ID, _SCORE).subquery()
        fitting = sa.select(found.c.product_id, found.c.score).where(ProductRow.product_id == found.c.product_id)
        best_first = fitting.where(*conditions).order_by(found.c.score.desc(), found.c.product_id)
        rows = session.execute(best_first.limit(sa.bindparam("limit", type_=sa.Integer)), parameters)
    return [(row.product_id, float(row.score)) for row in rows.all()]


def _products_of(session: orm.Session) -> int:
    """About how many there are: of all shops what the database knows at once, of one no more than tell rare terms."""
    if shop_of(session) is None:
        return session.scalar(sa.select(sa.func.max(ProductRow.product_id))) or 0
    some = sa.select(ProductRow.product_id).limit(MOST_COUNTED).subquery()
    return session.scalar(sa.select(sa.func.count()).select_from(some)) or 0


def _of_shop(shop_id: str | None) -> dict[str, Any]:
    return {} if shop_id is None else {"shop_id": shop_id}


# By hand, and once for each number of terms: to put them together took SQLAlchemy longer than the database to answer.
@cache
def _counting(terms: int, *, of_shop: bool) -> sa.TextClause:
    each = (
        f"SELECT {number}, COUNT(*) FROM (SELECT 1 FROM {_rows_of(number, of_shop=of_shop)}) AS l{number}"
        for number in range(terms)
    )
    return sa.text(" UNION ALL ".join(each))


@cache
def _best(terms: int, *, of_shop: bool) -> sa.TextClause:
    return sa.text(f"{_scoring(terms, of_shop=of_shop)} ORDER BY score DESC, product_id LIMIT :limit")


@cache
def _scoring(terms: int, *, of_shop: bool) -> str:
    each = (
        f"SELECT product_id, impact * :w{number} AS score FROM "
        f"(SELECT product_id, impact FROM {_rows_of(number, of_shop=of_shop)}) AS l{number}"
        for number in range(terms)
    )
    return f"SELECT product_id, SUM(score) AS score FROM ({' UNION ALL '.join(each)}) AS a GROUP BY product_id"


def _rows_of(number: int, *, of_shop: bool) -> str:
    shop = " AND shop_id = :shop_id" if of_shop else ""
    return f"product_term WHERE term = :t{number}{shop} LIMIT {MOST_PRODUCTS}"

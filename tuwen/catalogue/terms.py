"""The terms of products in the database: written with the product, made for those without, looked up by searches.

Never commits: the caller's `Database.write()` block is the transaction.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
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
MOST_COUNTED = 100_000  # products of a shop
_TERM = cast("sa.Table", ProductTermRow.__table__)


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

    def of(self, session: orm.Session, terms: Sequence[str]) -> dict[str, int]:
        if time.monotonic() >= self._until or len(self._terms) > MOST_KEPT:
            self._terms, self._products = {}, {}
            self._until = time.monotonic() + COUNT_EVERY_S
        shop_id, kept = shop_of(session), self._terms
        unknown = [term for term in terms if (shop_id, term) not in kept]
        kept.update({(shop_id, term): count for term, count in count_products(session, unknown).items()})
        return {term: kept[shop_id, term] for term in terms if (shop_id, term) in kept}

    def products(self, session: orm.Session) -> int:
        shop_id, kept = shop_of(session), self._products
        if shop_id not in kept:
            kept[shop_id] = max(1, _products_of(session))
        return kept[shop_id]


def known_terms(session: orm.Session, terms: Collection[str]) -> set[str]:
    """Those that any product has."""
    statement = sa.select(ProductTermRow.term).where(ProductTermRow.term.in_(terms)).distinct()
    return set(session.scalars(statement)) if terms else set()


def best_products(
    session: orm.Session, weights: Mapping[str, float], filters: SearchFilters, limit: int
) -> list[tuple[int, float]]:
    """Products with any of these terms that fit the filters, and their scores: what their terms weigh, by impact."""
    shop_id = shop_of(session)
    parameters = _of_shop(shop_id)
    for number, (term, weight) in enumerate(weights.items()):
        parameters |= {f"t{number}": term, f"w{number}": weight / FULL_IMPACT}
    found = _scoring(len(weights), of_shop=shop_id is not None)
    statement = sa.select(found.c.product_id, found.c.score)
    if conditions := conditions_of(Selection(filters=filters), session.get_bind().dialect.name):
        statement = statement.join(ProductRow, ProductRow.product_id == found.c.product_id).where(*conditions)
    statement = statement.order_by(found.c.score.desc(), found.c.product_id).limit(limit)
    return [(product_id, float(score)) for product_id, score in session.execute(statement, parameters)]


def terms_of_those(session: orm.Session, product_ids: Collection[int], terms: Collection[str]) -> dict[int, set[str]]:
    """Which of these terms each of these products has."""
    found: dict[int, set[str]] = defaultdict(set)
    of_both = ProductTermRow.product_id.in_(product_ids), ProductTermRow.term.in_(terms)
    for product_id, term in session.execute(sa.select(ProductTermRow.product_id, ProductTermRow.term).where(*of_both)):
        found[product_id].add(term)
    return found


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
def _scoring(terms: int, *, of_shop: bool) -> sa.Subquery:
    each = (
        f"SELECT product_id, impact * :w{number} AS score FROM "
        f"(SELECT product_id, impact FROM {_rows_of(number, of_shop=of_shop)}) AS l{number}"
        for number in range(terms)
    )
    statement = f"SELECT product_id, SUM(score) AS score FROM ({' UNION ALL '.join(each)}) AS a GROUP BY product_id"
    return sa.text(statement).columns(sa.column("product_id", sa.BigInteger), sa.column("score", sa.Float)).subquery()


def _rows_of(number: int, *, of_shop: bool) -> str:
    shop = " AND shop_id = :shop_id" if of_shop else ""
    return f"product_term WHERE term = :t{number}{shop} LIMIT {MOST_PRODUCTS}"

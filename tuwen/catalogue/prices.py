"""The price is the database's alone, and no row in Milvus tells it: a nightly feed changes nothing there.

A search within prices asks the database first. The rows of few products are named to Milvus; where many fit, the
nearest of all are looked at, and those of other prices dropped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import ProductRow, ProductVectorRow, comparable

# Their ids are a text that Milvus parses, in 20 ms so many.
FEW = 5000
MOST_PAGES = 40
_OF_PRODUCT = ProductVectorRow.product_id == ProductRow.product_id


@dataclass(frozen=True)
class Prices:
    """Both ends included, within which a product without a price does not fit. `is_set`: whether there has to be one.
    `categories`: of the same search, if any."""

    lowest: Decimal | None
    highest: Decimal | None
    is_set: bool | None = None
    categories: tuple[str, ...] = ()

    def include(self, price: Decimal | None) -> bool:
        if price is None:
            return self.is_set is False and self.lowest is None and self.highest is None
        return (
            self.is_set is not False
            and (self.lowest is None or price >= self.lowest)
            and (self.highest is None or price <= self.highest)
        )


def first_fitting_rows(session: orm.Session, vector_index_id: int, prices: Prices) -> list[int]:
    """Milvus ids of what fits: FEW of them where there are as many, in no order, by which the database finds them at
    once."""
    statement = sa.select(ProductVectorRow.milvus_id).join(ProductRow, _OF_PRODUCT)
    return list(session.scalars(statement.where(*_fitting(vector_index_id, prices)).limit(FEW)))


def pages_of_fitting_rows(session: orm.Session, vector_index_id: int, prices: Prices) -> Iterator[Sequence[int]]:
    """All of them, FEW at a time."""
    key = ProductVectorRow.product_id, ProductVectorRow.image_position
    statement = sa.select(*key, ProductVectorRow.milvus_id).join(ProductRow, _OF_PRODUCT)
    statement = statement.where(*_fitting(vector_index_id, prices)).order_by(*key).limit(FEW)
    after = 0, 0
    for _ in range(MOST_PAGES):
        is_further = key[0] > after[0], sa.and_(key[0] == after[0], key[1] > after[1])
        page = session.execute(statement.where(key[0] >= after[0], sa.or_(*is_further))).all()
        if not page:
            return
        yield [milvus_id for _, _, milvus_id in page]
        after = page[-1].product_id, page[-1].image_position


def _fitting(vector_index_id: int, prices: Prices) -> list[sa.ColumnElement[bool]]:
    # Not by its index: SQLite would begin there, with all that are bound.
    of_index = ProductVectorRow.vector_index_id + 0 == vector_index_id
    conditions = [of_index, ProductRow.price.is_(None) if prices.is_set is False else ProductRow.price.is_not(None)]
    if prices.lowest is not None:
        conditions.append(ProductRow.price >= prices.lowest)
    if prices.highest is not None:
        conditions.append(ProductRow.price <= prices.highest)
    if prices.categories:
        conditions.append(
            ProductRow.category_normalised.in_([comparable("category", each) for each in prices.categories])
        )
    return conditions

"""The price is the database's alone, and no row in Milvus tells it: a nightly feed changes nothing there.

A search within prices looks at the nearest of all first, and drops those of other prices. Where that leaves it short,
the rows of few products are named to Milvus; where many fit, it looks at more of the nearest.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import ProductRow, ProductVectorRow, comparable

# Their ids are a text that Milvus parses, for each search alone: it costs what some 100 hits more would.
FEW = 500
PAGE_ROWS = 5000
_BEFORE_ALL = 0, 0
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


class FittingPage(NamedTuple):
    rows: list[int]
    """Milvus ids."""
    last: tuple[int, int]
    """Where the next page goes on: a product, and the position of its picture."""


def page_of_fitting_rows(
    session: orm.Session, vector_index_id: int, prices: Prices, after: FittingPage | None
) -> FittingPage | None:
    """All that fit, PAGE_ROWS at a time; None past the last."""
    key = ProductVectorRow.product_id, ProductVectorRow.image_position
    product_id, position = after.last if after else _BEFORE_ALL
    is_further = key[0] > product_id, sa.and_(key[0] == product_id, key[1] > position)
    statement = sa.select(*key, ProductVectorRow.milvus_id).join(ProductRow, _OF_PRODUCT)
    statement = statement.where(*_fitting(vector_index_id, prices), key[0] >= product_id, sa.or_(*is_further))
    page = session.execute(statement.order_by(*key).limit(PAGE_ROWS)).all()
    if not page:
        return None
    return FittingPage([milvus_id for _, _, milvus_id in page], (page[-1].product_id, page[-1].image_position))


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

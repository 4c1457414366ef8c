"""What lifts products among those that a search found relevant: a number in their attributes, or how new they are.

Each gives a product from 0 to 1, by a curve without an end: a number its saturation (Craswell et al., "Relevance
weighting for query independent evidence", SIGIR 2005; Elasticsearch's `rank_feature` has it, too), an age exponential
decay. So a boost is bounded by its weight, whatever stands in a product.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import Boost
from orm_models import ProductRow, utc_now
from tuwen.catalogue.attributes import attribute


@dataclass(frozen=True)
class Boosting:
    boosts: Sequence[Boost]
    as_of: datetime
    """Ages count until then."""

    @classmethod
    def by(cls, boosts: Sequence[Boost]) -> Self | None:
        """As of the last full hour, so that the pages of one search are cut from one order."""
        return cls(boosts, utc_now().replace(minute=0, second=0, microsecond=0)) if boosts else None


def lifts(session: orm.Session, product_ids: Sequence[int], boosting: Boosting) -> dict[int, float]:
    """By product, from 0 to the sum of the weights."""
    dialect = session.get_bind().dialect.name
    columns = [
        ProductRow.created_at if boost.attribute is None else attribute(dialect, boost.attribute).number()
        for boost in boosting.boosts
    ]
    numbered: Iterable[sa.ColumnElement[Any]] = (column.label(f"of_{n}") for n, column in enumerate(columns))
    statement = sa.select(ProductRow.product_id, *numbered).where(ProductRow.product_id.in_(product_ids))
    return {
        product_id: sum(
            boost.weight * _signal(boost, value, boosting.as_of)
            for boost, value in zip(boosting.boosts, values, strict=True)
        )
        for product_id, *values in session.execute(statement)
    }


def _signal(boost: Boost, value: Any, as_of: datetime) -> float:
    if boost.freshness_half_life_days is not None:
        half_lives = max(as_of - value, timedelta()) / timedelta(days=1) / boost.freshness_half_life_days
        return float(0.5**half_lives)
    assert boost.pivot is not None, "an attribute has one"
    return 1 / (1 + boost.pivot / value) if value is not None and value > 0 else 0.0

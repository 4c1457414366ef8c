"""How many products have which category, price and attributes: counted by the database, a statement or two a facet."""

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import ATTRIBUTE_FACET, ATTRIBUTE_NAMES_FACET, Facet, FacetRange, FacetValue
from orm_models import ProductRow
from tuwen.catalogue.attribute_names import attribute_names
from tuwen.catalogue.attributes import Condition, Values, attribute, read_value
from tuwen.catalogue.filters import Selection, conditions_of

MAX_FACET_VALUES = 50
KINDS_WITHOUT_VALUE = 3  # array, other, and none
CENT = Decimal("0.01")
# From each to the next: 0, 10, 20, 50, 100 … up to what a price can be.
PRICE_STEPS = [0, *(step * 10**power for power in range(1, 10) for step in (1, 2, 5)), 10**10]


class _Row(NamedTuple):
    kind: str | None
    value: Any
    products: int
    total: int
    """Of all rows, these and those that were left out."""


def count_facets(session: orm.Session, selection: Selection, names: Sequence[str]) -> tuple[int, dict[str, Facet]]:
    """How many products there are, and by name what they have."""
    among = conditions_of(selection, session.get_bind().dialect.name)
    total = session.scalar(sa.select(sa.func.count()).select_from(ProductRow).where(*among)) or 0
    return total, _count(session, among, names)


def count_facets_among(session: orm.Session, product_ids: Collection[int], names: Sequence[str]) -> dict[str, Facet]:
    return _count(session, [ProductRow.product_id.in_(product_ids)], names)


def _count(session: orm.Session, among: Sequence[Condition], names: Sequence[str]) -> dict[str, Facet]:
    count = {"category": _count_categories, "price": _count_prices, ATTRIBUTE_NAMES_FACET: _count_names}
    return {
        name: count[name](session, among)
        if name in count
        else _count_attribute(session, among, name.removeprefix(ATTRIBUTE_FACET))
        for name in dict.fromkeys(names)
    }


def _count_categories(session: orm.Session, among: Sequence[Condition]) -> Facet:
    """As one of them is typed; they are told apart as filters tell them."""
    normalised = ProductRow.category_normalised
    counts = sa.select(normalised.label("value"), sa.func.count().label("products"), _total()).where(*among)
    most = counts.group_by(normalised).order_by(normalised.is_not(None), sa.desc("products"), normalised)
    found = most.limit(MAX_FACET_VALUES + 1).subquery()
    one_of_them = orm.aliased(ProductRow)
    typed = sa.select(one_of_them.category).where(one_of_them.category_normalised == found.c.value).limit(1)
    rows = session.execute(
        sa.select(found.c.value, found.c.products, found.c.total, typed.scalar_subquery().label("typed"))
    ).all()
    missing = sum(row.products for row in rows if row.value is None)
    shown = sorted((row for row in rows if row.value is not None), key=lambda row: (-row.products, row.value))
    values = [FacetValue(value=row.typed, count=row.products) for row in shown[:MAX_FACET_VALUES]]
    return _facet(values, int(rows[0].total) - missing if rows else 0, missing)


def _count_prices(session: orm.Session, among: Sequence[Condition]) -> Facet:
    price = ProductRow.price
    steps = [(price < above, number) for number, above in enumerate(PRICE_STEPS[1:])]
    step = sa.case((price.is_(None), sa.null()), *steps).label("step")
    rows = session.execute(sa.select(step, sa.func.count()).where(*among).group_by(step)).all()
    counts = dict(sorted((number, count) for number, count in rows if number is not None))
    ranges = [
        FacetRange(min=Decimal(PRICE_STEPS[number]), max=PRICE_STEPS[number + 1] - CENT, count=count)
        for number, count in counts.items()
    ]
    return Facet(ranges=ranges, missing=sum(count for number, count in rows if number is None))


def _count_names(session: orm.Session, among: Sequence[Condition]) -> Facet:
    rows = _counted(session, attribute_names(session.get_bind().dialect.name, among))
    missing = sum(row.products for row in rows if row.value is None)
    values = [_as_value(row) for row in rows if row.value is not None]
    return _facet(values[:MAX_FACET_VALUES], rows[0].total - missing if rows else 0, missing)


def _count_attribute(session: orm.Session, among: Sequence[Condition], key: str) -> Facet:
    of_key = attribute(session.get_bind().dialect.name, key)
    rows = _counted(session, of_key.values(among))
    by_kind = {row.kind: row.products for row in rows if row.value is None}
    missing, lists = by_kind.get(None, 0), by_kind.get("array", 0)
    total = (rows[0].total if rows else 0) - missing - lists
    values = [_as_value(row) for row in rows if row.value is not None]
    if lists:
        members = _counted(session, of_key.members(among))
        total += members[0].total if members else 0
        values += [_as_value(row, is_member=True) for row in members if row.value is not None]
    values.sort(key=lambda each: -each.count)  # stable: else as the database has them
    return _facet(values[:MAX_FACET_VALUES], total, missing)


def _counted(session: orm.Session, values: Values) -> list[_Row]:
    """Those without a value first, then the most frequent ones."""
    rows = values.subquery().c
    kind, value, products = rows.kind, rows.value, sa.func.sum(rows.products)
    total = sa.func.sum(products).over().label("total")
    most = sa.select(kind, value, products.label("products"), total).group_by(kind, value)
    ordered = most.order_by(value.is_not(None), products.desc(), kind, value)
    return [
        _Row(row.kind, row.value, int(row.products), int(row.total))
        for row in session.execute(ordered.limit(MAX_FACET_VALUES + KINDS_WITHOUT_VALUE))
    ]


def _total() -> sa.Label[Any]:
    return sa.func.sum(sa.func.count()).over().label("total")


def _as_value(row: _Row, *, is_member: bool = False) -> FacetValue:
    assert row.kind is not None, "what has a value has a kind"
    return FacetValue(value=read_value(row.kind, row.value), count=row.products, is_member=is_member)


def _facet(values: list[FacetValue], total: int, missing: int) -> Facet:
    return Facet(values=values, other=total - sum(each.count for each in values), missing=missing)

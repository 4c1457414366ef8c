"""Which products are meant: what lists, facets and searches take as filters, as conditions in SQL."""

from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa

from data_models import SearchFilters
from orm_models import ProductRow, comparable
from tuwen.catalogue.attributes import Condition, attribute_conditions
from tuwen.texts import canonical_text, words_of

MAX_WORDS = 20  # each of which is looked for in every title


@dataclass(frozen=True)
class Selection:
    """Of the catalogue; all that is said has to fit."""

    category: str | None = None
    index_status: Literal["pending", "indexed", "failed"] | None = None
    words: str | None = None
    """Of the title; or a whole sku or group_id."""
    group_id: str | None = None
    filters: SearchFilters = field(default_factory=SearchFilters)


EVERYTHING = Selection()


def conditions_of(selection: Selection, dialect: str) -> list[Condition]:
    conditions: list[Condition] = []
    if selection.category is not None:
        conditions.append(ProductRow.category_normalised == comparable("category", selection.category))
    if selection.index_status is not None:
        conditions.append(ProductRow.index_status == selection.index_status)
    if selection.words and (words := words_of(selection.words)):
        in_title = (sa.func.instr(ProductRow.title_normalised, word) > 0 for word in words)
        is_group = ProductRow.group_id == canonical_text(selection.words)
        conditions.append(sa.or_(sa.and_(*in_title), has_sku(selection.words), is_group))
    if selection.group_id is not None:
        conditions.append(ProductRow.group_id == selection.group_id)
    return conditions + _filters(selection.filters, dialect)


def has_sku(sku: str) -> Condition:
    return sa.or_(ProductRow.sku_normalised == canonical_text(sku), ProductRow.sku == sku)


def _filters(filters: SearchFilters, dialect: str) -> list[Condition]:
    category, price = ProductRow.category_normalised, ProductRow.price
    conditions: list[Condition] = []
    if filters.category:
        conditions.append(category.in_(_comparable(filters.category)))
    if filters.category_not:
        conditions.append(category.is_(None) | category.not_in(_comparable(filters.category_not)))
    if filters.has_category is not None:
        conditions.append(category.is_not(None) if filters.has_category else category.is_(None))
    if filters.price_min is not None:
        conditions.append(price >= filters.price_min)
    if filters.price_max is not None:
        conditions.append(price <= filters.price_max)
    if filters.has_price is not None:
        conditions.append(price.is_not(None) if filters.has_price else price.is_(None))
    for key, wanted in filters.attributes.items():
        conditions += attribute_conditions(dialect, key, wanted)
    return conditions


def _comparable(categories: list[str]) -> list[str | None]:
    return [comparable("category", each) for each in categories]

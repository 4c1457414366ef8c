"""Which attributes products have: their names, as SQL counts them.

Of a product all names count that its document has, those of null, too.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from orm_models import ProductRow
from tuwen.catalogue.attributes import Condition, Values

PRODUCTS = sa.func.count().label("products")
# SQLAlchemy knows no JSON_TABLE.
NAMES_MYSQL = sa.text("JSON_TABLE(documents.names, '$[*]' COLUMNS (name JSON PATH '$')) AS each_name")


def attribute_names(dialect: str, among: Sequence[Condition]) -> Values:
    """Names as `value`; null for products that have no attributes."""
    return _in_sqlite(among) if dialect == "sqlite" else _in_mysql(among)


def _in_sqlite(among: Sequence[Condition]) -> Values:
    entry = sa.func.json_each(ProductRow.attributes).table_valued("key", "type").alias()
    name = entry.c.key
    counts = sa.select(_kind_of(name), name.label("value"), PRODUCTS)
    return counts.select_from(ProductRow).outerjoin(entry, sa.true()).where(*among).group_by(name)


def _in_mysql(among: Sequence[Condition]) -> Values:
    """There are far fewer different sets of names than products."""
    names = sa.func.json_keys(ProductRow.attributes, type_=sa.String()).label("names")
    documents = sa.select(names, PRODUCTS).where(*among).group_by(names).subquery("documents")
    quoted: sa.ColumnElement[Any] = sa.literal_column("each_name.name")
    name = sa.cast(sa.func.json_unquote(quoted, type_=sa.String()), sa.LargeBinary)
    joined = sa.outerjoin(documents, NAMES_MYSQL, sa.true())
    return sa.select(_kind_of(name), name.label("value"), documents.c.products).select_from(joined)


def _kind_of(name: sa.ColumnElement[Any]) -> sa.Label[Any]:
    return sa.case((name.is_(None), sa.null()), else_="text").label("kind")

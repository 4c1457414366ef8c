"""The products that rows in Milvus stand for: what every search asks the database for."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import MAIN, ProductRow, ProductVectorRow
from tuwen.database.shops import IsOfShop, shop_of
from vector_db import RowKey, VectorField

MAX_IDS_A_STATEMENT = 5000  # SQLite takes 32,766 values in a statement
OF_CANDIDATES = ("product_id", "price", "shop_id", "group_id", "twin_id")
BoundColumns = Literal["all", "of candidates", "of candidates with time"]
_PRODUCT, _BINDING = ProductRow.__table__, ProductVectorRow.__table__


def _bound_to(columns: Iterable[str]) -> sa.Select[*tuple[Any, ...]]:
    named = (sa.inspect(ProductRow).column_attrs[name] for name in columns)
    return (
        sa.select(
            _BINDING.c.milvus_id,
            _BINDING.c.row_token,
            _BINDING.c.image_position,
            _BINDING.c.image_sha256.label("row_image_sha256"),
            *(attribute.columns[0].label(attribute.key) for attribute in named),
        )
        .join_from(_BINDING, _PRODUCT, _PRODUCT.c.id == _BINDING.c.product_id)
        .where(
            _BINDING.c.vector_index_id == sa.bindparam("vector_index_id"),
            _BINDING.c.milvus_id.in_(sa.bindparam("milvus_ids", expanding=True)),
        )
    )


def _with_binding() -> sa.Select[*tuple[Any, ...]]:
    named = sa.inspect(ProductRow).column_attrs
    is_main = sa.and_(
        _BINDING.c.product_id == _PRODUCT.c.id,
        _BINDING.c.vector_index_id == sa.bindparam("vector_index_id"),
        _BINDING.c.image_position == MAIN,
    )
    return (
        sa.select(_BINDING.c.milvus_id, *(attribute.columns[0].label(attribute.key) for attribute in named))
        .select_from(_PRODUCT.outerjoin(_BINDING, is_main))
        .where(_PRODUCT.c.id.in_(sa.bindparam("product_ids", expanding=True)))
    )


# Put together once, and of the tables' columns: the ORM's ways took half of a search's time in the database.
_BOUND_TO: dict[BoundColumns, sa.Select[*tuple[Any, ...]]] = {
    "all": _bound_to(sa.inspect(ProductRow).column_attrs.keys()),
    "of candidates": _bound_to(OF_CANDIDATES),
    "of candidates with time": _bound_to((*OF_CANDIDATES, "indexed_at")),
}
_IS_OF_SHOP = IsOfShop(_PRODUCT.c.shop_id, sa.bindparam("shop_id", type_=sa.String()))
_OF_SHOP_BOUND_TO = {columns: statement.where(_IS_OF_SHOP) for columns, statement in _BOUND_TO.items()}
_PRODUCTS_WITH_BINDING = _with_binding()
_PRODUCTS_OF_SHOP_WITH_BINDING = _PRODUCTS_WITH_BINDING.where(_IS_OF_SHOP)


def products_bound_to(
    session: orm.Session, vector_index_id: int, rows: Collection[RowKey], *, columns: BoundColumns = "all"
) -> dict[RowKey, sa.Row[Any]]:
    """Which of these rows count, and are of the session's shop; and the columns of the products that they stand for, by
    their names: all of them, or `OF_CANDIDATES`, which a thousand rows cost a tenth of.

    And which picture's a row is: `image_position` as it was then, and `row_image_sha256`.
    """
    shop_id = shop_of(session)
    statement = _BOUND_TO[columns]
    of_shop: dict[str, Any] = {}
    if shop_id is not None:
        statement = _OF_SHOP_BOUND_TO[columns]
        of_shop = {"shop_id": shop_id}
    bound: dict[RowKey, sa.Row[Any]] = {}
    remaining = list(rows)
    while remaining:
        some, remaining = remaining[:MAX_IDS_A_STATEMENT], remaining[MAX_IDS_A_STATEMENT:]
        asked = of_shop | {"vector_index_id": vector_index_id, "milvus_ids": [row.milvus_id for row in some]}
        found = session.connection().execute(statement, asked).all()
        bound |= {RowKey(product.milvus_id, product.product_id, product.row_token): product for product in found}
    return {row: bound[row] for row in rows if row in bound}


def products_with_binding(session: orm.Session, vector_index_id: int, product_ids: Sequence[int]) -> list[sa.Row[Any]]:
    """Of the session's shop: columns by their names, and the `milvus_id` of the main row, if one is bound. At most
    MAX_IDS_A_STATEMENT."""
    asked: dict[str, Any] = {"vector_index_id": vector_index_id, "product_ids": product_ids}
    statement, shop_id = _PRODUCTS_WITH_BINDING, shop_of(session)
    if shop_id is not None:
        statement, asked["shop_id"] = _PRODUCTS_OF_SHOP_WITH_BINDING, shop_id
    return list(session.connection().execute(statement, asked).all())


def counts_in(field: VectorField, product: sa.Row[Any]) -> bool:
    """Of a row that is bound, as `products_bound_to` has it: further pictures' have none of the title's vectors."""
    return field == "image_clip_vector" or product.image_position == MAIN

"""Titles, categories and skus as they are compared, beside how they were typed.

Two products may have skus that are one and the same but for how they are typed. Both stay; one of them has no
`sku_normalised`, and is found by its sku as it is typed. New ones are refused.

Revision: 0013, after 0012
"""

import logging

import sqlalchemy as sa
from alembic import op

from migrations.steps import add_column, create_index, drop_column, drop_index, has_index
from orm_models import COMPARABLE, comparable

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

logger = logging.getLogger(__name__)

PAGE = 1000
SKU_LENGTH = 64
SKU_INDEX, CATEGORY_INDEX = "ix_product_sku_normalised", "ix_product_category_normalised"
PRODUCT = sa.table(
    "product",
    *map(sa.column, ("id", "sku", "title", "category", "sku_normalised", "title_normalised", "category_normalised")),
)


def upgrade() -> None:
    add_column("product", sa.Column("sku_normalised", sa.String(SKU_LENGTH), nullable=True))
    add_column("product", sa.Column("title_normalised", sa.String(500), nullable=True))
    add_column("product", sa.Column("category_normalised", sa.String(100), nullable=True))
    if not has_index("product", SKU_INDEX):
        _fill(op.get_bind())
        _leave_one_of_each_sku(op.get_bind())
        create_index(SKU_INDEX, "product", ["sku_normalised"], unique=True)
    create_index(CATEGORY_INDEX, "product", ["category_normalised"])


def downgrade() -> None:
    for index in (CATEGORY_INDEX, SKU_INDEX):
        drop_index(index, "product")
    for column in ("category_normalised", "title_normalised", "sku_normalised"):
        drop_column("product", column)


def _fill(connection: sa.Connection) -> None:
    """Most are typed as they are compared, which one statement can say of all; the others go page by page."""
    table = PRODUCT.c
    connection.execute(
        sa.update(PRODUCT).values(
            sku_normalised=table.sku, title_normalised=sa.func.lower(table.title), category_normalised=table.category
        )
    )
    after = 0
    while rows := connection.execute(
        sa.select(PRODUCT).where(table.id > after).order_by(table.id).limit(PAGE)
    ).fetchall():
        after = rows[-1].id
        typed_otherwise = [each for row in rows if (each := _comparable(row)) != _as_filled(row)]
        if typed_otherwise:
            new = {f"{name}_normalised": sa.bindparam(f"new_{name}", type_=sa.String()) for name in COMPARABLE}
            statement = sa.update(PRODUCT).where(table.id == sa.bindparam("of_id")).values(new)
            connection.execute(statement, typed_otherwise)


def _comparable(row: sa.Row[tuple[object, ...]]) -> dict[str, object]:
    values: dict[str, object] = {f"new_{name}": comparable(name, getattr(row, name)) for name in COMPARABLE}
    if len(str(values["new_sku"])) > SKU_LENGTH:
        values["new_sku"] = None  # it is found as it is typed
    return values | {"of_id": row.id}


def _as_filled(row: sa.Row[tuple[object, ...]]) -> dict[str, object]:
    return {f"new_{name}": getattr(row, f"{name}_normalised") for name in COMPARABLE} | {"of_id": row.id}


def _leave_one_of_each_sku(connection: sa.Connection) -> None:
    """To the one that is typed as it is compared, or else to the oldest."""
    table = PRODUCT.c
    doubles = (
        sa.select(table.sku_normalised)
        .where(table.sku_normalised.is_not(None))
        .group_by(table.sku_normalised)
        .having(sa.func.count() > 1)
        .limit(PAGE)
    )
    while skus := connection.scalars(doubles).all():
        for sku in skus:
            order = (table.sku != table.sku_normalised, table.id)
            owner, *others = connection.execute(
                sa.select(PRODUCT).where(table.sku_normalised == sku).order_by(*order)
            ).fetchall()
            for other in others:
                connection.execute(sa.update(PRODUCT).where(table.id == other.id).values(sku_normalised=None))
                logger.warning(
                    "Products %d and %d have the skus %r and %r, which are one but for how they are typed. Both stay "
                    "as they are; change one of them.",
                    *(owner.id, other.id, owner.sku, other.sku),
                )

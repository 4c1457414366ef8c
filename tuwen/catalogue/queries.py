"""What is asked of the product table. Never commits: the caller's `Database.write()` block is the transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import MAIN, ProductRow, ProductVectorRow
from tuwen.catalogue.filters import EVERYTHING, Selection, conditions_of, has_sku
from tuwen.database.shops import home_shop
from tuwen.texts import canonical_text

Group = tuple[str, str]
"""Shop and group_id: variants of one product."""
ProductTexts: TypeAlias = Mapping[int, tuple[str, Mapping[str, Any]]]
"""By product, its title and its attributes."""
OLDEST_AMONG = 1000  # so that a long backlog costs no more
SORT_COLUMNS = ("product_id", "title", "price", "created_at", "updated_at")


class ProductWithBinding(NamedTuple):
    """A product and the Milvus id that its main picture has bound in one index, if any."""

    product: ProductRow
    milvus_id: int | None


def find_product(session: orm.Session, product_id: int, vector_index_id: int | None) -> ProductWithBinding | None:
    row = session.execute(_select_with_binding(vector_index_id).where(ProductRow.product_id == product_id)).first()
    return ProductWithBinding(*row) if row else None


def list_products(
    session: orm.Session,
    *,
    vector_index_id: int | None,
    page: int,
    page_size: int,
    sort: str,
    selection: Selection = EVERYTHING,
) -> tuple[list[ProductWithBinding], int]:
    """One page and the count of all that match. `sort` is a name of SORT_COLUMNS, descending behind a minus."""
    conditions = conditions_of(selection, session.get_bind().dialect.name)
    column: orm.InstrumentedAttribute[Any] = getattr(ProductRow, sort.removeprefix("-"))
    order = [column.desc() if sort.startswith("-") else column.asc()]
    if column is ProductRow.price:
        order.insert(0, column.is_(None).asc())  # what has no price is neither the cheapest nor the dearest
    rows = session.execute(
        _select_with_binding(vector_index_id)
        .where(*conditions)
        .order_by(*order, ProductRow.product_id)
        .limit(page_size)
        .offset((page - 1) * page_size)
    )
    total = session.scalar(sa.select(sa.func.count()).select_from(ProductRow).where(*conditions)) or 0
    return [ProductWithBinding(*row) for row in rows], total


def sku_owner(session: orm.Session, sku: str, shop_id: str | None = None) -> int | None:
    """Within a shop: the session's, unless one is said. Whoever has it to the letter comes before whoever has it typed
    in another way."""
    order = (ProductRow.sku == sku).desc()
    of_shop = ProductRow.shop_id == (shop_id or home_shop(session))
    return session.scalar(sa.select(ProductRow.product_id).where(has_sku(sku), of_shop).order_by(order).limit(1))


def sku_owners(session: orm.Session, skus: Sequence[str]) -> dict[str, int]:
    """As `sku_owner`, of many; those that nobody has are left out."""
    columns, of_shop = (ProductRow.sku_normalised, ProductRow.product_id), ProductRow.shop_id == home_shop(session)
    normalised = {sku: canonical_text(sku) for sku in skus}
    is_normalised = columns[0].in_(set(normalised.values()))
    of_normalised = dict(session.execute(sa.select(*columns).where(is_normalised, of_shop)).all())
    to_the_letter = sa.select(ProductRow.sku, ProductRow.product_id).where(ProductRow.sku.in_(skus), of_shop)
    owners = {sku: of_normalised[key] for sku, key in normalised.items() if key in of_normalised}
    return owners | {sku: product_id for sku, product_id in session.execute(to_the_letter) if sku is not None}


def sort_values(session: orm.Session, product_ids: Collection[int], sort: str) -> dict[int, Any]:
    """By product, what `sort` orders it by."""
    column: orm.InstrumentedAttribute[Any] = getattr(ProductRow, sort.removeprefix("-"))
    statement = sa.select(ProductRow.product_id, column).where(ProductRow.product_id.in_(product_ids))
    return dict(session.execute(statement).all())


def texts_of(session: orm.Session, product_ids: Collection[int]) -> ProductTexts:
    columns = sa.select(ProductRow.product_id, ProductRow.title, ProductRow.attributes)
    rows = session.execute(columns.where(ProductRow.product_id.in_(product_ids)))
    return {product_id: (title, attributes) for product_id, title, attributes in rows}


def group_of(shop_id: str, group_id: str | None) -> Group | None:
    return (shop_id, group_id) if group_id else None


def groups_of(session: orm.Session, product_ids: Collection[int]) -> dict[int, Group | None]:
    columns = sa.select(ProductRow.product_id, ProductRow.shop_id, ProductRow.group_id)
    rows = session.execute(columns.where(ProductRow.product_id.in_(product_ids)))
    return {product_id: group_of(shop_id, group_id) for product_id, shop_id, group_id in rows}


def groups_and_twins_of(
    session: orm.Session, product_ids: Collection[int]
) -> dict[int, tuple[Group | None, int | None]]:
    columns = sa.select(ProductRow.product_id, ProductRow.shop_id, ProductRow.group_id, ProductRow.twin_id)
    rows = session.execute(columns.where(ProductRow.product_id.in_(product_ids)))
    return {product_id: (group_of(shop_id, group_id), twin_id) for product_id, shop_id, group_id, twin_id in rows}


def group_sizes(session: orm.Session, product_ids: Collection[int]) -> dict[int, int]:
    """By product, how many its group has. Those without one are left out."""
    groups = {product_id: group for product_id, group in groups_of(session, product_ids).items() if group}
    names = {group_id for _, group_id in groups.values()}
    columns = sa.select(ProductRow.shop_id, ProductRow.group_id, sa.func.count())
    counted = columns.where(ProductRow.group_id.in_(names)).group_by(ProductRow.shop_id, ProductRow.group_id)
    sizes = {group_of(shop_id, group_id): size for shop_id, group_id, size in session.execute(counted)}
    return {product_id: sizes[group] for product_id, group in groups.items() if group in sizes}


def load_products(session: orm.Session, product_ids: Iterable[int]) -> list[ProductRow]:
    return list(session.scalars(sa.select(ProductRow).where(ProductRow.product_id.in_(list(product_ids)))))


def lock_products(session: orm.Session, product_ids: Iterable[int]) -> dict[int, int]:
    """Lock those that still exist until the transaction ends; product_id → the version of its content."""
    rows = session.execute(
        sa.select(ProductRow.product_id, ProductRow.content_version)
        .where(ProductRow.product_id.in_(list(product_ids)))
        .order_by(ProductRow.product_id)  # one order for all: two workers can't deadlock
        .with_for_update()
    )
    return dict(rows.all())


def count_pending(session: orm.Session) -> int:
    statement = sa.select(sa.func.count()).select_from(ProductRow).where(ProductRow.index_status == "pending")
    return session.scalar(statement) or 0


def oldest_pending_at(session: orm.Session) -> datetime | None:
    """When the longest waiting product changed; of a large backlog, the longest waiting among those created first."""
    first = sa.select(ProductRow.updated_at).where(ProductRow.index_status == "pending").order_by(ProductRow.product_id)
    oldest: datetime | None = session.scalar(sa.select(sa.func.min(first.limit(OLDEST_AMONG).subquery().c.updated_at)))
    return oldest


def count_by_index_status(session: orm.Session) -> dict[str, int]:
    rows = session.execute(sa.select(ProductRow.index_status, sa.func.count()).group_by(ProductRow.index_status))
    return dict(rows.all())


def _select_with_binding(vector_index_id: int | None) -> sa.Select[ProductRow, int | None]:
    return sa.select(ProductRow, ProductVectorRow.milvus_id).outerjoin(
        ProductVectorRow,
        sa.and_(
            ProductVectorRow.product_id == ProductRow.product_id,
            ProductVectorRow.vector_index_id == (vector_index_id or 0),
            ProductVectorRow.image_position == MAIN,
        ),
    )

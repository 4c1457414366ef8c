"""Which rows in Milvus stand for which product, one for each of its pictures, and with it whether it is indexed.

A hit counts only if the row itself carries the product and the token that are bound here. Never commits: the caller's
`Database.write()` block is the transaction.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import IndexStatus
from orm_models import MAIN, REASON_LENGTH, ProductRow, ProductVectorRow, VectorIndexRow, utc_now
from tuwen.texts import normalise_text
from vector_db import RowKey


class MadeOf(NamedTuple):
    """A row in Milvus, and of what its vectors are; None: not known, or to be made anew."""

    row: RowKey
    image_sha256: str | None
    title_sha256: str | None
    """None, too, for a further picture's row, whose text vectors are not the title's."""


class PictureRow(NamedTuple):
    """A row in Milvus that was made for a picture of a product."""

    row: RowKey
    image_sha256: str


def bound_rows(session: orm.Session, vector_index_id: int, rows: Collection[RowKey]) -> set[RowKey]:
    """Which of these rows count."""
    found = session.execute(
        sa.select(ProductVectorRow.milvus_id, ProductVectorRow.product_id, ProductVectorRow.row_token).where(
            *_has_one_of(vector_index_id, rows)
        )
    )
    return {RowKey(*row) for row in found} & set(rows)


def bound_milvus_ids(session: orm.Session, product_ids: Iterable[int]) -> dict[int, dict[str, list[int]]]:
    """For each product, what it has bound: collection → Milvus ids, of all its pictures."""
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, VectorIndexRow.collection, ProductVectorRow.milvus_id)
        .join(VectorIndexRow, VectorIndexRow.vector_index_id == ProductVectorRow.vector_index_id)
        .where(ProductVectorRow.product_id.in_(list(product_ids)))
    )
    bound: dict[int, dict[str, list[int]]] = {}
    for product_id, collection, milvus_id in rows:
        bound.setdefault(product_id, {}).setdefault(collection, []).append(milvus_id)
    return bound


def bound_milvus_id(session: orm.Session, vector_index_id: int, product_id: int) -> int | None:
    """Its main picture's."""
    return session.scalar(sa.select(ProductVectorRow.milvus_id).where(*_is_main_of(vector_index_id, product_id)))


def indexed_versions(session: orm.Session, vector_index_id: int, product_ids: Iterable[int]) -> dict[int, int]:
    """For each product that is bound in this index, the version of the content that its rows were made of."""
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, ProductVectorRow.version).where(
            ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.product_id.in_(list(product_ids))
        )
    )
    return dict(rows.all())  # one version for all rows of a product, see `ProductVectorRow`


def made_of(session: orm.Session, vector_index_id: int, product_ids: Iterable[int]) -> dict[int, list[MadeOf]]:
    """Of each product that is bound in this index, its rows and what they were made of, at whichever version."""
    columns = ProductVectorRow.milvus_id, ProductVectorRow.row_token, ProductVectorRow.image_sha256
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, *columns, ProductVectorRow.title_sha256).where(
            ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.product_id.in_(list(product_ids))
        )
    )
    made: dict[int, list[MadeOf]] = {}
    for product_id, milvus_id, token, picture, title in rows:
        made.setdefault(product_id, []).append(MadeOf(RowKey(milvus_id, product_id, token), picture, title))
    return made


def row_at_version(session: orm.Session, vector_index_id: int, product_id: int, version: int) -> RowKey | None:
    """The main row of the product as it is now; None where it is still to be indexed."""
    row = session.execute(
        sa.select(ProductVectorRow.milvus_id, ProductVectorRow.product_id, ProductVectorRow.row_token).where(
            *_is_main_of(vector_index_id, product_id), ProductVectorRow.version == version
        )
    ).first()
    return RowKey(*row) if row else None


def bindings_after(session: orm.Session, vector_index_id: int, milvus_id: int, limit: int) -> list[RowKey]:
    """The next bindings of an index in the order of their Milvus ids, as the rows that there should be."""
    rows = session.execute(
        sa.select(ProductVectorRow.milvus_id, ProductVectorRow.product_id, ProductVectorRow.row_token)
        .where(ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.milvus_id > milvus_id)
        .order_by(ProductVectorRow.milvus_id)
        .limit(limit)
    )
    return [RowKey(*row) for row in rows]


def bind_all(
    session: orm.Session,
    products: Sequence[tuple[ProductRow, Sequence[PictureRow]]],
    vector_index_id: int,
    *,
    is_live: bool,
) -> list[int]:
    """Make these rows, the main picture's first, each product's only ones in this index, and in the live one the
    products indexed.

    Returns the ids that they replace.
    """
    product_ids = [product.product_id for product, _ in products]
    mine = ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.product_id.in_(product_ids)
    bindings = {
        (each.product_id, each.image_position): each
        for each in session.scalars(sa.select(ProductVectorRow).where(*mine))
    }
    replaced = [each.milvus_id for each in bindings.values()]
    for product, rows in products:
        title_sha256: str | None = sha256_of(product.title)
        for position, (row, image_sha256) in enumerate(rows, start=MAIN):
            binding = bindings.pop((product.product_id, position), None)
            if binding is None:
                key = {"product_id": product.product_id, "image_position": position}
                session.add(binding := ProductVectorRow(**key, vector_index_id=vector_index_id))
            binding.milvus_id, binding.row_token, binding.version = (
                row.milvus_id,
                row.row_token,
                product.content_version,
            )
            binding.image_sha256, binding.title_sha256 = image_sha256, title_sha256
            title_sha256 = None
    for removed in bindings.values():  # it had more pictures before
        session.delete(removed)
    if is_live and products:
        _set_index_status(session, product_ids, "indexed", None)
    return replaced


def sha256_of(title: str) -> str:
    """Of what is encoded, as `EncodingService` makes it of a title."""
    return hashlib.sha256(normalise_text(title).encode()).hexdigest()


def outdate_bindings(session: orm.Session, product_id: int) -> None:
    """What the product has bound still counts, as made of a version before its first: ingestion makes it all anew."""
    session.execute(
        sa.update(ProductVectorRow)
        .where(ProductVectorRow.product_id == product_id)
        .values(version=0, image_sha256=None, title_sha256=None)
        .execution_options(synchronize_session=False)
    )


def holders_of(session: orm.Session, vector_index_id: int, milvus_ids: Sequence[int]) -> list[int]:
    """The products that have one of these bound."""
    held = ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.milvus_id.in_(milvus_ids)
    return list(session.scalars(sa.select(ProductVectorRow.product_id).where(*held)))


def release_milvus_ids(session: orm.Session, vector_index_id: int, milvus_ids: Sequence[int]) -> list[int]:
    """Milvus has just given out these ids: whoever has one bound has lost its row. Returns the products of those.

    So it is after Milvus was restored from a backup, or lost its last rows on a full disk.
    """
    losers = sorted(set(holders_of(session, vector_index_id, milvus_ids)))
    _lose(session, vector_index_id, milvus_ids, losers)
    return losers


def confirm_indexed(session: orm.Session, vector_index_id: int, product_ids: Sequence[int]) -> int:
    """Products that are bound at their version in the live index are indexed. Returns how many did not say so."""
    is_live = sa.exists().where(VectorIndexRow.vector_index_id == vector_index_id, VectorIndexRow.status == "active")
    is_bound = sa.exists().where(
        ProductVectorRow.product_id == ProductRow.product_id,
        ProductVectorRow.vector_index_id == vector_index_id,
        ProductVectorRow.version == ProductRow.content_version,
    )
    updated: sa.CursorResult[Any] = session.execute(  # type: ignore[assignment]  # an UPDATE's is one
        sa.update(ProductRow)
        .where(ProductRow.product_id.in_(product_ids), ProductRow.index_status != "indexed", is_bound, is_live)
        .values(index_status="indexed", index_error=None, indexed_at=utc_now(), queued_at=None)
        .execution_options(synchronize_session=False)
    )
    return updated.rowcount


def mark_failed(session: orm.Session, product: ProductRow, vector_index_id: int, reason: str) -> list[int]:
    """The product can't be indexed as it is. Its older vectors show something else: they are unbound, in every index,
    and those of this one returned.
    """
    unbound = unbind_product(session, product.product_id, vector_index_id)
    session.execute(
        sa.delete(ProductVectorRow)
        .where(ProductVectorRow.product_id == product.product_id)
        .execution_options(synchronize_session=False)
    )
    _set_index_status(session, [product.product_id], "failed", reason[:REASON_LENGTH])
    return unbound


def unbind_product(session: orm.Session, product_id: int, vector_index_id: int) -> list[int]:
    """Whatever rows it has in this index. Returns their Milvus ids."""
    mine = ProductVectorRow.product_id == product_id, ProductVectorRow.vector_index_id == vector_index_id
    milvus_ids = list(session.scalars(sa.select(ProductVectorRow.milvus_id).where(*mine)))
    session.execute(sa.delete(ProductVectorRow).where(*mine).execution_options(synchronize_session=False))
    return milvus_ids


def has_failed(session: orm.Session, product_id: int, reason: str) -> bool:
    """Whether that is known already."""
    same = ProductRow.index_status == "failed", ProductRow.index_error == reason[:REASON_LENGTH]
    return session.scalar(sa.select(sa.exists().where(ProductRow.product_id == product_id, *same))) or False


def unbind(session: orm.Session, vector_index_id: int, rows: Sequence[RowKey]) -> list[int]:
    """Forget these bindings, as far as they are still the same. Returns the products that lost one."""
    same = bound_rows(session, vector_index_id, rows)
    product_ids = sorted({row.product_id for row in same})
    _lose(session, vector_index_id, [row.milvus_id for row in same], product_ids)
    return product_ids


def _lose(session: orm.Session, vector_index_id: int, milvus_ids: Sequence[int], product_ids: Sequence[int]) -> None:
    """What else these products have bound still counts, but not as all of them; their vectors can be taken over."""
    if not product_ids:
        return
    of_index = ProductVectorRow.vector_index_id == vector_index_id
    for statement in (
        sa.delete(ProductVectorRow).where(of_index, ProductVectorRow.milvus_id.in_(milvus_ids)),
        sa.update(ProductVectorRow).where(of_index, ProductVectorRow.product_id.in_(product_ids)).values(version=0),
    ):
        session.execute(statement.execution_options(synchronize_session=False))


def _is_main_of(vector_index_id: int, product_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        ProductVectorRow.vector_index_id == vector_index_id,
        ProductVectorRow.product_id == product_id,
        ProductVectorRow.image_position == MAIN,
    )


def _has_one_of(vector_index_id: int, rows: Collection[RowKey]) -> tuple[sa.ColumnElement[bool], ...]:
    milvus_ids = [row.milvus_id for row in rows]
    return ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.milvus_id.in_(milvus_ids)


def _set_index_status(session: orm.Session, product_ids: Sequence[int], status: IndexStatus, error: str | None) -> None:
    values: dict[str, Any] = {"index_status": status, "index_error": error}
    if status == "indexed":
        values |= {"indexed_at": utc_now(), "queued_at": None}
    session.execute(
        sa.update(ProductRow)
        .where(ProductRow.product_id.in_(product_ids))
        .values(values)
        .execution_options(synchronize_session=False)
    )

"""Which Milvus id stands for which product, and with it whether the product is indexed.

A Milvus hit counts only if it is bound here. Never commits: the caller's `Database.write()` block is the transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import IndexStatus
from orm_models import REASON_LENGTH, ProductRow, ProductVectorRow, VectorIndexRow, utc_now


def products_bound_to(session: orm.Session, vector_index_id: int, milvus_ids: Sequence[int]) -> dict[int, ProductRow]:
    """Which of these Milvus ids count, and the products that they stand for."""
    rows = session.execute(
        sa.select(ProductVectorRow.milvus_id, ProductRow)
        .join(ProductRow, ProductRow.product_id == ProductVectorRow.product_id)
        .where(ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.milvus_id.in_(milvus_ids))
    )
    return dict(rows.all())


def bound_milvus_ids(session: orm.Session, product_ids: Iterable[int]) -> dict[int, dict[str, list[int]]]:
    """For each product, what it has bound: collection → Milvus ids."""
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, VectorIndexRow.collection, ProductVectorRow.milvus_id)
        .join(VectorIndexRow, VectorIndexRow.vector_index_id == ProductVectorRow.vector_index_id)
        .where(ProductVectorRow.product_id.in_(list(product_ids)))
    )
    bound: dict[int, dict[str, list[int]]] = {}
    for product_id, collection, milvus_id in rows:
        bound.setdefault(product_id, {}).setdefault(collection, []).append(milvus_id)
    return bound


def indexed_versions(session: orm.Session, vector_index_id: int, product_ids: Iterable[int]) -> dict[int, int]:
    """For each product that is bound in this index, the version that its vectors were made of."""
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, ProductVectorRow.version).where(
            ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.product_id.in_(list(product_ids))
        )
    )
    return dict(rows.all())


def bindings_after(session: orm.Session, vector_index_id: int, product_id: int, limit: int) -> dict[int, int]:
    """The next bindings of an index in the order of products: product_id → Milvus id."""
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, ProductVectorRow.milvus_id)
        .where(ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.product_id > product_id)
        .order_by(ProductVectorRow.product_id)
        .limit(limit)
    )
    return dict(rows.all())


def bind_vectors(session: orm.Session, product: ProductRow, vector_index_id: int, milvus_id: int) -> int | None:
    """Make this Milvus id the product's one in this index, and the product indexed. Returns the id that it replaces."""
    binding = session.get(ProductVectorRow, (product.product_id, vector_index_id))
    replaced = binding.milvus_id if binding else None
    if binding is None:
        binding = ProductVectorRow(product_id=product.product_id, vector_index_id=vector_index_id)
        session.add(binding)
    binding.milvus_id, binding.version = milvus_id, product.version
    set_index_status(session, product.product_id, "indexed", None)
    return replaced


def mark_failed(session: orm.Session, product: ProductRow, vector_index_id: int, reason: str) -> list[int]:
    """The product can't be indexed as it is. Its older vectors show something else: they are unbound and returned."""
    binding = session.get(ProductVectorRow, (product.product_id, vector_index_id))
    if binding is not None:
        session.delete(binding)
    set_index_status(session, product.product_id, "failed", reason[:REASON_LENGTH])
    return [binding.milvus_id] if binding else []


def unbind(session: orm.Session, vector_index_id: int, milvus_ids: Sequence[int]) -> None:
    session.execute(
        sa.delete(ProductVectorRow).where(
            ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.milvus_id.in_(milvus_ids)
        )
    )


def set_index_status(session: orm.Session, product_id: int, status: IndexStatus, error: str | None) -> None:
    values: dict[str, Any] = {"index_status": status, "index_error": error}
    if status == "indexed":
        values["indexed_at"] = utc_now()
    session.execute(sa.update(ProductRow).where(ProductRow.product_id == product_id).values(values))

"""What only reconciliation asks of the database.

Never commits: the caller's `Database.write()` block is the transaction.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import GeneratedImageRow, ProductRow, ProductVectorRow
from tuwen.messaging.outbox import add_product_event
from tuwen.vectors.binding import set_index_status


def stale_pending_products(session: orm.Session, changed_before: datetime) -> list[ProductRow]:
    """Pending for so long that their event must have been lost."""
    return list(
        session.scalars(
            sa.select(ProductRow).where(ProductRow.index_status == "pending", ProductRow.updated_at < changed_before)
        )
    )


def requeue_products(session: orm.Session, products: Iterable[ProductRow], topic: str) -> None:
    """Have them indexed again as they are."""
    for product in products:
        set_index_status(session, product.product_id, "pending", None)
        add_product_event(session, topic, product, "upsert")


def requeue_all_products(session: orm.Session, vector_index_id: int, topic: str) -> None:
    """Forget everything that is bound in this index, and have all products indexed again."""
    session.execute(sa.delete(ProductVectorRow).where(ProductVectorRow.vector_index_id == vector_index_id))
    requeue_products(session, session.scalars(sa.select(ProductRow).execution_options(yield_per=1000)), topic)


def image_paths_in_use(session: orm.Session, paths: Sequence[str]) -> set[str]:
    """By products and by the results of generation jobs."""
    columns = (ProductRow.image_path, GeneratedImageRow.image_path)
    return {path for column in columns for path in session.scalars(sa.select(column).where(column.in_(paths)))}

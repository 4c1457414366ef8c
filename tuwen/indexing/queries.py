"""What reconciliation and retries ask of the database: pages of ids, and set-based changes of a page.

Never commits: the caller's `Database.write()` block is the transaction.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import IndexStatus
from orm_models import GeneratedImageRow, OutboxRow, ProductImageRow, ProductRow, UnusedImageRow, utc_now
from tuwen.messaging.outbox import WAITING, add_upsert_events, forget_refused
from tuwen.pictures.store import sha256_in

PICTURE_TABLES = (ProductRow, ProductImageRow, GeneratedImageRow)


def pending_products_after(
    session: orm.Session, product_id: int, changed_before: datetime, queued_before: datetime, limit: int
) -> dict[int, bool]:
    """A page of all that are pending: id → whether since then, and not queued again since that.

    Those that are not due fill the page, too: to pass over them all, one statement would read a whole backlog.
    """
    is_due = sa.and_(
        ProductRow.updated_at < changed_before,
        sa.or_(ProductRow.queued_at.is_(None), ProductRow.queued_at < queued_before),
    )
    statement = sa.select(ProductRow.product_id, is_due).where(
        ProductRow.product_id > product_id, ProductRow.index_status == "pending"
    )
    return dict(session.execute(statement.order_by(ProductRow.product_id).limit(limit)).all())


def without_waiting_message(session: orm.Session, product_ids: Sequence[int], topic: str) -> list[int]:
    """Those of which no message waits in the outbox: what waits there will come, and need not be sent twice."""
    waiting = session.scalars(
        sa.select(OutboxRow.message_key).where(
            OutboxRow.message_key.in_([str(each) for each in product_ids]),
            OutboxRow.topic == topic,
            *WAITING,
        )
    )
    keys = set(waiting)
    return [each for each in product_ids if str(each) not in keys]


def product_versions_after(
    session: orm.Session, product_id: int, limit: int, status: IndexStatus | None = None
) -> dict[int, int]:
    """A page of all products, or of those that have this status: id → version of the content, in the order of the ids.

    What is bound is asked for the page alone: in one statement, MySQL makes a table of all bindings, for each page.
    """
    statement = sa.select(ProductRow.product_id, ProductRow.content_version).where(ProductRow.product_id > product_id)
    if status is not None:
        statement = statement.where(ProductRow.index_status == status)
    return dict(session.execute(statement.order_by(ProductRow.product_id).limit(limit)).all())


def failed_products_after(session: orm.Session, product_id: int, reason_contains: str, limit: int) -> dict[int, bool]:
    """A page of all that failed: id → whether its reason has this in it."""
    reason = sa.func.coalesce(ProductRow.index_error, "")
    statement = sa.select(ProductRow.product_id, reason.contains(reason_contains, autoescape=True)).where(
        ProductRow.product_id > product_id, ProductRow.index_status == "failed"
    )
    return dict(session.execute(statement.order_by(ProductRow.product_id).limit(limit)).all())


def products_with_message_since(
    session: orm.Session, product_ids: Collection[int], topic: str, moment: datetime
) -> set[int]:
    """Those of which a message waits in the outbox, or was published since then and may be under way still."""
    keys = session.scalars(
        sa.select(OutboxRow.message_key).where(
            OutboxRow.message_key.in_([str(each) for each in product_ids]),
            OutboxRow.topic == topic,
            sa.or_(sa.and_(*WAITING), OutboxRow.published_at > moment),
        )
    )
    return {int(key) for key in keys}


def requeue(session: orm.Session, product_ids: Sequence[int], status: IndexStatus, topic: str) -> list[int]:
    """Have those of them that have this status indexed again: pending, each with a new event. Returns which."""
    rows = session.execute(
        sa.select(ProductRow.product_id, ProductRow.content_version)
        .where(ProductRow.product_id.in_(product_ids), ProductRow.index_status == status)
        .order_by(ProductRow.product_id)
        .with_for_update()
    )
    versions = dict(rows.all())
    if versions:
        session.execute(
            sa.update(ProductRow)
            .where(ProductRow.product_id.in_(list(versions)))
            .values(index_status="pending", index_error=None, queued_at=utc_now())
            .execution_options(synchronize_session=False)
        )
        forget_refused(session, topic, [str(each) for each in versions])
        add_upsert_events(session, topic, versions)
    return list(versions)


class PictureOfProduct(NamedTuple):
    image_sha256: str
    product_id: int
    image_path: str
    index_status: IndexStatus


def pictured_products_after(session: orm.Session, sha256: str, product_id: int, limit: int) -> list[PictureOfProduct]:
    """A page of all pictures of products, in the order of their hashes and the products' ids.

    Each table has its next ones found by an index, and the first of both are the page. Those of this very hash have a
    statement of their own: in one with all others, each page would walk all products that share a picture.
    """
    found: list[PictureOfProduct] = []
    for table in (ProductRow, ProductImageRow):
        statement = sa.select(table.image_sha256, table.product_id, table.image_path, ProductRow.index_status)
        if table is ProductImageRow:
            statement = statement.join(ProductRow, ProductRow.product_id == ProductImageRow.product_id)
        of_this = statement.where(table.image_sha256 == sha256, table.product_id > product_id)
        rows = session.execute(of_this.order_by(table.product_id).limit(limit)).all()
        if len(rows) < limit:
            of_others = statement.where(table.image_sha256 > sha256)
            of_others = of_others.order_by(table.image_sha256, table.product_id).limit(limit - len(rows))
            rows = [*rows, *session.execute(of_others)]
        found += [PictureOfProduct(*row) for row in rows]
    return sorted(found)[:limit]


def image_paths_in_use(session: orm.Session, paths: Sequence[str]) -> set[str]:
    """By products, for any of their pictures, and by the results of generation jobs. Looked up by the hashes in the
    paths: those are indexed. Each comes once, though a million products may share one."""
    hashes = {sha256_in(path) for path in paths}
    statements = (
        sa.select(table.image_path).where(table.image_sha256.in_(hashes), table.image_path.in_(paths)).distinct()
        for table in PICTURE_TABLES
    )
    return {path for statement in statements for path in session.scalars(statement)}


def unused_since(session: orm.Session, paths: Sequence[str]) -> dict[str, datetime]:
    """When a sweep found that nothing named them, for those of which one did."""
    statement = sa.select(UnusedImageRow.image_path, UnusedImageRow.since).where(UnusedImageRow.image_path.in_(paths))
    return dict(session.execute(statement).all())


def note_unused(session: orm.Session, paths: Iterable[str], since: datetime) -> None:
    rows = [{"image_path": path, "since": since} for path in sorted(paths)]
    if rows:
        session.execute(sa.insert(UnusedImageRow), rows)


def forget_unused(session: orm.Session, paths: Iterable[str]) -> None:
    session.execute(sa.delete(UnusedImageRow).where(UnusedImageRow.image_path.in_(sorted(paths))))

"""Messages that a transaction promised to send: written beside the change they tell of, sent by the relay.

Never commits: the caller's `Database.write()` block is the transaction.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy import orm

from data_models import ProductEvent
from orm_models import OutboxRow, ProductRow, utc_now


def add_to_outbox(session: orm.Session, topic: str, key: str, message: BaseModel) -> None:
    session.add(OutboxRow(topic=topic, message_key=key, payload=message.model_dump(mode="json")))


def add_product_event(
    session: orm.Session,
    topic: str,
    row: ProductRow,
    op: Literal["upsert", "delete"],
    milvus_ids: dict[str, list[int]] | None = None,
) -> None:
    event = ProductEvent(product_id=row.product_id, op=op, version=row.version, milvus_ids=milvus_ids or {})
    add_to_outbox(session, topic, str(row.product_id), event)


def add_upsert_events(session: orm.Session, topic: str, versions: Mapping[int, int]) -> None:
    """One for each product (id → version), in one statement."""
    events = [ProductEvent(product_id=each, op="upsert", version=version) for each, version in versions.items()]
    rows = [
        {"topic": topic, "message_key": str(event.product_id), "payload": event.model_dump(mode="json")}
        for event in events
    ]
    session.execute(sa.insert(OutboxRow), rows)


def claim_outbox(session: orm.Session, limit: int) -> list[OutboxRow]:
    """The oldest unpublished rows, locked (where the database can) so that no other relay sends them too."""
    return list(
        session.scalars(
            sa.select(OutboxRow)
            .where(OutboxRow.published_at.is_(None))
            .order_by(OutboxRow.outbox_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )


def mark_published(session: orm.Session, outbox_ids: Sequence[int]) -> None:
    session.execute(
        sa.update(OutboxRow)
        .where(OutboxRow.outbox_id.in_(outbox_ids))
        .values(published_at=utc_now(), attempts=OutboxRow.attempts + 1)
    )


def count_failed_attempt(session: orm.Session, outbox_ids: Sequence[int]) -> None:
    session.execute(
        sa.update(OutboxRow).where(OutboxRow.outbox_id.in_(outbox_ids)).values(attempts=OutboxRow.attempts + 1)
    )


def delete_published_before(session: orm.Session, moment: datetime, limit: int) -> int:
    """Some of them, the oldest first; returns how many."""
    old = sa.select(OutboxRow.outbox_id).where(OutboxRow.published_at < moment).order_by(OutboxRow.published_at)
    outbox_ids = list(session.scalars(old.limit(limit)))
    session.execute(sa.delete(OutboxRow).where(OutboxRow.outbox_id.in_(outbox_ids)))
    return len(outbox_ids)


def outbox_backlog(session: orm.Session) -> int:
    statement = sa.select(sa.func.count()).select_from(OutboxRow).where(OutboxRow.published_at.is_(None))
    return session.scalar(statement) or 0

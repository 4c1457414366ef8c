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
from orm_models import REASON_LENGTH, OutboxRow, ProductRow, utc_now
from tuwen.request_ids import current_request_id

# What was refused waits no more, and will never be published.
WAITING = OutboxRow.published_at.is_(None), OutboxRow.refused_at.is_(None)


def add_to_outbox(session: orm.Session, topic: str, key: str, message: BaseModel) -> None:
    session.add(OutboxRow(topic=topic, message_key=key, payload=message.model_dump(mode="json")))


def add_product_event(
    session: orm.Session,
    topic: str,
    row: ProductRow,
    op: Literal["upsert", "delete"],
    milvus_ids: dict[str, list[int]] | None = None,
) -> None:
    event = ProductEvent(
        product_id=row.product_id,
        op=op,
        version=row.content_version,
        milvus_ids=milvus_ids or {},
        request_id=current_request_id(),
    )
    add_to_outbox(session, topic, str(row.product_id), event)


def add_upsert_events(session: orm.Session, topic: str, versions: Mapping[int, int]) -> None:
    """One for each product (id → version), in one statement."""
    request_id = current_request_id()
    events = [
        ProductEvent(product_id=each, op="upsert", version=version, request_id=request_id)
        for each, version in versions.items()
    ]
    rows = [
        {"topic": topic, "message_key": str(event.product_id), "payload": event.model_dump(mode="json")}
        for event in events
    ]
    session.execute(sa.insert(OutboxRow), rows)


def claim_outbox(session: orm.Session, topic: str, limit: int, *, until: datetime) -> list[OutboxRow]:
    """The oldest that wait, for this relay alone until then."""
    is_free = sa.or_(OutboxRow.claimed_until.is_(None), OutboxRow.claimed_until < utc_now())
    rows = list(
        session.scalars(
            sa.select(OutboxRow)
            .where(OutboxRow.topic == topic, *WAITING, is_free)
            .order_by(OutboxRow.outbox_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )
    _update(session, [row.outbox_id for row in rows], claimed_until=until)
    session.expunge_all()  # they are read after the transaction
    return rows


def give_back_claims(session: orm.Session, outbox_ids: Sequence[int]) -> None:
    """They could not be sent."""
    _update(session, outbox_ids, claimed_until=None, attempts=OutboxRow.attempts + 1)


def give_back_all_claims(session: orm.Session, topic: str) -> None:
    """Whoever has claimed them is gone."""
    session.execute(
        sa.update(OutboxRow)
        .where(OutboxRow.topic == topic, OutboxRow.published_at.is_(None), OutboxRow.claimed_until.is_not(None))
        .values(claimed_until=None)
        .execution_options(synchronize_session=False)
    )


def mark_published(session: orm.Session, outbox_ids: Sequence[int]) -> None:
    _update(session, outbox_ids, published_at=utc_now(), claimed_until=None, attempts=OutboxRow.attempts + 1)


def mark_refused(session: orm.Session, outbox_id: int, reason: str) -> None:
    """The transport will never take it: kept to be looked at, and not sent again."""
    refused = {"refused_at": utc_now(), "error": reason[:REASON_LENGTH], "claimed_until": None}
    _update(session, [outbox_id], **refused, attempts=OutboxRow.attempts + 1)


def forget_refused(session: orm.Session, topic: str, keys: Sequence[str]) -> None:
    """What is sent again is not put aside any more."""
    refused = OutboxRow.message_key.in_(keys), OutboxRow.topic == topic, OutboxRow.refused_at.is_not(None)
    outbox_ids = list(session.scalars(sa.select(OutboxRow.outbox_id).where(*refused)))
    if outbox_ids:  # by their ids, so that no lock of a row that a relay has claimed is waited for
        session.execute(sa.delete(OutboxRow).where(OutboxRow.outbox_id.in_(outbox_ids)))


def delete_published_before(session: orm.Session, moment: datetime, limit: int) -> int:
    """Some of them, the oldest first; returns how many."""
    old = sa.select(OutboxRow.outbox_id).where(OutboxRow.published_at < moment).order_by(OutboxRow.published_at)
    return _delete(session, old.limit(limit))


def delete_refused_before(session: orm.Session, moment: datetime, limit: int) -> int:
    """The same: what waits to be indexed is queued again long before, and nobody waits for the others any more."""
    old = sa.select(OutboxRow.outbox_id).where(OutboxRow.published_at.is_(None), OutboxRow.refused_at < moment)
    return _delete(session, old.order_by(OutboxRow.outbox_id).limit(limit))


def _delete(session: orm.Session, old: sa.Select[int]) -> int:
    outbox_ids = list(session.scalars(old))
    session.execute(sa.delete(OutboxRow).where(OutboxRow.outbox_id.in_(outbox_ids)))
    return len(outbox_ids)


def outbox_backlog(session: orm.Session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(OutboxRow).where(*WAITING)) or 0


def oldest_waiting_at(session: orm.Session) -> datetime | None:
    """When the message that waits longest was written."""
    return session.scalar(sa.select(OutboxRow.created_at).where(*WAITING).order_by(OutboxRow.outbox_id).limit(1))


def count_refused(session: orm.Session) -> int:
    refused = OutboxRow.published_at.is_(None), OutboxRow.refused_at.is_not(None)  # the first has an index
    return session.scalar(sa.select(sa.func.count()).select_from(OutboxRow).where(*refused)) or 0


def _update(session: orm.Session, outbox_ids: Sequence[int], **values: object) -> None:
    session.execute(
        sa.update(OutboxRow)
        .where(OutboxRow.outbox_id.in_(outbox_ids))
        .values(values)
        .execution_options(synchronize_session=False)
    )

"""Finds and, if told to, mends where the database and Milvus disagree: one kind of drift a function.

The database is the truth: what it does not bind leaves Milvus, and what it binds and Milvus lacks is indexed again.
Every kind goes page by page in short transactions, safe beside running writers and beside another pass: what it is
about to change it looks at once more, under a lock or by a condition in the statement itself. `picture_drift.py` has
the picture store's kinds, `reconciliation.py` runs them all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Self

from orm_models import utc_now
from tuwen.catalogue.queries import lock_products
from tuwen.database.engine import Database
from tuwen.indexing.queries import (
    pending_products_after,
    product_versions_after,
    products_with_message_since,
    requeue,
    without_waiting_message,
)
from tuwen.pictures.store import ImageStore
from tuwen.settings import Settings
from tuwen.vectors.binding import bindings_after, bound_rows, confirm_indexed, indexed_versions, unbind
from tuwen.vectors.dropping import is_ours_alone
from tuwen.vectors.registry import LiveIndex
from vector_db import RowKey, VectorDB, token_made_at

PAGE = 500


@dataclass(frozen=True)
class Graces:
    """Anything younger may be the work of a process that is in the middle of it."""

    pending: timedelta = timedelta(minutes=10)
    queued_again: timedelta = timedelta(hours=1)  # a long backlog must not grow by itself
    unbound: timedelta = timedelta(minutes=10)  # insert and bind are one database call apart
    image: timedelta = timedelta(hours=1)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        grace = timedelta(seconds=settings.reconcile_grace_s)
        return cls(pending=grace, queued_again=6 * grace, unbound=grace, image=6 * grace)


@dataclass(frozen=True)
class Pass:
    """What every kind of drift works with."""

    settings: Settings
    database: Database
    vector_db: VectorDB
    images: ImageStore
    index: LiveIndex
    graces: Graces = Graces()
    may_delete_many: bool = False
    repair: bool = True
    """Otherwise nothing is changed, anywhere."""


class Step(NamedTuple):
    """A page that is done."""

    after: int
    """Where the next page begins: an id that the kind understands."""
    found: Sequence[int | str]
    """The ids or paths of what disagrees. Where it is mended: of what still did so under the lock."""
    mended: int


Kind = Callable[[Pass, int], Iterator[Step]]


def requeue_forgotten(work: Pass, after: int) -> Iterator[Step]:
    """Pending for so long that their event must have been lost, unless it still waits in the outbox."""
    changed_before, queued_before = utc_now() - work.graces.pending, utc_now() - work.graces.queued_again
    while True:
        with work.database.read() as session:
            page = pending_products_after(session, after, changed_before, queued_before, PAGE)
            due = [product_id for product_id, is_due in page.items() if is_due]
            found = without_waiting_message(session, due, work.settings.kafka_topic) if due else []
        if not page:
            return
        if work.repair and due:
            found = _queue_or_confirm(work, due)
        after = max(page)
        yield Step(after, found, len(found) if work.repair else 0)


def _queue_or_confirm(work: Pass, page: list[int]) -> list[int]:
    """Queued again, or, where it is bound at its version and only does not say so, indexed."""
    with work.database.write() as session:
        lock_products(session, page)  # first and in one order: two who change the same products can't deadlock
        confirm_indexed(session, work.index.vector_index_id, page)
        forgotten = without_waiting_message(session, page, work.settings.kafka_topic)
        requeue(session, forgotten, "pending", work.settings.kafka_topic)
    return forgotten


def requeue_unbound(work: Pass, after: int) -> Iterator[Step]:
    """Products that say they are indexed, and have nothing of their version bound.

    A lost collection's, a crash's in a rebuild, or what changed while another index was live. After a change of the
    models, products that the former ones failed on may be bound: those are confirmed.
    """
    if work.repair:
        _confirm_those_that_failed_before(work)
    while True:
        with work.database.read() as session:
            page = product_versions_after(session, after, PAGE, "indexed")
            bound = indexed_versions(session, work.index.vector_index_id, page)
        if not page:
            return
        found = [product_id for product_id, version in page.items() if bound.get(product_id) != version]
        if work.repair and found:
            with work.database.write() as session:
                found = requeue(session, found, "indexed", work.settings.kafka_topic)
        after = max(page)
        yield Step(after, found, len(found) if work.repair else 0)


def _confirm_those_that_failed_before(work: Pass) -> None:
    after, vector_index_id = 0, work.index.vector_index_id
    while True:
        with work.database.read() as session:
            page = product_versions_after(session, after, PAGE, "failed")
            bound = indexed_versions(session, vector_index_id, page)
        if not page:
            return
        to_confirm = [product_id for product_id, version in page.items() if bound.get(product_id) == version]
        if to_confirm:
            with work.database.write() as session:
                lock_products(session, to_confirm)
                confirm_indexed(session, vector_index_id, to_confirm)  # unless another index is live by now
        after = max(page)


def rebind_lost(work: Pass, after: int) -> Iterator[Step]:
    """Bindings whose row is gone from Milvus, or is another product's by now."""
    collection, vector_index_id = work.index.collection, work.index.vector_index_id
    while True:
        with work.database.read() as session:
            page = bindings_after(session, vector_index_id, after, PAGE)
        if not page:
            return
        lost = set(page) - work.vector_db.existing_rows(collection, [row.milvus_id for row in page])
        if lost:  # under the default consistency a new row may not be seen yet: look again, at everything
            lost -= work.vector_db.existing_rows(collection, [row.milvus_id for row in lost], strong=True)
        found = _unbind_and_requeue(work, sorted(lost, key=lambda row: row.product_id))
        after = page[-1].milvus_id
        yield Step(after, found, len(found) if work.repair else 0)


def _unbind_and_requeue(work: Pass, lost: list[RowKey]) -> list[int]:
    """The products of those that are bound still: ingestion may have bound another row meanwhile."""
    if not lost:
        return []
    if not work.repair:
        with work.database.read() as session:
            return sorted({row.product_id for row in bound_rows(session, work.index.vector_index_id, lost)})
    with work.database.write() as session:
        lock_products(session, [row.product_id for row in lost])  # so that ingestion binds before or after, not between
        unbound = unbind(session, work.index.vector_index_id, lost)
        requeue(session, unbound, "indexed", work.settings.kafka_topic)
    return unbound


def delete_unbound_rows(work: Pass, after: int) -> Iterator[Step]:
    """Rows in Milvus that nothing binds: a crash between insert and bind, or a delete that never came."""
    if not is_ours_alone(work.database, work.vector_db, work.index.collection):
        return  # what nothing binds there may be bound by another database
    for page in work.vector_db.iterate_rows(work.index.collection, after=after, batch_size=PAGE):
        old = _unbound_for_long(work, page)
        found = [row.milvus_id for row in old]
        if work.repair:
            work.vector_db.delete(work.index.collection, found, [row.product_id for row in old])
        yield Step(page[-1].milvus_id, found, len(found) if work.repair else 0)


def _unbound_for_long(work: Pass, page: list[RowKey]) -> list[RowKey]:
    oldest = utc_now() - work.graces.unbound
    with work.database.read() as session:
        orphans = set(page) - bound_rows(session, work.index.vector_index_id, page)
        # A row without a token is of version 0.2.0, which binds nothing any more.
        old = [row for row in orphans if row.row_token is None or token_made_at(row.row_token) <= oldest]
        if old and not work.repair:  # a delete or a change that is on its way takes its row along: no drift yet
            busy = products_with_message_since(session, {r.product_id for r in old}, work.settings.kafka_topic, oldest)
            old = [row for row in old if row.product_id not in busy]
    return sorted(old, key=lambda row: row.milvus_id)

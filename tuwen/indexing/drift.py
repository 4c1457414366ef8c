"""Finds and mends where the database, Milvus and the image store disagree: one kind of drift a function.

The database is the truth: what it does not bind leaves Milvus, and what it binds and Milvus lacks is indexed again.
Every kind goes page by page in short transactions, safe beside running writers and beside another pass: what it is
about to change it looks at once more, under a lock or by a condition in the statement itself.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from orm_models import Database, utc_now
from tuwen.background import Lease, LeaseLost, WorkPool
from tuwen.catalogue.queries import lock_products
from tuwen.errors import DependencyUnavailable
from tuwen.generation.queries import delete_jobs_finished_before
from tuwen.indexing.queries import (
    image_paths_in_use,
    indexed_products_unbound_after,
    pending_products_after,
    requeue,
    without_waiting_message,
)
from tuwen.messaging.outbox import delete_published_before
from tuwen.pictures.store import ImageStore
from tuwen.settings import Settings
from tuwen.vectors.binding import bindings_after, bound_rows, confirm_indexed, unbind
from tuwen.vectors.registry import LiveIndex
from vector_db import RowKey, VectorDB, token_made_at

logger = logging.getLogger(__name__)

# Anything younger may be the work of a process that is in the middle of it.
STALE_AFTER = timedelta(minutes=10)
QUEUE_AGAIN_AFTER = timedelta(hours=1)  # a long backlog must not grow by itself
UNBOUND_GRACE = timedelta(minutes=10)  # insert and bind are one database call apart
IMAGE_GRACE = timedelta(hours=1)
KEEP_PUBLISHED = timedelta(days=7)
PAGE = 500


@dataclass(frozen=True)
class Mended:
    """How many of each were found and put right."""

    stale_pending_products: int = 0
    indexed_products_unbound: int = 0
    bindings_without_vector: int = 0
    vectors_without_binding: int = 0
    images_without_product: int = 0


@dataclass(frozen=True)
class Pass:
    """What every kind of drift works with."""

    settings: Settings
    database: Database
    vector_db: VectorDB
    images: ImageStore
    index: LiveIndex
    unbound_grace: timedelta


class Step(NamedTuple):
    """A page that is done."""

    after: int
    """Where the next page begins: an id that the kind understands."""
    mended: int


Kind = Callable[[Pass, int], Iterator[Step]]


class _Stopped(Exception):
    """Between two pages."""


class Reconciler:
    """One at a time among all processes. A pass that was cut off goes on where it was, in whichever process is next."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        vector_db: VectorDB,
        images: ImageStore,
        live_index: Callable[[], LiveIndex],
        *,
        unbound_grace: timedelta = UNBOUND_GRACE,
    ) -> None:
        """`unbound_grace`: for how long a vector without a binding may be one that is about to be bound."""
        self._settings = settings
        self._database = database
        self._vector_db = vector_db
        self._images = images
        self._live_index = live_index
        self._unbound_grace = unbound_grace
        self._lease = Lease(database, "reconciliation")
        self._stopping = threading.Event()
        self._thread = WorkPool("reconciliation", threads=1, max_waiting=0)

    async def run(self, wake_relay: Callable[[], None]) -> None:
        """A pass at once, for what a crash has left, and one at every interval, until cancelled."""
        try:
            await self._run(wake_relay)
        finally:
            self._stopping.set()

    async def _run(self, wake_relay: Callable[[], None]) -> None:
        interval_s = self._settings.reconcile_interval_s
        self._stopping.clear()
        while interval_s:
            try:
                mended = await self._thread.run(self.reconcile)
            except DependencyUnavailable as error:
                logger.warning("Reconciliation waits for its next turn: %s", error.detail)
            except LeaseLost:
                logger.warning("Reconciliation took too long over a page; another process goes on with it")
            else:
                wake_relay()
                found = mended is not None and any(asdict(mended).values())
                logger.log(logging.WARNING if found else logging.DEBUG, "Reconciled: %s", mended)
            await asyncio.sleep(interval_s)
        await asyncio.Event().wait()  # switched off: never ends, so that nothing restarts it

    def reconcile(self) -> Mended | None:
        """One whole pass; blocks. None while another process is at it, or when told to stop between two pages.

        Raises DependencyUnavailable or LeaseLost.
        """
        progress = self._lease.take()
        if progress is None:
            return None
        try:
            found = self._all_kinds(progress)
            progress.clear()  # the next pass begins at the beginning
        except _Stopped:
            return None
        finally:
            with suppress(DependencyUnavailable):  # a lease that is not given back runs out
                self._lease.give_back(progress)
        return Mended(**found)

    def _all_kinds(self, progress: dict[str, int]) -> dict[str, int]:
        """`progress` holds, for each kind that was begun, where its next page begins; -1 when it is done."""
        self._forget_old_records()
        work = Pass(
            self._settings, self._database, self._vector_db, self._images, self._live_index(), self._unbound_grace
        )
        found = dict.fromkeys(KINDS, 0)
        for name, kind in KINDS.items():
            if progress.get(name) == -1:
                continue
            for after, mended in kind(work, progress.get(name, 0)):
                found[name] += mended
                progress[name] = after
                self._lease.keep(progress)
                if self._stopping.is_set():
                    raise _Stopped
            progress[name] = -1
        return found

    def _forget_old_records(self) -> None:
        """First, so that their pictures go in this same pass."""
        keep_jobs = timedelta(hours=self._settings.generation_keep_hours)
        for forget, moment in (
            (delete_published_before, utc_now() - KEEP_PUBLISHED),
            (delete_jobs_finished_before, utc_now() - keep_jobs),
        ):
            while self._forget_page(forget, moment) == PAGE:
                pass

    def _forget_page(self, forget: Callable[..., int], moment: datetime) -> int:
        with self._database.write() as session:
            return forget(session, moment, PAGE)


def requeue_forgotten(work: Pass, after: int) -> Iterator[Step]:
    """Pending for so long that their event must have been lost, unless it still waits in the outbox."""
    changed_before, queued_before = utc_now() - STALE_AFTER, utc_now() - QUEUE_AGAIN_AFTER
    while True:
        with work.database.read() as session:
            page = pending_products_after(session, after, changed_before, queued_before, PAGE)
        if not page:
            return
        with work.database.write() as session:
            confirm_indexed(session, work.index.vector_index_id, page)
            forgotten = without_waiting_message(session, page, work.settings.kafka_topic)
            mended = requeue(session, forgotten, "pending", work.settings.kafka_topic)
        after = page[-1]
        yield Step(after, mended)


def requeue_unbound(work: Pass, after: int) -> Iterator[Step]:
    """Products that say they are indexed, and have nothing bound: a lost collection's, or a crash's in a rebuild."""
    while True:
        with work.database.read() as session:
            page = indexed_products_unbound_after(session, after, work.index.vector_index_id, PAGE)
        if not page:
            return
        with work.database.write() as session:
            mended = requeue(session, page, "indexed", work.settings.kafka_topic)
        after = page[-1]
        yield Step(after, mended)


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
        mended = _unbind_and_requeue(work, sorted(lost, key=lambda row: row.product_id))
        after = page[-1].product_id
        yield Step(after, mended)


def _unbind_and_requeue(work: Pass, lost: list[RowKey]) -> int:
    if not lost:
        return 0
    with work.database.write() as session:
        lock_products(session, [row.product_id for row in lost])  # so that ingestion binds before or after, not between
        unbound = unbind(session, work.index.vector_index_id, lost)
        requeue(session, unbound, "indexed", work.settings.kafka_topic)
    return len(unbound)


def delete_unbound_rows(work: Pass, after: int) -> Iterator[Step]:
    """Rows in Milvus that nothing binds: a crash between insert and bind, or a delete that never came."""
    oldest = utc_now() - work.unbound_grace
    for page in work.vector_db.iterate_rows(work.index.collection, after=after, batch_size=PAGE):
        with work.database.read() as session:
            orphans = set(page) - bound_rows(session, work.index.vector_index_id, page)
        # A row without a token is of version 0.2.0, which binds nothing any more.
        old = [row for row in orphans if row.row_token is None or token_made_at(row.row_token) <= oldest]
        work.vector_db.delete(work.index.collection, [r.milvus_id for r in old], [r.product_id for r in old])
        yield Step(page[-1].milvus_id, len(old))


def delete_unused_images(work: Pass, _: int) -> Iterator[Step]:
    """Pictures that no product and no job has named for a while."""
    oldest = utc_now() - IMAGE_GRACE
    for page in work.images.list_pages(PAGE):
        old = [file.path for file in page if file.modified_at < oldest]
        with work.database.read() as session:
            unused = set(old) - image_paths_in_use(session, old)
        for path in unused:
            work.images.delete(path)
        yield Step(0, len(unused))


KINDS: dict[str, Kind] = {
    "stale_pending_products": requeue_forgotten,
    "indexed_products_unbound": requeue_unbound,
    "bindings_without_vector": rebind_lost,
    "vectors_without_binding": delete_unbound_rows,
    "images_without_product": delete_unused_images,
}

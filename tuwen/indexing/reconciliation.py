"""Runs the kinds of drift (`drift.py`), in one process at a time, at the start and at every interval."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from orm_models import Database, utc_now
from tuwen.background import LEASE_TIME, Lease, LeaseLost, WorkPool
from tuwen.errors import AppError, CollectionGone, DependencyUnavailable
from tuwen.generation.queries import delete_jobs_finished_before
from tuwen.indexing.drift import KINDS, PAGE, UNBOUND_GRACE, Pass, Step
from tuwen.messaging.outbox import delete_published_before
from tuwen.pictures.store import ImageStore
from tuwen.settings import Settings
from tuwen.vectors.registry import LiveIndex
from vector_db import VectorDB

logger = logging.getLogger(__name__)

KEEP_PUBLISHED = timedelta(days=7)
RETRY_S, LOOK_EVERY_S = 5.0, 1.0
# In the lease's progress: when the last whole pass ended, in seconds, and since when its index was live.
FINISHED_AT, ACTIVATION = "finished_at", "activation"


@dataclass(frozen=True)
class Mended:
    """How many of each were found and put right."""

    stale_pending_products: int = 0
    indexed_products_unbound: int = 0
    bindings_without_vector: int = 0
    vectors_without_binding: int = 0
    images_without_product: int = 0


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
        may_delete_many: bool = False,
    ) -> None:
        """`unbound_grace`: for how long a vector without a binding may be one that is about to be bound."""
        self._settings = settings
        self._database = database
        self._vector_db = vector_db
        self._images = images
        self._live_index = live_index
        self._unbound_grace = unbound_grace
        self._may_delete_many = may_delete_many
        self._lease = Lease(database, "reconciliation")
        self._stopping = threading.Event()
        self._thread = WorkPool("reconciliation", threads=1, max_waiting=0)

    async def run(self, wake_relay: Callable[[], None], known_index: Callable[[], LiveIndex | None]) -> None:
        """A pass at once, for what a crash has left, one at every interval, and one when another index or a new
        collection is live, until cancelled. `known_index` asks nobody."""
        try:
            await self._run(wake_relay, known_index)
        finally:
            self._stopping.set()

    async def _run(self, wake_relay: Callable[[], None], known_index: Callable[[], LiveIndex | None]) -> None:
        interval_s = self._settings.reconcile_interval_s or math.inf  # 0: never by itself
        not_within = timedelta(0)  # the first pass looks at what a crash has left
        due_at = 0.0 if self._settings.reconcile_interval_s else math.inf
        seen = known_index()
        self._stopping.clear()
        while True:
            index = known_index()
            if time.monotonic() >= due_at or index != seen:
                seen = index
                due_at = time.monotonic() + (await self._turn(not_within) or interval_s)
                wake_relay()
                not_within = timedelta(seconds=self._settings.reconcile_interval_s) * 0.9  # one process an interval
            await asyncio.sleep(LOOK_EVERY_S)

    async def _turn(self, not_within: timedelta) -> float | None:
        """One pass. Returns in how many seconds the next is due, if before the interval is over."""
        try:
            mended = await self._thread.run(self.reconcile, not_within)
        except CollectionGone as error:
            logger.warning("Reconciliation waits until it is made again: %s", error.detail)
            return RETRY_S
        except AppError as error:
            logger.warning("Reconciliation waits for its next turn: %s", error.detail)
            return None
        except LeaseLost:
            logger.warning("Reconciliation took too long over a page; another process goes on with it")
            return LEASE_TIME.total_seconds()
        if mended is None:  # made already, or another is at it: should that die, its lease runs out
            return LEASE_TIME.total_seconds()
        found = any(asdict(mended).values())
        logger.log(logging.WARNING if found else logging.DEBUG, "Reconciled: %s", mended)
        return None

    def reconcile(self, not_within: timedelta = timedelta(0)) -> Mended | None:
        """One whole pass; blocks. None while another process is at it, or when told to stop between two pages.

        None also where one was finished `not_within` so long, since this index with this collection is live.

        Raises DependencyUnavailable or LeaseLost.
        """
        index = self._live_index()
        activation = str(index.activated_at)
        progress = self._lease.take()
        if progress is None:
            return None
        if progress.get(ACTIVATION) != activation:
            progress = {ACTIVATION: activation}  # how far a pass over another index came says nothing of this one
        finished_at = progress.pop(FINISHED_AT, 0)
        try:
            if utc_now().timestamp() - finished_at < not_within.total_seconds():
                progress[FINISHED_AT] = finished_at
                return None
            found = self._all_kinds(index, progress)
            # The next pass begins at the beginning.
            progress = {ACTIVATION: activation, FINISHED_AT: int(utc_now().timestamp())}
        except _Stopped:
            return None
        finally:
            with suppress(DependencyUnavailable):  # a lease that is not given back runs out
                self._lease.give_back(progress)
        return Mended(**found)

    def _all_kinds(self, index: LiveIndex, progress: dict[str, Any]) -> dict[str, int]:
        """`progress` holds, for each kind that was begun, where its next page begins; -1 when it is done."""
        self._forget_old_records(progress)
        work = Pass(
            self._settings,
            self._database,
            self._vector_db,
            self._images,
            index,
            self._unbound_grace,
            self._may_delete_many,
        )
        found, failures = dict.fromkeys(KINDS, 0), list[DependencyUnavailable]()
        for name, kind in KINDS.items():
            try:
                if progress.get(name) != -1:
                    found[name] = self._one_kind(name, kind(work, progress.get(name, 0)), progress)
            except (LeaseLost, _Stopped):
                raise
            except DependencyUnavailable as error:  # a store that is down is no reason to leave the others unmended
                failures.append(error)
            except Exception:  # nor is one thing that can't be mended
                logger.exception("Reconciliation of %s failed unexpectedly", name)
            progress[name] = -1
        if failures:
            progress.clear()
            raise failures[0]
        return found

    def _one_kind(self, name: str, steps: Iterator[Step], progress: dict[str, Any]) -> int:
        found = 0
        for after, mended in steps:
            found += mended
            progress[name] = after
            self._lease.keep(progress)
            if self._stopping.is_set():
                raise _Stopped
        return found

    def _forget_old_records(self, progress: dict[str, Any]) -> None:
        """First, so that their pictures go in this same pass."""
        keep_jobs = timedelta(hours=self._settings.generation_keep_hours)
        for forget, moment in (
            (delete_published_before, utc_now() - KEEP_PUBLISHED),
            (delete_jobs_finished_before, utc_now() - keep_jobs),
        ):
            while self._forget_page(forget, moment) == PAGE:
                self._lease.keep(progress)

    def _forget_page(self, forget: Callable[..., int], moment: datetime) -> int:
        with self._database.write() as session:
            return forget(session, moment, PAGE)

"""Runs the kinds of drift (`drift.py`), in one process at a time, at the start and at every interval."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import orm

from orm_models import utc_now
from tuwen.background import LEASE_TIME, Lease, LeaseLost, WorkPool, read_progress
from tuwen.database.engine import Database
from tuwen.errors import AppError, DependencyUnavailable
from tuwen.indexing.drift import (
    Graces,
    Kind,
    Pass,
    Step,
    delete_unbound_rows,
    rebind_lost,
    requeue_forgotten,
    requeue_unbound,
)
from tuwen.indexing.missing_terms import make_missing_terms
from tuwen.indexing.old_records import delete_old_records
from tuwen.indexing.picture_drift import delete_unused_images, mark_products_without_image
from tuwen.pictures.store import ImageStore
from tuwen.pulse import beat
from tuwen.settings import Settings
from tuwen.vectors.registry import LiveIndex
from vector_db import VectorDB

logger = logging.getLogger(__name__)

KINDS: dict[str, Kind] = {
    "stale_pending_products": requeue_forgotten,
    "indexed_products_unbound": requeue_unbound,
    "bindings_without_vector": rebind_lost,
    "vectors_without_binding": delete_unbound_rows,
    "products_without_image": mark_products_without_image,
    "images_without_product": delete_unused_images,
}
LONGEST_PAGE_S = 300.0
RETRY_S, LOOK_EVERY_S = 5.0, 1.0
LEASE = "reconciliation"
SAMPLE = 5
# In the lease's progress, beside the place that each kind of drift has reached:
STARTED_AT, FOUND = "started_at", "found"  # of the pass under way
WAITING_SINCE = "waiting_since"  # all kinds were tried, and some met a store that is down
ACTIVATION = "activation"  # since when the index was live that it, or else the last whole one, was over
LAST_PASS, MENDED_IN_ALL = "last_pass", "mended_in_all"
KEPT = (LAST_PASS, MENDED_IN_ALL)  # when a pass ends


@dataclass
class Drift:
    """What was found of one kind."""

    found: int = 0
    mended: int = 0
    took_s: float = 0.0
    sample: list[int | str] = field(default_factory=list)
    """Ids or paths of the first few."""
    failed: bool = False
    """Unexpectedly, so that there may be more; the log says how."""

    def add(self, step: Step) -> None:
        self.found += len(step.found)
        self.mended += step.mended
        self.sample += step.found[: SAMPLE - len(self.sample)]


@dataclass(frozen=True)
class PassRecord:
    """The last whole pass, whichever process made it, and what all of them have mended since the first."""

    finished_at: float
    """Seconds since the epoch."""
    took_s: float
    found: dict[str, int]
    mended_in_all: dict[str, int]


def last_pass(session: orm.Session) -> PassRecord | None:
    progress = read_progress(session, LEASE)
    if LAST_PASS not in progress:
        return None
    return PassRecord(**progress[LAST_PASS], mended_in_all=progress[MENDED_IN_ALL])


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
        graces: Graces | None = None,
        may_delete_many: bool = False,
    ) -> None:
        self._settings = settings
        self._database = database
        self._vector_db = vector_db
        self._images = images
        self._live_index = live_index
        self._graces = graces or Graces.of(settings)
        self._may_delete_many = may_delete_many
        self._lease = Lease(database, LEASE)
        self._stopping = threading.Event()
        self._thread = WorkPool(LEASE, threads=1, max_waiting=0)

    async def run(self, wake_relay: Callable[[str], None], known_index: Callable[[], LiveIndex | None]) -> None:
        """A pass at once, for what a crash has left, one at every interval, and one when another index or a new
        collection is live, until cancelled. `known_index` asks nobody."""
        try:
            await self._run(wake_relay, known_index)
        finally:
            self._stopping.set()

    async def _run(self, wake_relay: Callable[[str], None], known_index: Callable[[], LiveIndex | None]) -> None:
        interval_s = self._settings.reconcile_interval_s or math.inf  # 0: never by itself
        not_within = timedelta(0)  # the first pass looks at what a crash has left
        due_at = 0.0 if self._settings.reconcile_interval_s else math.inf
        seen = known_index()
        self._stopping.clear()
        while True:
            beat()
            index = known_index()
            if time.monotonic() >= due_at or index != seen:
                seen = index
                due_at = time.monotonic() + (await self._turn(not_within) or interval_s)
                wake_relay(self._settings.kafka_topic)
                not_within = timedelta(seconds=self._settings.reconcile_interval_s) * 0.9  # one process an interval
            await asyncio.sleep(LOOK_EVERY_S)

    async def _turn(self, not_within: timedelta) -> float | None:
        """One pass. Returns in how many seconds the next is due, if before the interval is over."""
        try:
            findings = await self._thread.run(self.reconcile, not_within)
        except DependencyUnavailable as error:
            logger.warning("Reconciliation waits %.0f s: %s", RETRY_S, error.detail)
            return RETRY_S
        except AppError as error:
            logger.warning("Reconciliation waits for its next turn: %s", error.detail)
            return None
        except LeaseLost:
            logger.warning("Reconciliation took too long over a page; another process goes on with it")
            return LEASE_TIME.total_seconds()
        if findings is None:  # made already, or another is at it: should that die, its lease runs out
            return LEASE_TIME.total_seconds()
        found = {name: drift for name, drift in findings.items() if drift.found}
        logger.log(logging.WARNING if found else logging.DEBUG, "Reconciled: %s", found or "no drift")
        return None

    def look(self) -> dict[str, Drift]:
        """Every kind of drift as it is now, with nothing changed anywhere; beside a pass, too. Blocks.

        Raises DependencyUnavailable.
        """
        findings, work = _no_drift(), self._new_pass(self._live_index(), repair=False)
        for name, kind in KINDS.items():
            started = time.monotonic()
            for step in kind(work, 0):
                findings[name].add(step)
            findings[name].took_s = time.monotonic() - started
        return findings

    def reconcile(self, not_within: timedelta = timedelta(0)) -> dict[str, Drift] | None:
        """One whole pass that mends; blocks. None while another process is at it, or when told to stop between two
        pages; also where one was finished `not_within` so long, since this index with this collection is live.

        Raises DependencyUnavailable or LeaseLost.
        """
        index = self._live_index()
        activation = str(index.activated_at)
        progress = self._lease.take()
        if progress is None:
            return None
        try:
            if progress.get(ACTIVATION) != activation:
                _begin_again(progress)  # how far a pass over another index came says nothing of this one
            elif STARTED_AT not in progress and _seconds_since_last(progress) < not_within.total_seconds():
                return None
            progress[ACTIVATION] = activation
            findings = self._all_kinds(index, progress)
            _note_end_of_pass(progress, activation)
        except _Stopped:
            return None
        finally:
            with suppress(DependencyUnavailable):  # a lease that is not given back runs out
                self._lease.give_back(progress)
        return findings

    def _all_kinds(self, index: LiveIndex, progress: dict[str, Any]) -> dict[str, Drift]:
        """`progress` holds, for each kind that was begun, where its next page begins; -1 when it is done.

        A kind whose store is down is left for the next try; those that are done wait an interval for it, no longer.
        """
        progress.setdefault(STARTED_AT, utc_now().timestamp())
        # First, so that their pictures go in this same pass.
        keep_jobs = timedelta(hours=self._settings.generation_keep_hours)
        delete_old_records(self._database, keep_jobs, lambda: self._go_on(progress))
        make_missing_terms(self._database, lambda: self._go_on(progress))
        work = self._new_pass(index, repair=True)
        findings, failures = _no_drift(), list[DependencyUnavailable]()
        for name, kind in KINDS.items():
            try:
                if progress.get(name) != -1:
                    self._one_kind(name, kind(work, progress.get(name, 0)), progress, findings[name])
            except (LeaseLost, _Stopped):
                raise
            except DependencyUnavailable as error:  # a store that is down is no reason to leave the others unmended
                failures.append(error)
                continue
            except Exception:  # nor is one thing that can't be mended
                logger.exception("Reconciliation of %s failed unexpectedly", name)
                findings[name].failed = True
            progress[name] = -1
        if failures:
            _begin_done_ones_again(progress, after_s=self._settings.reconcile_interval_s)
            raise failures[0]
        return findings

    def _one_kind(self, name: str, steps: Iterator[Step], progress: dict[str, Any], drift: Drift) -> None:
        started = time.monotonic()
        beat(LONGEST_PAGE_S)
        for step in steps:
            drift.add(step)
            drift.took_s = time.monotonic() - started
            progress[name] = step.after
            for counts, number in ((FOUND, len(step.found)), (MENDED_IN_ALL, step.mended)):
                of_kind = progress.setdefault(counts, {})
                of_kind[name] = of_kind.get(name, 0) + number
            self._go_on(progress)

    def _go_on(self, progress: dict[str, Any]) -> None:
        """Between two pages. Raises LeaseLost or _Stopped."""
        beat(LONGEST_PAGE_S)
        self._lease.keep(progress)
        if self._stopping.is_set():
            raise _Stopped

    def _new_pass(self, index: LiveIndex, *, repair: bool) -> Pass:
        stores = self._database, self._vector_db, self._images
        return Pass(self._settings, *stores, index, self._graces, self._may_delete_many, repair)


def _no_drift() -> dict[str, Drift]:
    return {name: Drift() for name in KINDS}


def _seconds_since_last(progress: dict[str, Any]) -> float:
    finished_at: float = progress.get(LAST_PASS, {}).get("finished_at", 0.0)
    return utc_now().timestamp() - finished_at


def _note_end_of_pass(progress: dict[str, Any], activation: str) -> None:
    now = utc_now().timestamp()
    found = dict.fromkeys(KINDS, 0) | progress.get(FOUND, {})
    progress[MENDED_IN_ALL] = dict.fromkeys(KINDS, 0) | progress.get(MENDED_IN_ALL, {})
    progress[LAST_PASS] = {"finished_at": now, "took_s": now - progress[STARTED_AT], "found": found}
    _begin_again(progress)
    progress[ACTIVATION] = activation


def _begin_done_ones_again(progress: dict[str, Any], *, after_s: float) -> None:
    """A store may be down for hours, in which the others drift on."""
    now = utc_now().timestamp()
    if now - progress.setdefault(WAITING_SINCE, now) >= after_s:
        del progress[WAITING_SINCE]
        for name in [name for name in KINDS if progress.get(name) == -1]:
            del progress[name]
            progress.get(FOUND, {}).pop(name, None)


def _begin_again(progress: dict[str, Any]) -> None:
    """The next pass begins at the beginning."""
    for name in progress.keys() - KEPT:
        del progress[name]

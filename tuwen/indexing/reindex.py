"""Builds an index of other models beside the live one, and puts it in its place.

One process at a time has the lease; should it die, the next takes the job up where it was. Each step can be taken
again: what stands in the database (the row of the index, its bindings) says what is done. Writes go to the live index
alone; the fill goes round until nothing is left, and what is written in the last moment is queued by reconciliation.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from data_models import ReindexPhase, ReindexRequest
from orm_models import VectorIndexRow
from tuwen.background import LEASE_TIME, Lease, LeaseLost, WorkPool, until_up
from tuwen.database.engine import Database
from tuwen.encoders.base import ModelNames
from tuwen.encoders.service import EncodingService
from tuwen.errors import AppError, ConfigurationError, DependencyUnavailable, GateClosed, IndexChanged
from tuwen.indexing.coverage import count_covered, next_unbound
from tuwen.indexing.ingest import Ingestor
from tuwen.indexing.not_taken import Round
from tuwen.indexing.reindex_attempts import Attempt, JobReport, begin_attempt, next_job
from tuwen.indexing.reindex_gate import ReindexGate, processes_without
from tuwen.pulse import beat
from tuwen.request_ids import working_for
from tuwen.settings import Settings
from tuwen.vectors.dropping import drop_given_up, drop_if_ours
from tuwen.vectors.indexes import active_index, has_bindings, indexes_with, new_collection_name, new_index
from tuwen.vectors.registry import IndexRegistry, ServedIndex
from vector_db import VectorDB

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
# For each second of work so many of rest: searches share cores, Milvus and the interpreter with it.
REST = 1.5
# So few may be left when a round ends: with writes going on there is always a last one.
FEW, ROUNDS = 8, 20
LOADED_WITHIN_S = 900.0
DROP_AGAIN_AFTER_S = 60.0


class Models(NamedTuple):
    """What was found for the names of a request."""

    names: ModelNames
    fingerprint: str


class Reindexer:
    """`find_models` blocks, and raises ModelUnavailable. `slow_encoding` gives an encoder of the same models that works
    behind all other work; `ingestor` is its own, for the same reason.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        vector_db: VectorDB,
        registry: IndexRegistry,
        ingestor: Ingestor,
        find_models: Callable[[ModelNames], Models],
        slow_encoding: Callable[[EncodingService], Awaitable[EncodingService]],
    ) -> None:
        self._settings = settings
        self._database = database
        self._vector_db = vector_db
        self._registry = registry
        self._ingestor = ingestor
        self._find_models = find_models
        self._slow_encoding = slow_encoding
        self._lease = Lease(database, "reindex")
        self._thread = WorkPool("reindexing", threads=1, max_waiting=2)
        self._lease_thread = WorkPool("reindex lease", threads=1, max_waiting=2)
        self._drop_again_at = 0.0
        self._survived: Attempt | None = None

    async def run(self) -> None:
        while True:
            beat()
            try:
                await self.take_turn()
            except (DependencyUnavailable, LeaseLost) as error:
                logger.warning("Reindexing waits: %r", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def take_turn(self) -> None:
        """What there is to do, to its end; nothing while another process is at it."""
        if not await self._thread.run(self._has_work):
            return
        try:
            if await self._lease_thread.run(self._lease.take) is not None:
                await self._keeping_the_lease(self._work())
        finally:  # even where this was cancelled while it was being taken: the thread went on to take it
            with suppress(AppError):
                await self._lease_thread.run(self._lease.give_back, {})

    async def _keeping_the_lease(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                beat()
                await asyncio.wait([task], timeout=LEASE_TIME.total_seconds() / 8)
                await self._lease_thread.run(self._lease.keep, {})
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _has_work(self) -> bool:
        with self._database.read() as session:
            may_drop = time.monotonic() >= self._drop_again_at and indexes_with(session, "dropping")
            return bool(next_job(session) or may_drop)

    async def _work(self) -> None:
        await self._thread.run(self._drop_given_up)
        attempt = await self._thread.run(begin_attempt, self._database, self._survived)
        if attempt is not None:
            with working_for([attempt.request_id]):
                await self._work_off(attempt)

    async def _work_off(self, attempt: Attempt) -> None:
        report = JobReport(self._database, attempt)
        try:
            await self._build(report, attempt.request)
        except IndexChanged as error:
            logger.info("Reindex job %d ends here: %s", attempt.job_id, error.detail)
        except (ConfigurationError, GateClosed) as error:
            await self._fail(report, error.detail, in_vain=isinstance(error, ConfigurationError))
        except (DependencyUnavailable, LeaseLost, asyncio.CancelledError):
            self._survived = attempt
            with suppress(AppError):  # the other thread: a model that is being loaded holds the one of the work
                await self._lease_thread.run(report.let_go)
            raise
        except Exception as error:  # it must not come again for ever
            logger.exception("Unexpected while reindexing")
            await self._fail(report, f"unexpected: {error!r}", in_vain=False)

    def _drop_given_up(self) -> None:
        """What Milvus does not drop now waits, and no job waits for it."""
        if time.monotonic() >= self._drop_again_at and drop_given_up(self._database, self._vector_db):
            self._drop_again_at = time.monotonic() + DROP_AGAIN_AFTER_S

    async def _fail(self, report: JobReport, reason: str, *, in_vain: bool) -> None:
        with suppress(IndexChanged):
            await self._thread.run(partial(report.fail, reason, in_vain=in_vain))

    async def _build(self, report: JobReport, request: ReindexRequest) -> None:
        await self._say(report, "preparing")
        models = await self._thread.run(self._find_models, ModelNames(request.clip_model, request.text_model))
        row = await self._thread.run(self._open_index, report, models)
        load = partial(self._thread.run, self._registry.encoders_of, row)  # behind another process that loads them, too
        encoding = await until_up("Reindexing", load, max_wait_s=LOOK_EVERY_S)
        row = await self._thread.run(self._open_collection, report, row, encoding)
        slow = await self._slow_encoding(encoding)
        try:
            shadow = ServedIndex(row.vector_index_id, row.collection, None, slow, is_live=False)
            gate = ReindexGate(self._database, self._vector_db, shadow, self._thread)
            await self._complete(report, request, gate, gate.unbind_lost)
            if request.queries:
                live = await self._thread.run(self._registry.live)
                await gate.require_recall(live, request, partial(self._say, report, "checking"))
            if request.switch:
                await self._say(report, "loading")
                await self._until_loaded_everywhere(row)  # for minutes, in which writes go on
                await self._complete(report, request, gate)
        finally:
            await slow.close()
        if not request.switch:
            await self._thread.run(report.finish, "ready", None)
            return
        await self._thread.run(report.finish, "switched", row.vector_index_id)
        await self._thread.run(self._registry.look)

    def _open_index(self, report: JobReport, models: Models) -> VectorIndexRow:
        """The index that is built: of an earlier job, if it is of these models and has what was bound in it."""
        lost = self._lost_builds()
        with self._database.write() as session:
            job = report.require_running(session)
            active = active_index(session)
            if active is not None and active.model_fingerprint == models.fingerprint:
                raise GateClosed("The index is of these very models already.")
            found = None
            for row in indexes_with(session, "building"):
                if row.model_fingerprint == models.fingerprint and row.vector_index_id not in lost:
                    found = row
                else:
                    row.status = "dropping"
            if found is None:
                session.add(found := new_index(session, models.fingerprint, models.names))
            session.flush()
            report.note_collection(job, found.collection)
            return found

    def _lost_builds(self) -> set[int]:
        """Of which Milvus has lost the collection, and with it all that was bound."""
        with self._database.read() as session:
            begun = [row for row in indexes_with(session, "building") if has_bindings(session, row.vector_index_id)]
        return {row.vector_index_id for row in begun if not self._vector_db.has_collection(row.collection)}

    def _open_collection(self, report: JobReport, row: VectorIndexRow, encoding: EncodingService) -> VectorIndexRow:
        """Whole: one in which something was bound was so. Any other may have been left in the middle, or be made this
        moment by a process that was paused: it is given up for another one, of another name.
        """
        with self._database.read() as session:
            if has_bindings(session, row.vector_index_id):
                return row
        row = self._rename(report, row, is_left=self._vector_db.has_collection(row.collection))
        clip, text = encoding.encoders.clip, encoding.encoders.text
        self._vector_db.create_collection(row.collection, clip_dim=clip.dim, text_dim=text.dim)
        try:
            report.confirm()
        except IndexChanged:  # while it was made; nobody else has put anything in it
            drop_if_ours(self._database, self._vector_db, row.collection)
            raise
        return row

    def _rename(self, report: JobReport, row: VectorIndexRow, *, is_left: bool) -> VectorIndexRow:
        with self._database.write() as session:
            job = report.require_running(session)
            row = session.get_one(VectorIndexRow, row.vector_index_id)
            before, row.collection = row.collection, new_collection_name(session, row.model_fingerprint)
            session.flush()  # a name is unique
            if is_left:
                session.add(
                    VectorIndexRow(collection=before, model_fingerprint=row.model_fingerprint, status="dropping")
                )
            report.note_collection(job, row.collection)
            return row

    async def _fill(self, report: JobReport, shadow: ServedIndex) -> Round:
        """Round after round, until one finds next to nothing. Returns the last one."""
        for _ in range(ROUNDS):
            done = await self._round(report, shadow)
            if done.bound <= FEW:
                break
        return done

    async def _round(self, report: JobReport, shadow: ServedIndex) -> Round:
        this, after, started = Round(), 0, time.monotonic()
        done, total = await self._thread.run(count_covered, self._database, shadow.vector_index_id)
        while page := await self._thread.run(next_unbound, self._database, shadow.vector_index_id, after):
            size = self._settings.ingest_encode_batch_size
            for batch in (page.product_ids[start : start + size] for start in range(0, len(page.product_ids), size)):
                batch_started = time.monotonic()
                inserted, not_taken = await self._ingestor.index_each_into(shadow, batch)
                this.bound += inserted
                this.not_taken.add(not_taken)
                rate = this.bound / max(time.monotonic() - started, 0.001)
                left = max(total - done - this.bound - len(this.not_taken), 0)
                await self._say(
                    report,
                    "filling",
                    got_on=bool(inserted),
                    done=done + this.bound,
                    total=total,
                    rate_per_s=round(rate, 2),
                    seconds_left=round(left / rate) if rate else None,
                    failed=len(this.not_taken),
                    failures=this.not_taken.failures,
                )
                await asyncio.sleep((time.monotonic() - batch_started) * REST)
            after = page.last
        return this

    async def _complete(
        self, report: JobReport, request: ReindexRequest, gate: ReindexGate, unbind_lost: Callable[[], int] = int
    ) -> None:
        """Fill until next to nothing is missing. Raises GateClosed where that can't be."""
        live = await self._thread.run(self._registry.live)
        last = await self._fill(report, gate.shadow)
        await self._say(report, "checking")
        for _ in range(ROUNDS):
            lost = await self._thread.run(unbind_lost)
            missing = await self._thread.run(gate.missing, live, last.not_taken)
            if not lost and missing.unexplained <= FEW:
                break
            last = await self._fill(report, gate.shadow)
        await self._say(report, "checking", live_count=missing.live, new_count=missing.live - missing.count)
        if not request.force:
            missing.require_few(last.not_taken, FEW)

    async def _until_loaded_everywhere(self, row: VectorIndexRow) -> None:
        deadline = time.monotonic() + LOADED_WITHIN_S
        while waited_for := await self._thread.run(processes_without, self._database, row.model_fingerprint):
            if time.monotonic() > deadline:
                raise GateClosed(f"Its models are not loaded yet by {', '.join(waited_for)}.")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _say(self, report: JobReport, phase: ReindexPhase, **state: Any) -> None:
        await self._thread.run(partial(report.say, phase, **state))

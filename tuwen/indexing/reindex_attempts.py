"""A reindex job in the hands of one process: begun, reported on, ended.

`JobRow.attempts` is the fence: whoever was paused, and lost the job to another meanwhile, writes nothing any more. An
attempt that neither ends nor gets on (its process was killed) is counted; after a few the job fails.
"""

import logging
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import ReindexPhase, ReindexRequest
from orm_models import REASON_LENGTH, JobRow, VectorIndexRow, utc_now
from tuwen.database.engine import Database
from tuwen.errors import IndexChanged
from tuwen.vectors.indexes import activate, has_bindings, indexes_with

logger = logging.getLogger(__name__)

UNFINISHED = ("queued", "running")
MOST_LOST = 3
LOST = "lost_attempts"  # in the job's state: how many in a row have not been heard of again, this one included


class Attempt(NamedTuple):
    job_id: int
    number: int
    request: ReindexRequest
    state: dict[str, Any]
    request_id: str | None = None


def begin_attempt(database: Database, survived: Attempt | None = None) -> Attempt | None:
    """Of the job that waits, counted before anything is loaded for it. None where there is none, or it fails now.

    `survived`: this process's last one, of which the database could not be told that it was not lost.
    """
    with database.write() as session:
        job = next_job(session, lock=True)
        if job is None:
            return None
        state = dict(job.state or {})
        is_told = survived is None or (survived.job_id, survived.number) != (job.job_id, job.attempts)
        lost = state.get(LOST, 0) if is_told else 0
        if lost >= MOST_LOST:
            phase = state.get("phase", "preparing")
            reason = (
                f"{lost} processes in a row ended while they were at it, the last one in phase {phase}: its models may "
                "not fit into memory beside those in use. Give each process more of it or choose smaller models; the "
                "same request goes on from what was built."
            )
            _fail(session, job, reason, in_vain=True)
            return None
        job.status, job.started_at = "running", job.started_at or utc_now()
        job.attempts += 1
        job.state = state | {LOST: lost + 1}
        request = ReindexRequest.model_validate(job.request)
        return Attempt(job.job_id, job.attempts, request, job.state, job.request_id)


class JobReport:
    """How far the job is. Every word of it also asks whether the job is still this attempt's."""

    def __init__(self, database: Database, attempt: Attempt) -> None:
        self._database = database
        self._attempt = attempt
        self._state = attempt.state

    def require_running(self, session: orm.Session) -> JobRow:
        """Raises IndexChanged where it was cancelled, or another process has taken it up."""
        job = next_job(session, self._attempt.job_id, lock=True)
        if job is None or job.attempts != self._attempt.number:
            raise IndexChanged("it was cancelled." if job is None else "another process has taken it up.")
        return job

    def confirm(self) -> None:
        """Before what can't be taken back. Raises as `require_running`."""
        with self._database.write() as session:
            self.require_running(session)

    def note_collection(self, job: JobRow, collection: str) -> None:
        """In the transaction that opens its index: a job that ends finds by it what it has to drop."""
        self._state = self._state | {"collection": collection}
        job.state = self._state

    def say(self, phase: ReindexPhase, *, got_on: bool = False, **state: Any) -> None:
        """`got_on`: something was done that the next attempt need not do again."""
        self._state = self._state | {"phase": phase} | state | ({LOST: 0} if got_on else {})
        with self._database.write() as session:
            job = self.require_running(session)
            job.state, job.heartbeat_at = self._state, utc_now()
            # Products that come in during a round are done, and not in its total.
            job.progress = min(self._state.get("done", 0) / max(self._state.get("total", 0), 1), 1.0)

    def finish(self, phase: ReindexPhase, vector_index_id: int | None) -> None:
        """The switch and the job's end are one transaction."""
        self._state = self._state | {"phase": phase}
        with self._database.write() as session:
            job = self.require_running(session)
            if vector_index_id is not None:
                activate(session, vector_index_id, "building")
            job.status, job.progress, job.state, job.finished_at = "done", 1.0, self._state, utc_now()

    def fail(self, reason: str, *, in_vain: bool) -> None:
        """What was built stays, to be gone on with by the next job. Raises IndexChanged.

        `in_vain`: so long as nothing was built, its index goes, for every process loads the models of one that stays.
        """
        with self._database.write() as session:
            _fail(session, self.require_running(session), reason, in_vain=in_vain)

    def let_go(self) -> None:
        """This process lives, and comes again or is told to stop: that is no lost attempt. Raises IndexChanged."""
        with self._database.write() as session:
            job = self.require_running(session)
            job.state = self._state | {LOST: 0}


def next_job(session: orm.Session, job_id: int | None = None, *, lock: bool = False) -> JobRow | None:
    """The one that is under way, or waits."""
    statement = sa.select(JobRow).where(JobRow.kind == "reindex", JobRow.status.in_(UNFINISHED))
    if job_id is not None:
        statement = statement.where(JobRow.job_id == job_id)
    statement = statement.order_by(JobRow.job_id).limit(1)
    return session.scalar(statement.with_for_update() if lock else statement)


def drop_all(session: orm.Session, *statuses: str) -> list[str]:
    """Have the loops drop the indexes of these statuses; their collections."""
    rows: list[VectorIndexRow] = indexes_with(session, *statuses)
    for row in rows:
        row.status = "dropping"
    return [row.collection for row in rows]


def drop_opened(session: orm.Session, job: JobRow) -> None:
    """Have the loops drop what this job began to build; another's may wait to be switched to."""
    for row in _opened(session, job):
        row.status = "dropping"


def _opened(session: orm.Session, job: JobRow) -> list[VectorIndexRow]:
    collection = (job.state or {}).get("collection")
    return [row for row in indexes_with(session, "building") if row.collection == collection]


def _fail(session: orm.Session, job: JobRow, reason: str, *, in_vain: bool) -> None:
    logger.error("Reindex job %d failed: %s", job.job_id, reason)
    job.status, job.error, job.finished_at = "failed", reason[:REASON_LENGTH], utc_now()
    # Models that filled it did work, and days of that are not thrown away over a hub that is silent or three kills.
    if in_vain and not any(has_bindings(session, row.vector_index_id) for row in _opened(session, job)):
        drop_opened(session, job)

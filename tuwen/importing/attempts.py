"""An import job in the hands of one process: taken up, kept, ended.

The job's own row is the lease: whoever works on it gives a sign of life, and a job that gives none for a while is
taken up by the next process that has its file. `JobRow.attempts` is the fence: what an earlier holder still writes is
refused. How far the job is stands in its `state`, and changes in the very transaction that writes a page of products.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import ENDED, ImportMode
from orm_models import FIELD_LENGTH, REASON_LENGTH, ImportErrorRow, JobRow, utc_now
from tuwen.database.engine import Database
from tuwen.importing.rows import RowError, RowWarning
from tuwen.settings import SKU_COLUMN_LENGTH

logger = logging.getLogger(__name__)

SILENT_AFTER = timedelta(seconds=20)
KEPT_FOR, ERRORS_AT_ONCE = timedelta(days=30), 1000
MOST_LOST, LOST = 5, "lost_attempts"  # how many in a row were not heard of again, without a page between them
WARNING = "Warning: "  # what a reason begins with whose row is in
JOBS_LOOKED_AT = 100  # at once


class JobGone(Exception):
    """It was cancelled, or another process has taken it up: stop at once, and write nothing more."""


class Attempt(NamedTuple):
    job_id: int
    number: int
    path: Path
    """Of the file."""
    mode: ImportMode
    state: dict[str, Any]
    request: dict[str, Any]
    """As `ImportJobs.create` has made it; jobs of an earlier version lack its options."""
    shop_id: str
    """Whose products alone it knows, and makes."""
    request_id: str | None = None

    @property
    def is_dry_run(self) -> bool:
        return bool(self.request.get("dry_run"))

    @property
    def masks(self) -> bool:
        return bool(self.request.get("mask_personal_data"))


def is_free() -> sa.ColumnElement[bool]:
    """Nobody works on it."""
    is_silent = sa.or_(JobRow.heartbeat_at.is_(None), JobRow.heartbeat_at < utc_now() - SILENT_AFTER)
    is_waiting = sa.or_(JobRow.status == "queued", sa.and_(JobRow.status == "running", is_silent))
    return sa.and_(JobRow.kind == "import", is_waiting)


def find_job(session: orm.Session, folder: Path) -> int | None:
    """The oldest that is free and has its file in this folder, behind however many whose files are elsewhere."""
    job_id = 0
    while True:
        behind = sa.select(JobRow.job_id, JobRow.request).where(is_free(), JobRow.job_id > job_id)
        page = behind.order_by(JobRow.job_id).limit(JOBS_LOOKED_AT)
        jobs: dict[int, dict[str, Any]] = dict(session.execute(page).all())
        for job_id, request in jobs.items():
            if (folder / request["file"]).exists():
                return job_id
        if len(jobs) < JOBS_LOOKED_AT:
            return None


def begin_attempt(database: Database, folder: Path) -> Attempt | None:
    """Of the oldest job whose file lies in this folder. None where there is none."""
    with database.read() as session:  # which blocks nobody, as looking each second must not
        job_id = find_job(session, folder)
    if job_id is None:
        return None
    with database.write() as session:
        own = sa.select(JobRow).where(JobRow.job_id == job_id, is_free())
        job = session.scalar(own.with_for_update(skip_locked=True))
        if job is None:  # another process was quicker
            return None
        state = dict(job.state or {})
        lost = state.get(LOST, 0)
        if lost >= MOST_LOST:
            end(job, "failed", f"{lost} processes in a row ended in the page after row {state.get('rows', 0)}.")
            return None
        job.status, job.started_at, job.heartbeat_at = "running", job.started_at or utc_now(), utc_now()
        job.attempts += 1
        job.state = state | {LOST: lost + 1}
        asked, path = job.request, folder / job.request["file"]
        number, whose = job.attempts, (job.shop_id, job.request_id)
        return Attempt(job.job_id, number, path, asked["mode"], job.state, asked, *whose)


def require_running(session: orm.Session, attempt: Attempt) -> JobRow:
    """Locked until the transaction ends. Raises JobGone."""
    own = JobRow.job_id == attempt.job_id, JobRow.status == "running", JobRow.attempts == attempt.number
    job = session.scalar(sa.select(JobRow).where(*own).with_for_update())
    if job is None:
        raise JobGone
    return job


def keep(database: Database, attempt: Attempt) -> None:
    """A sign of life. Raises JobGone."""
    with database.write() as session:
        require_running(session, attempt).heartbeat_at = utc_now()


def let_go(database: Database, attempt: Attempt) -> None:
    """For the next process at once, which is told that this one was not lost. Raises JobGone."""
    with database.write() as session:
        job = require_running(session, attempt)
        job.heartbeat_at, job.state = None, (job.state or {}) | {LOST: 0}


def finish(database: Database, attempt: Attempt, error: str | None = None) -> None:
    """Done, or failed with this error; what was written before it stays. Raises JobGone."""
    with database.write() as session:
        job = require_running(session, attempt)
        end(job, "done" if error is None else "failed", error)
        if error is None:
            job.progress = 1.0


def end(job: JobRow, status: Any, error: str | None) -> None:
    job.status, job.finished_at = status, utc_now()
    job.error = error[:REASON_LENGTH] if error else None


def has_ended(database: Database, job_id: int) -> bool:
    with database.read() as session:
        job = session.get(JobRow, job_id)
        return job is None or job.status in ENDED


def delete_old_jobs(database: Database) -> None:
    """With their errors, a bounded part at a time."""
    while True:
        with database.write() as session:
            is_old = JobRow.kind == "import", JobRow.finished_at < utc_now() - KEPT_FOR
            job_id = session.scalar(sa.select(JobRow.job_id).where(*is_old).order_by(JobRow.job_id).limit(1))
            if job_id is None:
                return
            of_job = sa.select(ImportErrorRow.import_error_id).where(ImportErrorRow.job_id == job_id)
            error_ids = list(session.scalars(of_job.limit(ERRORS_AT_ONCE)))
            session.execute(sa.delete(ImportErrorRow).where(ImportErrorRow.import_error_id.in_(error_ids)))
            if len(error_ids) < ERRORS_AT_ONCE:
                session.execute(sa.delete(JobRow).where(JobRow.job_id == job_id))


def add_errors(session: orm.Session, job_id: int, errors: Sequence[RowError | RowWarning]) -> None:
    rows = [
        {
            "job_id": job_id,
            "line": error.line,
            "sku": error.sku[:SKU_COLUMN_LENGTH] if error.sku else None,
            "field": error.field[:FIELD_LENGTH],
            "reason": f"{WARNING if isinstance(error, RowWarning) else ''}{error.reason}"[:REASON_LENGTH],
        }
        for error in errors
    ]
    if rows:
        session.execute(sa.insert(ImportErrorRow), rows)

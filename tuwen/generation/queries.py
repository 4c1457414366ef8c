"""What is asked of the job table. Never commits: the caller's `Database.write()` block is the transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import REASON_LENGTH, GeneratedImageRow, JobRow, utc_now


def count_jobs_waiting(session: orm.Session, before: int | None = None) -> int:
    """Queued jobs; with `before`, those that come before that one."""
    statement = sa.select(sa.func.count()).select_from(JobRow).where(*_of_generation("queued"))
    if before is not None:
        statement = statement.where(JobRow.job_id < before)
    return session.scalar(statement) or 0


def has_unfinished_jobs(session: orm.Session) -> bool:
    return session.scalar(sa.select(sa.exists().where(*_of_generation("queued", "running")))) or False


def claim_generation_job(session: orm.Session, silent_since: datetime) -> JobRow | None:
    """Begin the oldest job that waits, or whose worker has given no sign of life since then."""
    abandoned = sa.and_(*_of_generation("running"), JobRow.heartbeat_at < silent_since)
    job = session.scalar(
        sa.select(JobRow)
        .where(sa.or_(sa.and_(*_of_generation("queued")), abandoned))
        .order_by(JobRow.job_id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if job is not None:
        job.status, job.progress = "running", 0.0
        job.attempts += 1
        job.heartbeat_at = utc_now()
        job.started_at = job.started_at or job.heartbeat_at
    return job


def report_on_job(session: orm.Session, job_id: int, attempt: int, progress: float | None = None) -> bool:
    """A sign of life. False where the job was cancelled, or another worker has taken it up."""
    values: dict[str, Any] = {"heartbeat_at": utc_now()}
    if progress is not None:
        values["progress"] = progress
    job = session.scalar(sa.select(JobRow.job_id).where(*_own_attempt(job_id, attempt)).with_for_update())
    if job is not None:
        session.execute(sa.update(JobRow).where(JobRow.job_id == job_id).values(values))
    return job is not None


def finish_job(
    session: orm.Session,
    job_id: int,
    attempt: int,
    *,
    error: str | None = None,
    images: Sequence[GeneratedImageRow] = (),
) -> bool:
    """Done with these images, or failed with this error. False where the job is no longer this attempt's."""
    job = session.scalar(sa.select(JobRow).where(*_own_attempt(job_id, attempt)).with_for_update())
    if job is None:
        return False
    job.finished_at = utc_now()
    if error is not None:
        job.status, job.error = "failed", error[:REASON_LENGTH]
    else:
        job.status, job.progress = "done", 1.0
        session.add_all(images)
    return True


def give_back_job(session: orm.Session, job_id: int, attempt: int) -> None:
    """A worker that is told to stop leaves its job for the next one; the attempt doesn't count."""
    session.execute(
        sa.update(JobRow)
        .where(*_own_attempt(job_id, attempt))
        .values(status="queued", progress=0.0, attempts=attempt - 1)
    )


def generated_images(session: orm.Session, job_id: int) -> list[GeneratedImageRow]:
    statement = sa.select(GeneratedImageRow).where(GeneratedImageRow.job_id == job_id)
    return list(session.scalars(statement.order_by(GeneratedImageRow.position)))


def find_generated_image(session: orm.Session, image_id: int) -> GeneratedImageRow | None:
    return session.get(GeneratedImageRow, image_id)


def delete_jobs_finished_before(session: orm.Session, moment: datetime, limit: int) -> int:
    """Some of them; returns how many. Their pictures' rows go too; the files follow where no product shows them."""
    finished = sa.select(JobRow.job_id).where(JobRow.finished_at < moment, JobRow.kind == "generate")
    job_ids = list(session.scalars(finished.order_by(JobRow.job_id).limit(limit)))
    session.execute(sa.delete(GeneratedImageRow).where(GeneratedImageRow.job_id.in_(job_ids)))
    session.execute(sa.delete(JobRow).where(JobRow.job_id.in_(job_ids)))
    return len(job_ids)


def _of_generation(*statuses: str) -> tuple[sa.ColumnElement[bool], ...]:
    return JobRow.kind == "generate", JobRow.status.in_(statuses)


def _own_attempt(job_id: int, attempt: int) -> tuple[sa.ColumnElement[bool], ...]:
    return JobRow.job_id == job_id, JobRow.status == "running", JobRow.attempts == attempt

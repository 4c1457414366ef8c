"""What jobs of all kinds have in common: each is found by its kind alone, and ends once.

Never commits: the caller's `Database.write()` block is the transaction.
"""

from sqlalchemy import orm

from orm_models import JobRow, utc_now
from tuwen.errors import NotCancellable


def find_job(session: orm.Session, kind: str, job_id: int, *, lock: bool = False) -> JobRow | None:
    job = session.get(JobRow, job_id, with_for_update=lock or None)
    return job if job and job.kind == kind else None


def cancel_job(job: JobRow) -> bool:
    """Of one that is locked. False where it is cancelled already, which is no error; raises NotCancellable."""
    if job.status in ("done", "failed"):
        raise NotCancellable(f"Job {job.job_id} is {job.status} already.")
    if job.status == "cancelled":
        return False
    job.status, job.finished_at = "cancelled", utc_now()
    return True

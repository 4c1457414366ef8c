"""A change of the models as the API sees it: taken as a job, read, cancelled, rolled back, cleaned up after.

The work itself is `reindex.py`'s.
"""

import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import DroppedIndexes, IndexInfo, ReindexJob, ReindexPhase, ReindexRequest
from orm_models import Database, JobRow, VectorIndexRow, utc_now
from tuwen.errors import GateClosed, IndexChanged, NotCancellable, NotFound, ReindexConflict
from tuwen.indexing.reindex_gate import processes_without
from tuwen.vectors.indexes import activate, delete_bindings_page, indexes_with
from tuwen.vectors.registry import IndexRegistry
from vector_db import VectorDB

logger = logging.getLogger(__name__)

PAGE = 500
UNFINISHED = ("queued", "running")


class ReindexJobs:
    """One at a time. Blocks."""

    def __init__(self, database: Database, vector_db: VectorDB, registry: IndexRegistry) -> None:
        self._database = database
        self._vector_db = vector_db
        self._registry = registry

    def create(self, request: ReindexRequest) -> ReindexJob:
        """Raises ReindexConflict while another is under way, or a retired index still takes its place in memory."""
        with self._database.write() as session:
            _require_none_under_way(session)
            retired = indexes_with(session, "retired")
            if retired:
                raise ReindexConflict(
                    f"{retired[0].collection} is kept for a rollback, with its models in memory. "
                    "Drop it first: python cli.py reindex --drop-retired"
                )
            job = JobRow(kind="reindex", request=request.model_dump(mode="json"), state={}, created_at=utc_now())
            session.add(job)
            session.flush()
            return describe(job)

    def read(self, job_id: int) -> ReindexJob:
        with self._database.read() as session:
            return describe(_find(session, job_id))

    def cancel(self, job_id: int) -> None:
        """What was built is dropped. Cancelling twice is no error; a job that ended is one."""
        with self._database.write() as session:
            job = _find(session, job_id, lock=True)
            if job.status in ("done", "failed"):
                raise NotCancellable(f"Job {job_id} is {job.status} already.")
            if job.status == "cancelled":
                return
            job.status, job.finished_at = "cancelled", utc_now()
            drop_opened(session, job)

    def roll_back(self) -> IndexInfo:
        """The retired index answers again, within two seconds everywhere."""
        with self._database.read() as session:
            retired = indexes_with(session, "retired")
        if not retired:
            raise ReindexConflict("There is no retired index to go back to.")
        if not self._vector_db.has_collection(retired[0].collection):
            raise ReindexConflict(f"The collection {retired[0].collection} is gone from Milvus: there is no way back.")
        try:
            without = processes_without(self._database, retired[0].model_fingerprint)
        except GateClosed as error:
            raise ReindexConflict(error.detail) from error
        if without:
            raise ReindexConflict(f"Its models are not loaded by {', '.join(without)}: try again in a minute.")
        try:
            with self._database.write() as session:
                _require_none_under_way(session)
                activate(session, retired[0].vector_index_id, "retired")
        except IndexChanged as error:
            raise ReindexConflict(error.detail) from error
        index = self._registry.look()
        return IndexInfo(collection=index.collection, model=index.encoding.encoders.name)

    def drop_retired(self) -> DroppedIndexes:
        """And builds that were given up. The loops drop them within seconds."""
        with self._database.write() as session:
            _require_none_under_way(session)
            return DroppedIndexes(collections=drop_all(session, "retired", "building"))


class JobReport:
    """How far the job is. Every word of it also asks whether the job still runs."""

    def __init__(self, database: Database, job_id: int) -> None:
        self._database = database
        self._job_id = job_id
        self._state: dict[str, Any] = {}

    def require_running(self, session: orm.Session) -> JobRow:
        """Raises IndexChanged where it was cancelled."""
        job = next_job(session, self._job_id, lock=True)
        if job is None:
            raise IndexChanged("it was cancelled.")
        return job

    def say(self, phase: ReindexPhase, **state: Any) -> None:
        self._state |= {"phase": phase} | state
        with self._database.write() as session:
            job = self.require_running(session)
            job.state, job.heartbeat_at = dict(self._state), utc_now()
            # Products that come in during a round are done, and not in its total.
            job.progress = min(self._state.get("done", 0) / max(self._state.get("total", 0), 1), 1.0)

    def finish(self, phase: ReindexPhase, vector_index_id: int | None) -> None:
        """The switch and the job's end are one transaction."""
        self._state |= {"phase": phase}
        with self._database.write() as session:
            job = self.require_running(session)
            if vector_index_id is not None:
                activate(session, vector_index_id, "building")
            job.status, job.progress, job.state, job.finished_at = "done", 1.0, dict(self._state), utc_now()


def describe(job: JobRow) -> ReindexJob:
    state: dict[str, Any] = job.state or {}
    return ReindexJob(
        job_id=job.job_id,
        status=job.status,
        status_url=f"/reindex/{job.job_id}",
        clip_model=job.request["clip_model"],
        text_model=job.request["text_model"],
        progress=job.progress,
        error=job.error,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        **{name: state[name] for name in ReindexJob.model_fields if name in state},
    )


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
    for row in indexes_with(session, "building"):
        if row.collection == (job.state or {}).get("collection"):
            row.status = "dropping"


def drop_given_up(database: Database, vector_db: VectorDB) -> None:
    """Collection first, then bindings, then the row: a kill in between leaves what makes it come again."""
    with database.read() as session:
        rows = indexes_with(session, "dropping")
    for row in rows:
        if vector_db.has_collection(row.collection):
            vector_db.drop_collection(row.collection)
        forget_bindings(database, row.vector_index_id)
        with database.write() as session:
            session.delete(session.merge(row))
        logger.info("Dropped the collection %s", row.collection)


def forget_bindings(database: Database, vector_index_id: int) -> None:
    while True:
        with database.write() as session:
            if not delete_bindings_page(session, vector_index_id, PAGE):
                return


def _find(session: orm.Session, job_id: int, *, lock: bool = False) -> JobRow:
    job = session.get(JobRow, job_id, with_for_update=lock or None)
    if job is None or job.kind != "reindex":
        raise NotFound(f"There is no reindex job {job_id}.")
    return job


def _require_none_under_way(session: orm.Session) -> None:
    session.execute(sa.select(VectorIndexRow.status).where(VectorIndexRow.status == "active").with_for_update())  # one
    job = next_job(session)
    if job is not None:
        raise ReindexConflict(f"Reindex job {job.job_id} is under way: let it end, or cancel it.")

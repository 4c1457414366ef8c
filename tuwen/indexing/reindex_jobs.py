"""A change of the models as the API sees it: taken as a job, read, cancelled, rolled back, cleaned up after.

The work itself is `reindex.py`'s; what one process writes of it, `reindex_attempts.py`'s.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import DroppedIndexes, ReindexJob, ReindexRequest, RolledBackIndex
from orm_models import JobRow, VectorIndexRow, utc_now
from tuwen.database.engine import Database
from tuwen.database.jobs import cancel_job, find_job
from tuwen.encoders.endpoint_name import unnamed_server
from tuwen.errors import GateClosed, IndexChanged, InvalidInput, NotFound, ReindexConflict
from tuwen.indexing.reindex_attempts import drop_all, drop_opened, next_job
from tuwen.indexing.reindex_gate import processes_without
from tuwen.settings import Settings
from tuwen.vectors.indexes import activate, indexes_with
from tuwen.vectors.registry import IndexRegistry
from vector_db import VectorDB


class ReindexJobs:
    """One at a time. Blocks."""

    def __init__(self, settings: Settings, database: Database, vector_db: VectorDB, registry: IndexRegistry) -> None:
        self._settings = settings
        self._database = database
        self._vector_db = vector_db
        self._registry = registry

    def create(self, request: ReindexRequest) -> ReindexJob:
        """Raises InvalidInput for an endpoint of a server that no setting names; ReindexConflict while another is under
        way, or a retired index still takes its place in memory.

        The very same that is under way is given again: whoever lost sight of it finds it so.
        """
        for field, model in (("clip_model", request.clip_model), ("text_model", request.text_model)):
            server = unnamed_server(model, self._settings)
            if server is not None:
                raise InvalidInput.in_field(field, f"names {server}, and no setting does; ENDPOINT_SERVERS may")
        with self._database.write() as session:
            same = _under_way(session)
            if same is not None and ReindexRequest.model_validate(same.request) == request:
                return describe(same)
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
            if cancel_job(job):
                drop_opened(session, job)

    def roll_back(self, collection: str | None = None) -> RolledBackIndex:
        """This index answers again, within two seconds everywhere; by default the one before the last change.

        Whoever heard no answer may ask again: an index that answers already goes on to.
        """
        with self._database.read() as session:
            chosen = _to_go_back_to(session, collection)
        if chosen.status == "retired":
            self._require_ready(chosen)
            try:
                with self._database.write() as session:
                    _require_none_under_way(session)
                    activate(session, chosen.vector_index_id, "retired")
            except IndexChanged as error:
                with self._database.read() as session:
                    if _to_go_back_to(session, collection).status == "retired":
                        raise ReindexConflict(error.detail) from error
        return self._describe_live()

    def _require_ready(self, retired: VectorIndexRow) -> None:
        if not self._vector_db.has_collection(retired.collection):
            raise ReindexConflict(f"The collection {retired.collection} is gone from Milvus: there is no way back.")
        try:
            without = processes_without(self._database, retired.model_fingerprint)
        except GateClosed as error:
            raise ReindexConflict(error.detail) from error
        if without:
            raise ReindexConflict(f"Its models are not loaded by {', '.join(without)}: try again in a minute.")

    def _describe_live(self) -> RolledBackIndex:
        index = self._registry.look()
        with self._database.read() as session:
            retired = indexes_with(session, "retired")
        encoders = index.encoding.encoders
        return RolledBackIndex(
            collection=index.collection,
            model=encoders.name,
            clip_model=encoders.models.clip,
            text_model=encoders.models.text,
            query_prompt=encoders.models.query_prompt,
            document_prompt=encoders.models.document_prompt,
            since=index.activated_at,
            retired=retired[0].collection if retired else None,
        )

    def drop_retired(self) -> DroppedIndexes:
        """And builds that were given up. The loops drop them within seconds."""
        with self._database.write() as session:
            _require_none_under_way(session)
            return DroppedIndexes(collections=drop_all(session, "retired", "building"))


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


def _find(session: orm.Session, job_id: int, *, lock: bool = False) -> JobRow:
    job = find_job(session, "reindex", job_id, lock=lock)
    if job is None:
        raise NotFound(f"There is no reindex job {job_id}.")
    return job


def _to_go_back_to(session: orm.Session, collection: str | None) -> VectorIndexRow:
    """Retired, or active where it has gone back to it already."""
    known = indexes_with(session, "active", "retired")
    if collection is not None:
        named = next((row for row in known if row.collection == collection), None)
        if named is None:
            there = ", ".join(row.collection for row in known)
            raise ReindexConflict(f"There is no index {collection} that could answer. There is: {there or 'none'}.")
        return named
    retired = [row for row in known if row.status == "retired"][:1]
    if not retired:
        raise ReindexConflict("There is no retired index to go back to.")
    active = [row for row in known if row.status == "active"]
    return min(active + retired, key=lambda row: row.vector_index_id)  # a change of the models made the newer one


def _under_way(session: orm.Session) -> JobRow | None:
    session.execute(sa.select(VectorIndexRow.status).where(VectorIndexRow.status == "active").with_for_update())  # one
    return next_job(session)


def _require_none_under_way(session: orm.Session) -> None:
    job = _under_way(session)
    if job is not None:
        raise ReindexConflict(f"Reindex job {job.job_id} is under way: let it end, or cancel it.")

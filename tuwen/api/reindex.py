"""`/reindex`: other models for the index, without an outage."""

from fastapi import Response
from fastapi.routing import APIRouter

from data_models import DroppedIndexes, ReindexJob, ReindexRequest, RollbackRequest, RolledBackIndex
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.openapi import sent
from tuwen.api.problems import problem_responses
from tuwen.api.state import ApiDependency, JobId
from tuwen.errors import (
    DatabaseUnavailable,
    InvalidInput,
    MalformedRequest,
    NotCancellable,
    NotFound,
    ReindexConflict,
    VectorDBUnavailable,
)

router = APIRouter(tags=["operation"], route_class=GuardedRoute)


@router.post(
    "/reindex",
    status_code=202,
    summary="Change the models",
    responses=problem_responses(MalformedRequest, InvalidInput, ReindexConflict, DatabaseUnavailable)
    | sent(202, "Location"),
)
@needs("admin")
async def reindex(body: ReindexRequest, response: Response, api: ApiDependency) -> ReindexJob:
    """Builds an index of these models beside the live one, checks it, and has it take its place; poll `status_url`."""
    job = await api.threads.writes.run(api.reindex.create, body)
    response.headers["Location"] = job.status_url
    return job


@router.post(
    "/reindex/rollback",
    summary="Go back to the models before",
    responses=problem_responses(
        MalformedRequest, InvalidInput, ReindexConflict, DatabaseUnavailable, VectorDBUnavailable
    ),
)
@needs("admin")
async def roll_back(api: ApiDependency, body: RollbackRequest | None = None) -> RolledBackIndex:
    """The index before answers again, everywhere within two seconds; what changed since then is indexed again.

    Safe to repeat: what answers already goes on to. Only whoever names the other index by its collection goes forth.
    """
    return await api.threads.writes.run(api.reindex.roll_back, body.collection if body else None)


@router.delete(
    "/reindex/retired",
    status_code=202,
    summary="Drop the index before",
    responses=problem_responses(ReindexConflict, DatabaseUnavailable),
)
@needs("admin")
async def drop_retired(api: ApiDependency) -> DroppedIndexes:
    """And builds that were given up. After this there is no rollback."""
    return await api.threads.writes.run(api.reindex.drop_retired)


@router.get(
    "/reindex/{job_id}",
    summary="How a change of the models stands",
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable),
)
@needs("admin")
async def get_reindex(job_id: JobId, api: ApiDependency) -> ReindexJob:
    return await api.threads.reads.run(api.reindex.read, job_id)


@router.post(
    "/reindex/{job_id}/cancel",
    status_code=204,
    summary="Cancel a change of the models",
    responses=problem_responses(NotFound, InvalidInput, NotCancellable, DatabaseUnavailable),
)
@needs("admin")
async def cancel_reindex(job_id: JobId, api: ApiDependency) -> None:
    """The live index stays; what was built is dropped."""
    await api.threads.writes.run(api.reindex.cancel, job_id)

"""`/reindex`: other models for the index, without an outage."""

from fastapi import Request, Response
from fastapi.routing import APIRouter

from data_models import DroppedIndexes, ReindexJob, ReindexRequest, RollbackRequest, RolledBackIndex
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.forms import json_as
from tuwen.api.openapi import json_body, sent
from tuwen.api.problems import problem_responses
from tuwen.api.state import ApiDependency, JobId
from tuwen.errors import (
    DatabaseUnavailable,
    InvalidInput,
    MalformedRequest,
    NotCancellable,
    NotFound,
    ReindexConflict,
    UnsupportedMediaType,
    VectorDBUnavailable,
)

router = APIRouter(tags=["operation"], route_class=GuardedRoute)


@router.post(
    "/reindex",
    status_code=202,
    summary="Change the models",
    openapi_extra=json_body(ReindexRequest),
    responses=problem_responses(
        MalformedRequest, InvalidInput, UnsupportedMediaType, ReindexConflict, DatabaseUnavailable
    )
    | sent(202, "Location"),
)
@needs("admin")
async def reindex(request: Request, response: Response, api: ApiDependency) -> ReindexJob:
    """Builds an index of these models beside the live one, checks it, and has it take its place; poll `status_url`."""
    job = await api.threads.writes.run(api.reindex.create, await json_as(ReindexRequest, request))
    response.headers["Location"] = job.status_url
    return job


@router.post(
    "/reindex/rollback",
    summary="Go back to the models before",
    openapi_extra=json_body(RollbackRequest, required=False),
    responses=problem_responses(
        MalformedRequest,
        InvalidInput,
        UnsupportedMediaType,
        ReindexConflict,
        DatabaseUnavailable,
        VectorDBUnavailable,
    ),
)
@needs("admin")
async def roll_back(request: Request, api: ApiDependency) -> RolledBackIndex:
    """The index before answers again, everywhere within two seconds; what changed since then is indexed again.

    Safe to repeat: what answers already goes on to. Only whoever names the other index by its collection goes forth.
    """
    is_left_out = await request.body() in (b"", b"null")
    body = RollbackRequest() if is_left_out else await json_as(RollbackRequest, request)
    return await api.threads.writes.run(api.reindex.roll_back, body.collection)


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

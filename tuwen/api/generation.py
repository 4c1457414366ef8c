"""`/generate`: A5, as jobs."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.routing import APIRouter
from fastapi.sse import EventSourceResponse, ServerSentEvent

from data_models import ENDED, GenerateRequest, GenerationJob
from tuwen.access.errors import TooManyAtOnce
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.admission import Caller, admit, hold_slot, take_back
from tuwen.api.forms import json_as
from tuwen.api.openapi import json_body, sent
from tuwen.api.problems import problem_responses
from tuwen.api.state import ApiDependency, JobId
from tuwen.errors import (
    AppError,
    DatabaseUnavailable,
    ImageStoreUnavailable,
    InvalidInput,
    MalformedRequest,
    NotCancellable,
    NotFound,
    QueueFull,
    UnsupportedMediaType,
)

router = APIRouter(tags=["generation"], route_class=GuardedRoute)


@router.post(
    "/generate",
    status_code=202,
    summary="Draw a product picture for a title",
    openapi_extra=json_body(GenerateRequest),
    responses={
        200: {"model": GenerationJob, "description": "It ended within wait_s.", **sent(200, "Location")[200]},
        **sent(202, "Location"),
        **problem_responses(
            MalformedRequest, InvalidInput, UnsupportedMediaType, TooManyAtOnce, QueueFull, DatabaseUnavailable
        ),
    },
)
@needs("write")
async def generate(request: Request, response: Response, api: ApiDependency) -> GenerationJob:
    """A5. Takes the job and answers at once; poll `status_url`, follow `events_url`, or wait here with `wait_s`."""
    body = await json_as(GenerateRequest, request)
    caller: Caller = request.state.caller
    if body.wait_s:
        await hold_slot(request, caller, streams=True)
    await admit(request, caller, "generate")
    try:
        job_id = await api.threads.writes.run(api.generation.create, body, caller.client)
    except AppError:
        take_back(request, caller, "generate")
        raise
    job = await api.generation.wait(job_id, body.wait_s)
    response.headers["Location"] = job.status_url
    if job.status in ENDED:
        response.status_code = 200
    return job


@router.get(
    "/generate/{job_id}",
    summary="How a generation job stands",
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable, ImageStoreUnavailable),
)
@needs("write")
async def get_generation(job_id: JobId, api: ApiDependency) -> GenerationJob:
    """A job that is done has its pictures, each with the products that look most like it."""
    return await api.generation.read(job_id)


@router.delete(
    "/generate/{job_id}",
    status_code=204,
    summary="Cancel a generation job",
    responses=problem_responses(NotFound, InvalidInput, NotCancellable, DatabaseUnavailable),
)
@needs("write")
async def cancel_generation(job_id: JobId, api: ApiDependency) -> None:
    """Drawing stops within one denoising step."""
    await api.threads.writes.run(api.generation.cancel, job_id)


async def existing_job(job_id: JobId, api: ApiDependency) -> int:
    await api.threads.reads.run(api.generation.require, job_id)
    return job_id


@router.get(
    "/generate/{job_id}/events",
    summary="Follow a generation job",
    response_class=EventSourceResponse,
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable),
)
@needs("write", streams=True)
async def get_generation_events(
    job_id: Annotated[int, Depends(existing_job)], api: ApiDependency
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `progress` with the job at each change, and at last one named as it ended (`done`, ...)."""
    async for job in api.generation.watch(job_id):
        yield ServerSentEvent(data=job, event=job.status if job.status in ENDED else "progress")

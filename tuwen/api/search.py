"""`/search`: A1 to A4."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRouter

from data_models import SearchRequest, SearchResponse
from tuwen.api.access import GuardedRoute, needs, require_scope
from tuwen.api.forms import content_type, read_form, read_json, search_form, uploaded_bytes, validated
from tuwen.api.openapi import search_body
from tuwen.api.problems import IMAGE_ERRORS, problem_responses
from tuwen.api.state import ApiDependency
from tuwen.errors import MalformedRequest, NotFound, Overloaded, UnsupportedMediaType, VectorDBUnavailable

CLIENT_GONE = 499  # nobody reads it; as other servers write it into their logs

router = APIRouter(tags=["search"], route_class=GuardedRoute)


@router.post(
    "/search",
    response_model=SearchResponse,
    summary="Search by a picture or a text",
    openapi_extra=search_body(),
    responses=problem_responses(
        MalformedRequest, NotFound, *IMAGE_ERRORS, UnsupportedMediaType, Overloaded, VectorDBUnavailable
    ),
)
@needs("search")
async def search(request: Request, api: ApiDependency) -> Response:
    """A1 `image_to_image`, A2 `text_to_text`, A3 `image_to_text`, A4 `text_to_image`: each takes exactly one query.

    As JSON: `text`, `image_base64`, `image_url`, `product_id`, or several of these as `terms`. As a form: the same
    fields, or the file `image`.
    """
    if content_type(request) == "application/json":
        body, image = await read_json(request), None
    else:
        async with read_form(request) as form:
            body, image = search_form(form), await uploaded_bytes(form)
    query = validated(SearchRequest, body)
    if query.exact:
        require_scope(request, "admin")
    response = await _unless_gone(request, api.searcher.search(query, image))
    if response is None:
        return Response(status_code=CLIENT_GONE)
    api.metrics.observe_search(response, api.services.encoding.take_cache_counts())
    # pydantic writes it at once; FastAPI would make Python objects of it first, for a fifth of a search's time.
    return Response(response.model_dump_json(), media_type="application/json")


async def _unless_gone(request: Request, search: Coroutine[Any, Any, SearchResponse]) -> SearchResponse | None:
    """None where the client hangs up before its answer: what still waits of its search is given up, and takes nobody's
    place. FastAPI itself goes on with it."""
    searching, gone = asyncio.ensure_future(search), asyncio.ensure_future(_hangs_up(request))
    try:
        await asyncio.wait((searching, gone), return_when=asyncio.FIRST_COMPLETED)
        return await searching if searching.done() else None
    finally:
        gone.cancel()
        searching.cancel()  # if it is under way still
        del searching  # as in `WorkPool.run`


async def _hangs_up(request: Request) -> None:
    """`request`: with its body read, after which nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

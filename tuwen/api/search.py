"""`/search`: A1 to A4."""

from fastapi import Request, Response
from fastapi.routing import APIRouter

from data_models import SearchRequest, SearchResponse
from tuwen.api.forms import content_type, read_form, read_json, search_body, search_form, uploaded_bytes, validated
from tuwen.api.problems import IMAGE_ERRORS, problem_responses
from tuwen.api.state import ApiDependency
from tuwen.errors import MalformedRequest, NotFound, Overloaded, UnsupportedMediaType, VectorDBUnavailable

router = APIRouter(tags=["search"])


@router.post(
    "/search",
    response_model=SearchResponse,
    summary="Search by a picture or a text",
    openapi_extra=search_body(),
    responses=problem_responses(
        MalformedRequest, NotFound, *IMAGE_ERRORS, UnsupportedMediaType, Overloaded, VectorDBUnavailable
    ),
)
async def search(request: Request, api: ApiDependency) -> Response:
    """A1 `image_to_image`, A2 `text_to_text`, A3 `image_to_text`, A4 `text_to_image`: each takes exactly one query.

    As JSON: `text`, `image_base64`, `image_url` or `product_id`. As a form: the same fields, or the file `image`.
    """
    if content_type(request) == "application/json":
        body, image = await read_json(request), None
    else:
        async with read_form(request) as form:
            body, image = search_form(form), await uploaded_bytes(form)
    query = validated(SearchRequest, body)
    response = await api.searcher.search(query, image)
    api.metrics.observe_search(response, api.services.encoding.take_cache_counts())
    # pydantic writes it at once; FastAPI would make Python objects of it first, for a fifth of a search's time.
    return Response(response.model_dump_json(), media_type="application/json")

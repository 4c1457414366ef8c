"""`/product/…/duplicates` and `/product/…/similar`; `/product/duplicates`: a report of all, as a job."""

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated, Literal

from fastapi import Query, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRouter

from data_models import DuplicatesJob, ProductDuplicates, SearchMode, SearchRequest, SearchResponse
from orm_models import DuplicatePairRow
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.forms import validated
from tuwen.api.openapi import sent
from tuwen.api.problems import problem_responses
from tuwen.api.state import Api, ApiDependency, JobId, ProductId
from tuwen.catalogue.twins import as_duplicates
from tuwen.errors import (
    DatabaseUnavailable,
    InvalidInput,
    NotCancellable,
    NotFound,
    Overloaded,
    VectorDBUnavailable,
)

router = APIRouter(tags=["products"], route_class=GuardedRoute)

REPORT_PATH = "/product/duplicates"
COLUMNS = ("product_id", "other_id", "kind", "similarity", "vector_similarity")
MEDIA_TYPES = {"csv": "text/csv", "jsonl": "application/x-ndjson"}
PAIRS = {
    "content": {kind: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()},
    "description": ", ".join(COLUMNS),
}
SIMILAR_MODES = Literal["image_to_image", "text_to_text", "image_to_text", "text_to_image", "hybrid"]


@router.post(
    REPORT_PATH,
    status_code=202,
    summary="Report all products with the same picture",
    responses=problem_responses(DatabaseUnavailable) | sent(202, "Location"),
)
@needs("write")
async def report_duplicates(response: Response, api: ApiDependency) -> DuplicatesJob:
    """Of the key's shop (a key without one: of `default`). Poll `status_url`; `pairs_url` has what is found so far.
    While one is under way the same call answers with that."""
    job = await api.threads.writes.run(api.reports.create)
    response.headers["Location"] = job.status_url
    return job


@router.get(
    REPORT_PATH + "/{job_id}",
    summary="How a report of duplicates stands",
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable),
)
@needs("write")
async def get_duplicates_report(job_id: JobId, api: ApiDependency) -> DuplicatesJob:
    return await api.threads.reads.run(api.reports.read, job_id)


@router.get(
    REPORT_PATH + "/{job_id}/pairs",
    summary="What a report of duplicates has found",
    response_class=Response,
    responses={200: PAIRS, **problem_responses(NotFound, InvalidInput, DatabaseUnavailable)},
)
@needs("write", streams=True)
async def get_duplicate_pairs(
    job_id: JobId, api: ApiDependency, file_format: Annotated[Literal["csv", "jsonl"], Query(alias="format")] = "csv"
) -> StreamingResponse:
    """Each pair once, `other_id` being the older product: CSV, or JSON lines."""
    first = await api.threads.reads.run(api.reports.pairs_after, job_id, 0)
    headers = {"Content-Disposition": f'attachment; filename="duplicates-{job_id}.{file_format}"'}
    pairs = _pairs(api, job_id, first, as_csv=file_format == "csv")
    return StreamingResponse(pairs, media_type=MEDIA_TYPES[file_format], headers=headers)


@router.post(
    REPORT_PATH + "/{job_id}/cancel",
    status_code=204,
    summary="Cancel a report of duplicates",
    responses=problem_responses(NotFound, InvalidInput, NotCancellable, DatabaseUnavailable),
)
@needs("write")
async def cancel_duplicates_report(job_id: JobId, api: ApiDependency) -> None:
    """What it has found stays."""
    await api.threads.writes.run(api.reports.cancel, job_id)


@router.get(
    "/product/{product_id}/duplicates",
    summary="Products with the same picture",
    responses=problem_responses(NotFound, InvalidInput, Overloaded, VectorDBUnavailable),
)
@needs("search")
async def get_duplicates(product_id: ProductId, api: ApiDependency) -> ProductDuplicates:
    """Of the same shop: those whose main picture is this one's, whether it was saved anew, scaled, cropped a little or
    has a watermark."""

    def find() -> ProductDuplicates:
        found = api.finder.find_one(product_id)
        with api.services.database.read() as session:
            return ProductDuplicates(items=as_duplicates(session, found))

    return await api.threads.counts.run(find)


@router.get(
    "/product/{product_id}/similar",
    summary="Products like this one",
    response_model=SearchResponse,
    responses=problem_responses(NotFound, InvalidInput, Overloaded, VectorDBUnavailable),
)
@needs("search")
async def get_similar(
    product_id: ProductId,
    api: ApiDependency,
    mode: SIMILAR_MODES = "image_to_image",
    top_k: Annotated[int, Query(ge=1, le=100)] = 10,
    offset: Annotated[int, Query(ge=0)] = 0,
    fold: bool = False,
) -> Response:
    """The search by `product_id`, as `POST /search` does it; the product itself is left out."""
    fields = {"mode": SearchMode(mode), "product_id": product_id, "top_k": top_k, "offset": offset, "fold": fold}
    response = await api.searcher.search(validated(SearchRequest, fields))
    api.metrics.observe_search(response, api.services.encoding.take_cache_counts())
    return Response(response.model_dump_json(), media_type="application/json")


async def _pairs(api: Api, job_id: int, pairs: Sequence[DuplicatePairRow], *, as_csv: bool) -> AsyncIterator[bytes]:
    run = api.threads.reads.run
    if as_csv:
        yield f"\ufeff{','.join(COLUMNS)}\r\n".encode()
    while pairs:
        yield await run(partial(_as_bytes, pairs, as_csv=as_csv))
        pairs = await run(api.reports.pairs_after, job_id, pairs[-1].duplicate_pair_id)


def _as_bytes(pairs: Sequence[DuplicatePairRow], *, as_csv: bool) -> bytes:
    rows = [{name: getattr(pair, name) for name in COLUMNS} for pair in pairs]
    text = io.StringIO()
    if as_csv:
        csv.writer(text).writerows(row.values() for row in rows)
    else:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    return text.getvalue().encode()

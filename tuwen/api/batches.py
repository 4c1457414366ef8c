"""`PATCH /product`: many products at once, each by its sku."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRouter

from data_models import MAX_BATCH_ROWS, BatchChanges, BatchResult, BatchRow, ProblemField, RowResult
from tuwen.api.forms import json_body, read_json, require_json, require_within_limits, validated
from tuwen.api.problems import accepted_language, problem_responses, worded
from tuwen.api.state import Api, ApiDependency
from tuwen.errors import DatabaseUnavailable, InvalidInput, MalformedRequest, Overloaded, UnsupportedMediaType

router = APIRouter(tags=["products"])

EXAMPLE = {"products": [{"sku": "SOFA-001", "price": 1799}, {"sku": "LAMP-7", "attributes": {"库存": 3}}]}


@router.patch(
    "/product",
    summary="Change many products",
    response_model=BatchResult,
    openapi_extra=json_body(BatchChanges, EXAMPLE),
    responses=problem_responses(MalformedRequest, InvalidInput, UnsupportedMediaType, Overloaded, DatabaseUnavailable),
)
async def change_products(request: Request, api: ApiDependency) -> Response:
    """Up to 1,000 rows, each a product by its `sku` and what of it shall be another; what a row leaves out stays, and
    null clears it. Rows that can't be done are said to be `refused`, and keep no other out: all others are one
    transaction, which is done when the answer comes. The same call again changes nothing more."""
    require_json(request)
    body = await read_json(request)
    rows = body.pop("products", None)
    if body:
        raise InvalidInput.in_field(next(iter(body)), "is unknown; the body has products alone")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_BATCH_ROWS:
        raise InvalidInput.in_field("products", f"must be a list of 1 to {MAX_BATCH_ROWS:,} rows")
    result = await api.threads.writes.run(_change, api, rows)
    for row in result.rows:
        row.errors = [worded(each, accepted_language(request)) for each in row.errors]
    return Response(result.model_dump_json(), media_type="application/json")


def _change(api: Api, rows: Sequence[Any]) -> BatchResult:
    good: dict[int, BatchRow] = {}
    results: list[RowResult] = []
    for number, fields in enumerate(rows):
        try:
            row = validated(BatchRow, fields)
            require_within_limits(row, api.services.settings)
            good[number] = row
        except InvalidInput as error:
            results.append(_refused(number, fields, error))
    results += api.writer.change_many(good)
    counts = {status: sum(row.status == status for row in results) for status in ("changed", "unchanged", "refused")}
    return BatchResult(**counts, rows=sorted(results, key=lambda row: row.row))


def _refused(number: int, fields: object, error: InvalidInput) -> RowResult:
    sku = fields.get("sku") if isinstance(fields, dict) else None
    errors = [ProblemField(field=each.field, message=each.message) for each in error.errors]
    return RowResult(row=number, sku=sku if isinstance(sku, str) else None, status="refused", errors=errors)

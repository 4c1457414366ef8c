"""For callers who know products by their own numbers: `/product/by-sku`, and `PATCH /product` for many at once."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Path, Request, Response
from fastapi.routing import APIRouter

from data_models import (
    MAX_BATCH_ROWS,
    BatchChanges,
    BatchResult,
    BatchRow,
    ProblemField,
    Product,
    ProductFields,
    RowResult,
    Sku,
)
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.conditions import IF_MATCH, IF_NONE_MATCH, condition_of, set_etag
from tuwen.api.forms import (
    checked_uploads,
    product_fields,
    read_form,
    read_json,
    require_json,
    validated,
)
from tuwen.api.openapi import json_body, multipart_body, sent
from tuwen.api.problems import IMAGE_ERRORS, accepted_language, as_json, problem_responses, worded
from tuwen.api.products import known_index_id, picture_of
from tuwen.api.reasons import product_in
from tuwen.api.state import Api, ApiDependency
from tuwen.catalogue.limits import require_within_limits
from tuwen.catalogue.pictures import pictures_of
from tuwen.catalogue.queries import find_product, sku_owner
from tuwen.catalogue.representation import as_product
from tuwen.errors import (
    DatabaseUnavailable,
    InvalidInput,
    MalformedRequest,
    NotFound,
    Overloaded,
    UnsupportedMediaType,
    VersionMismatch,
)
from tuwen.texts import canonical_text, encodable

router = APIRouter(tags=["products"], route_class=GuardedRoute)

EXAMPLE = {"products": [{"sku": "SOFA-001", "price": 1799}, {"sku": "LAMP-7", "attributes": {"库存": 3}}]}
SkuInPath = Annotated[Sku, Path(description="However it is typed.")]


@router.get(
    "/product/by-sku/{sku:path}",
    summary="Read a product by its sku",
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable) | sent(200, "ETag"),
)
@needs("search")
async def get_product_by_sku(sku: SkuInPath, request: Request, response: Response, api: ApiDependency) -> Product:
    def read() -> Product:
        with api.services.database.read() as session:
            owner = sku_owner(session, sku)
            found = find_product(session, owner, known_index_id(api)) if owner is not None else None
            if found is None:
                raise NotFound(f"No product has the sku '{sku}'.")
            return as_product(*found, pictures_of(session, [found.product])[found.product.product_id])

    product = await api.threads.reads.run(read)
    set_etag(response, product)
    return product_in(accepted_language(request), product)


@router.put(
    "/product/by-sku/{sku:path}",
    summary="Create or replace a product by its sku",
    openapi_extra=multipart_body(ProductFields) | {"parameters": [IF_MATCH, IF_NONE_MATCH]},
    responses=problem_responses(
        MalformedRequest, NotFound, VersionMismatch, *IMAGE_ERRORS, Overloaded, DatabaseUnavailable
    )
    | sent(200, "ETag")
    | {201: {"description": "Created", "model": Product, **sent(201, "ETag", "Location")[201]}},
)
@needs("write")
async def put_product(sku: SkuInPath, request: Request, response: Response, api: ApiDependency) -> Product:
    """The product is then as it was sent: what is left out is empty, but for `image` and `images`, each of which stays.
    Whoever sends the same again changes nothing."""
    condition = condition_of(request)
    async with read_form(request) as form:
        fields = product_fields(ProductFields, form, api.services.settings)
        image = await picture_of(form, api)
        further = await checked_uploads(form, api.services.decoder)
    if fields.sku is not None and canonical_text(fields.sku) != canonical_text(sku):
        raise InvalidInput.in_field("sku", "is another than the address's; leave it out")
    threads = api.threads.uploads if image or further else api.threads.writes
    product, was_made = await threads.run(api.writer.put, sku, fields, image, condition, further or None)
    set_etag(response, product)
    if was_made:
        response.status_code = 201
        response.headers["Location"] = f"/product/{product.product_id}"
    return product


@router.patch(
    "/product",
    summary="Change many products",
    response_model=BatchResult,
    openapi_extra=json_body(BatchChanges, EXAMPLE),
    responses=problem_responses(MalformedRequest, InvalidInput, UnsupportedMediaType, Overloaded, DatabaseUnavailable),
)
@needs("write")
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
    return Response(as_json(result.model_dump(mode="json")), media_type="application/json")


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
    errors = [ProblemField(field=encodable(each.field), message=encodable(each.message)) for each in error.errors]
    return RowResult(row=number, sku=encodable(sku) if isinstance(sku, str) else None, status="refused", errors=errors)

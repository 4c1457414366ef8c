"""`/product`: create, list, read, change, delete."""

from functools import partial
from typing import Annotated, Literal

from fastapi import Depends, Query, Request, Response
from fastapi.routing import APIRouter
from pydantic import BaseModel
from starlette.datastructures import FormData

from data_models import (
    GROUP_DESCRIPTION,
    MAX_FACETS,
    CreatedProduct,
    FacetName,
    GroupId,
    Product,
    ProductChanges,
    ProductFacets,
    ProductFields,
    ProductPage,
    SearchFilters,
)
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.conditions import IDEMPOTENCY_KEY, IF_MATCH, condition_of, idempotency_key, set_etag
from tuwen.api.forms import (
    checked_upload,
    checked_uploads,
    generated_image_id,
    json_object,
    product_fields,
    read_form,
    validated,
)
from tuwen.api.openapi import multipart_body, sent
from tuwen.api.problems import IMAGE_ERRORS, accepted_language, problem_responses
from tuwen.api.reasons import product_in
from tuwen.api.state import Api, ApiDependency, ProductId
from tuwen.catalogue.facets import count_facets
from tuwen.catalogue.filters import MAX_WORDS, Selection
from tuwen.catalogue.idempotency import KeyedRequest
from tuwen.catalogue.pictures import pictures_of
from tuwen.catalogue.queries import SORT_COLUMNS, find_product, list_products
from tuwen.catalogue.representation import as_product
from tuwen.errors import (
    DatabaseUnavailable,
    DuplicatePicture,
    DuplicateSku,
    IdempotencyKeyUsed,
    InvalidInput,
    MalformedRequest,
    NotFound,
    Overloaded,
    VersionMismatch,
)
from tuwen.pictures.checked_image import CheckedImage
from tuwen.texts import words_of

router = APIRouter(tags=["products"], route_class=GuardedRoute)

MAX_PAGE = 1_000_000
Q_DESCRIPTION = "Words or parts of words that the title has, in any order; or a whole sku or group_id."
MAX_FILTERS = 10_000  # characters; servers and what stands before them take some tens of thousands in an address
FILTERS_DESCRIPTION = 'As `POST /search` takes them, as JSON: {"price_max": 500, "attributes": {"颜色": "红"}}.'
FACETS_DESCRIPTION = (
    "`category`, `price`, `attributes.NAME`, `attributes` (their names): one of each, as "
    "`facets=category&facets=attributes.颜色`."
)
ON_DUPLICATE = "`refuse`: 409 where other products have this picture, and nothing is stored."
BASIC_FACETS = ["category", "price"]
SORT_PATTERN = f"^-?({'|'.join(SORT_COLUMNS)})$"


class _Filters(BaseModel):
    filters: SearchFilters


async def selection_of(
    category: str | None = None,
    index_status: Literal["pending", "indexed", "failed"] | None = None,
    q: Annotated[str | None, Query(max_length=500, description=Q_DESCRIPTION)] = None,
    filters: Annotated[str | None, Query(max_length=MAX_FILTERS, description=FILTERS_DESCRIPTION)] = None,
    group_id: Annotated[GroupId | None, Query(description=GROUP_DESCRIPTION)] = None,
) -> Selection:
    if q is not None and len(words_of(q)) > MAX_WORDS:
        raise InvalidInput.in_field("q", f"has over {MAX_WORDS} words; leave some out")
    wanted = validated(_Filters, {"filters": json_object("filters", filters or "")})
    return Selection(category or None, index_status, q, group_id, wanted.filters)


SelectionDependency = Annotated[Selection, Depends(selection_of)]


@router.post(
    "/product",
    status_code=201,
    summary="Create a product",
    openapi_extra=multipart_body(ProductFields) | {"parameters": [IDEMPOTENCY_KEY]},
    responses=problem_responses(
        MalformedRequest,
        DuplicateSku,
        DuplicatePicture,
        *IMAGE_ERRORS,
        IdempotencyKeyUsed,
        Overloaded,
        DatabaseUnavailable,
    )
    | sent(201, "ETag", "Location"),
)
@needs("write")
async def create_product(
    request: Request,
    response: Response,
    api: ApiDependency,
    on_duplicate: Annotated[Literal["report", "refuse"], Query(description=ON_DUPLICATE)] = "report",
) -> CreatedProduct:
    """Stores the product and answers at once; `index_status` turns from `pending` to `indexed` when search finds it.
    `duplicates` are products that had its picture already."""
    key = idempotency_key(request)
    async with read_form(request) as form:
        fields = product_fields(ProductFields, form, api.services.settings)
        image = await picture_of(form, api)
        further = await checked_uploads(form, api.services.decoder)
    if image is None:
        raise InvalidInput.in_field("image", "is missing; send the picture as a file, or a generated_image_id")
    keyed = None if key is None else KeyedRequest.of(key, fields, image, further)
    create = partial(api.writer.create, refuse_duplicates=on_duplicate == "refuse")
    product = await api.threads.uploads.run(create, fields, image, keyed, further)
    response.headers["Location"] = f"/product/{product.product_id}"
    set_etag(response, product)
    return product


@router.get("/product/list", summary="List products", responses=problem_responses(InvalidInput, DatabaseUnavailable))
@needs("search")
async def get_products(
    api: ApiDependency,
    request: Request,
    selection: SelectionDependency,
    page: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1,
    page_size: Annotated[int, Query(ge=1, le=200)] = 20,
    sort: Annotated[str, Query(pattern=SORT_PATTERN, description="Descending behind a minus.")] = "-product_id",
) -> ProductPage:
    def read() -> ProductPage:
        with api.services.database.read() as session:
            rows, total = list_products(
                session,
                vector_index_id=known_index_id(api),
                page=page,
                page_size=page_size,
                sort=sort,
                selection=selection,
            )
            pictures = pictures_of(session, [row.product for row in rows])
        products = (as_product(row.product, row.milvus_id, pictures[row.product.product_id]) for row in rows)
        items = [product_in(accepted_language(request), each) for each in products]
        return ProductPage(items=items, total=total, page=page, page_size=page_size)

    return await api.threads.reads.run(read)


@router.get(
    "/product/facets",
    summary="Count products by category, price and attributes",
    responses=problem_responses(InvalidInput, Overloaded, DatabaseUnavailable),
)
@needs("search")
async def get_facets(
    api: ApiDependency,
    selection: SelectionDependency,
    facets: Annotated[list[FacetName], Query(max_length=MAX_FACETS, description=FACETS_DESCRIPTION)] = BASIC_FACETS,
) -> ProductFacets:
    """Of all products, or of those that the same parameters list."""

    def count() -> ProductFacets:
        with api.services.database.read_at_length() as session:
            total, found = count_facets(session, selection, facets)
        return ProductFacets(total=total, facets=found)

    return await api.threads.counts.run(count)


@router.get(
    "/product/{product_id}",
    summary="Read a product",
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable) | sent(200, "ETag"),
)
@needs("search")
async def get_product(product_id: ProductId, request: Request, response: Response, api: ApiDependency) -> Product:
    def read() -> Product:
        with api.services.database.read() as session:
            found = find_product(session, product_id, known_index_id(api))
            if found is None:
                raise NotFound(f"There is no product {product_id}.")
            return as_product(*found, pictures_of(session, [found.product])[product_id])

    product = await api.threads.reads.run(read)
    set_etag(response, product)
    return product_in(accepted_language(request), product)


@router.patch(
    "/product/{product_id}",
    summary="Change a product",
    openapi_extra=multipart_body(ProductChanges) | {"parameters": [IF_MATCH]},
    responses=problem_responses(
        MalformedRequest, NotFound, DuplicateSku, VersionMismatch, *IMAGE_ERRORS, Overloaded, DatabaseUnavailable
    )
    | sent(200, "ETag"),
)
@needs("write")
async def change_product(product_id: ProductId, request: Request, response: Response, api: ApiDependency) -> Product:
    """Any subset of the fields. An empty `sku`, `category`, `price`, `attributes` or `group_id` clears it."""
    condition = condition_of(request)
    async with read_form(request) as form:
        changes = product_fields(ProductChanges, form, api.services.settings)
        image = await picture_of(form, api)
    threads = api.threads.uploads if image else api.threads.writes
    product = await threads.run(api.writer.change, product_id, changes, image, condition)
    set_etag(response, product)
    return product


@router.delete(
    "/product/{product_id}",
    status_code=204,
    summary="Delete a product",
    openapi_extra={"parameters": [IF_MATCH]},
    responses=problem_responses(NotFound, InvalidInput, VersionMismatch, DatabaseUnavailable),
)
@needs("write")
async def delete_product(product_id: ProductId, request: Request, api: ApiDependency) -> None:
    """It is gone from every answer at once; its vectors and picture are cleared away afterwards."""
    await api.threads.writes.run(api.writer.delete, product_id, condition_of(request))


@router.post(
    "/product/{product_id}/reindex",
    status_code=202,
    summary="Index a product again",
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable),
)
@needs("write")
async def reindex_product(product_id: ProductId, api: ApiDependency) -> Product:
    """For one that failed, once the reason is mended. Its `index_status` is `pending` until it is done."""
    return await api.threads.writes.run(api.writer.reindex, product_id)


async def picture_of(form: FormData, api: Api) -> CheckedImage | None:
    image_id = generated_image_id(form)
    if image_id is not None:
        return await api.generation.picture(image_id)
    return await checked_upload(form, api.services.decoder)


def known_index_id(api: Api) -> int | None:
    live = api.services.registry.known
    return live.vector_index_id if live else None

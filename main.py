"""The HTTP service: routes, lifespan, dependencies. On the embedded default it also ingests, in this same process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypedDict

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRouter
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from api_schema import install_openapi, multipart_body, search_body
from data_models import (
    ComponentHealth,
    GenerateRequest,
    GenerationJob,
    Health,
    HealthComponents,
    IndexInfo,
    Product,
    ProductChanges,
    ProductFields,
    ProductPage,
    SearchRequest,
    SearchResponse,
)
from errors import (
    AppError,
    DatabaseUnavailable,
    DuplicateSku,
    ImageStoreUnavailable,
    ImageTooLarge,
    InvalidInput,
    MalformedRequest,
    NotCancellable,
    NotFound,
    Overloaded,
    QueueFull,
    UnsupportedImageType,
    UnsupportedMediaType,
    VectorDBUnavailable,
)
from generation_jobs import ENDED, GenerationJobs
from generation_process import GenerationProcess
from image_store import MEDIA_TYPES, CheckedImage
from ingest import Ingestor
from message_queue import InProcessQueue, KafkaSender, MessageSender, OutboxRelay
from metrics import Metrics
from orm_models import SORT_COLUMNS, find_product, list_products
from problems import BodyLimit, ReadableStartFailure, install_problem_handlers, problem_responses
from products import ProductWriter
from reconcile import Reconciler
from request_bodies import (
    checked_upload,
    content_type,
    generated_image_id,
    product_fields,
    read_form,
    read_json,
    search_form,
    uploaded_bytes,
    validated,
)
from search import Searcher, as_product
from services import Services, keep_running, open_services
from settings import VERSION, Settings, load_settings

logger = logging.getLogger(__name__)
router = APIRouter()

MAX_PAGE = 1_000_000
MULTIPART_MARGIN_BYTES = 1024 * 1024
# A picture's path holds the hash of its bytes, so what is behind it never changes.
IMMUTABLE = "public, max-age=31536000, immutable"
SORT_PATTERN = f"^-?({'|'.join(SORT_COLUMNS)})$"
IMAGE_ERRORS = (InvalidInput, ImageTooLarge, UnsupportedImageType)


@dataclass(frozen=True)
class Api:
    """What the routes work with."""

    services: Services
    sender: MessageSender
    searcher: Searcher
    writer: ProductWriter
    generation: GenerationJobs
    metrics: Metrics


class State(TypedDict):
    api: Api


def get_api(request: Request) -> Api:
    api: Api = request.state.api
    return api


ApiDependency = Annotated[Api, Depends(get_api)]
ProductId = Annotated[int, Path(ge=1, le=2**63 - 1)]
JobId = Annotated[int, Path(ge=1, le=2**63 - 1)]


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with open_services(settings) as services, _open_api(services) as api:
            yield {"api": api}

    app = FastAPI(
        title="Tuwen 图文",
        version=VERSION,
        summary="Multimodal product search: pictures and titles, across each other, in Chinese and English.",
        lifespan=lifespan,
    )
    app.include_router(router)
    install_problem_handlers(app)
    install_openapi(app)
    max_body = settings.upload_max_bytes * 4 // 3 + MULTIPART_MARGIN_BYTES  # base64 takes four bytes for three
    app.add_middleware(BodyLimit, max_bytes=max_body)
    if settings.cors_allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_allow_origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(ReadableStartFailure)
    return app


@asynccontextmanager
async def _open_api(services: Services) -> AsyncIterator[Api]:
    settings = services.settings
    local_queue = None
    if not settings.kafka_bootstrap_servers:
        local_queue = InProcessQueue([settings.kafka_topic, settings.generation_topic])
    sender: MessageSender = local_queue or KafkaSender(settings)
    relay = OutboxRelay(services.database, sender, settings)
    loops: dict[str, Callable[[], Any]] = {"outbox relay": relay.run}
    if local_queue is not None:
        ingestor = Ingestor(services)
        events, jobs = (local_queue.consumers[topic] for topic in (settings.kafka_topic, settings.generation_topic))
        loops["ingestion"] = lambda: ingestor.run(events)
        loops["generation"] = GenerationProcess(settings, services.database, jobs).run
        reconciler = Reconciler(services)
        loops["reconciliation"] = lambda: reconciler.run(relay.wake)
    tasks = [asyncio.create_task(keep_running(name, run), name=name) for name, run in loops.items()]
    writer = ProductWriter(services.database, services.images, services.registry, settings.kafka_topic, relay.wake)
    searcher = Searcher(services)
    generation = GenerationJobs(services, searcher, relay.wake)
    try:
        yield Api(services, sender, searcher, writer, generation, Metrics(services.database))
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        await sender.close()


# --- Products --------------------------------------------------------------------------------------------------------


@router.post(
    "/product",
    status_code=201,
    summary="Create a product",
    tags=["products"],
    openapi_extra=multipart_body(ProductFields),
    responses=problem_responses(MalformedRequest, DuplicateSku, *IMAGE_ERRORS, DatabaseUnavailable),
)
async def create_product(request: Request, response: Response, api: ApiDependency) -> Product:
    """Stores the product and answers at once; `index_status` turns from `pending` to `indexed` when search finds it."""
    async with read_form(request) as form:
        fields = product_fields(ProductFields, form, api.services.settings)
        image = await _product_picture(form, api)
    if image is None:
        raise InvalidInput.in_field("image", "is missing; send the picture as a file, or a generated_image_id")
    product = await run_in_threadpool(api.writer.create, fields, image)
    response.headers["Location"] = f"/product/{product.product_id}"
    return product


@router.get(
    "/product/list",
    summary="List products",
    tags=["products"],
    responses=problem_responses(InvalidInput, DatabaseUnavailable),
)
def get_products(
    api: ApiDependency,
    page: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1,
    page_size: Annotated[int, Query(ge=1, le=200)] = 20,
    category: str | None = None,
    index_status: Literal["pending", "indexed", "failed"] | None = None,
    q: Annotated[str | None, Query(max_length=500, description="A part of the title, or a whole sku.")] = None,
    sort: Annotated[str, Query(pattern=SORT_PATTERN, description="Descending behind a minus.")] = "-product_id",
) -> ProductPage:
    with api.services.database.read() as session:
        rows, total = list_products(
            session,
            vector_index_id=_known_index_id(api),
            page=page,
            page_size=page_size,
            sort=sort,
            category=category,
            index_status=index_status,
            title_or_sku=q,
        )
    items = [as_product(row.product, row.milvus_id) for row in rows]
    return ProductPage(items=items, total=total, page=page, page_size=page_size)


@router.get(
    "/product/{product_id}",
    summary="Read a product",
    tags=["products"],
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable),
)
def get_product(product_id: ProductId, api: ApiDependency) -> Product:
    with api.services.database.read() as session:
        found = find_product(session, product_id, _known_index_id(api))
    if found is None:
        raise NotFound(f"There is no product {product_id}.")
    return as_product(found.product, found.milvus_id)


@router.patch(
    "/product/{product_id}",
    summary="Change a product",
    tags=["products"],
    openapi_extra=multipart_body(ProductChanges),
    responses=problem_responses(MalformedRequest, NotFound, DuplicateSku, *IMAGE_ERRORS, DatabaseUnavailable),
)
async def change_product(product_id: ProductId, request: Request, api: ApiDependency) -> Product:
    """Any subset of the fields. An empty `sku`, `category`, `price` or `attributes` clears it."""
    async with read_form(request) as form:
        changes = product_fields(ProductChanges, form, api.services.settings)
        image = await _product_picture(form, api)
    return await run_in_threadpool(api.writer.change, product_id, changes, image)


@router.delete(
    "/product/{product_id}",
    status_code=204,
    summary="Delete a product",
    tags=["products"],
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable),
)
def delete_product(product_id: ProductId, api: ApiDependency) -> None:
    """It is gone from every answer at once; its vectors and picture are cleared away afterwards."""
    api.writer.delete(product_id)


# --- Search ----------------------------------------------------------------------------------------------------------


@router.post(
    "/search",
    summary="Search by a picture or a text",
    tags=["search"],
    openapi_extra=search_body(),
    responses=problem_responses(
        MalformedRequest, NotFound, *IMAGE_ERRORS, UnsupportedMediaType, Overloaded, VectorDBUnavailable
    ),
)
async def search(request: Request, api: ApiDependency) -> SearchResponse:
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
    api.metrics.observe_search(response)
    return response


# --- Generation ------------------------------------------------------------------------------------------------------


@router.post(
    "/generate",
    status_code=202,
    summary="Draw a product picture for a title",
    tags=["generation"],
    responses={
        200: {"model": GenerationJob, "description": "It ended within wait_s."},
        **problem_responses(MalformedRequest, InvalidInput, QueueFull, DatabaseUnavailable),
    },
)
async def generate(body: GenerateRequest, response: Response, api: ApiDependency) -> GenerationJob:
    """A5. Takes the job and answers at once; poll `status_url`, follow `events_url`, or wait here with `wait_s`."""
    job_id = await run_in_threadpool(api.generation.create, body)
    job = await api.generation.wait(job_id, body.wait_s)
    response.headers["Location"] = job.status_url
    if job.status in ENDED:
        response.status_code = 200
    return job


@router.get(
    "/generate/{job_id}",
    summary="How a generation job stands",
    tags=["generation"],
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable, ImageStoreUnavailable),
)
async def get_generation(job_id: JobId, api: ApiDependency) -> GenerationJob:
    """A job that is done has its pictures, each with the products that look most like it."""
    return await api.generation.read(job_id)


@router.delete(
    "/generate/{job_id}",
    status_code=204,
    summary="Cancel a generation job",
    tags=["generation"],
    responses=problem_responses(NotFound, InvalidInput, NotCancellable, DatabaseUnavailable),
)
def cancel_generation(job_id: JobId, api: ApiDependency) -> None:
    """Drawing stops within one denoising step."""
    api.generation.cancel(job_id)


def existing_job(job_id: JobId, api: ApiDependency) -> int:
    api.generation.require(job_id)
    return job_id


@router.get(
    "/generate/{job_id}/events",
    summary="Follow a generation job",
    tags=["generation"],
    response_class=EventSourceResponse,
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable),
)
async def get_generation_events(
    job_id: Annotated[int, Depends(existing_job)], api: ApiDependency
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `progress` with the job at each change, and at last one named as it ended (`done`, ...)."""
    async for job in api.generation.watch(job_id):
        yield ServerSentEvent(data=job, event=job.status if job.status in ENDED else "progress")


# --- Pictures and operation ------------------------------------------------------------------------------------------


@router.get(
    "/images/{path:path}",
    summary="A product's picture or thumbnail",
    tags=["pictures"],
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, **problem_responses(NotFound, ImageStoreUnavailable)},
)
def get_image(path: str, request: Request, api: ApiDependency) -> Response:
    """As named by `image_url` and `thumbnail_url`."""
    name = PurePosixPath(path)
    etag = f'"{name.stem}"'
    headers = {"Cache-Control": IMMUTABLE, "ETag": etag, "X-Content-Type-Options": "nosniff"}
    media_type = MEDIA_TYPES.get(name.suffix[1:])
    if media_type is None:
        raise NotFound(f"There is no picture {path}.")
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(api.services.images.read(path), media_type=media_type, headers=headers)


@router.get("/health", summary="Is every part up?", tags=["operation"], responses={503: {"model": Health}})
async def get_health(api: ApiDependency, response: Response) -> Health:
    """503 while any part is down; each part says what is wrong with it."""
    services = api.services
    components = HealthComponents(
        database=await _probe(asyncio.to_thread(services.database.check)),
        vector_db=await _probe(asyncio.to_thread(services.vector_db.check)),
        queue=await _probe(api.sender.check()),
        models=ComponentHealth(status="ok", detail=services.encoding.encoders.name),
        image_store=await _probe(asyncio.to_thread(services.images.check)),
    )
    up = all(component.status == "ok" for _, component in components)
    response.status_code = 200 if up else 503
    live = services.registry.known
    return Health(
        status="ok" if up else "degraded",
        version=VERSION,
        components=components,
        index=IndexInfo(collection=live.collection, model=services.encoding.encoders.name) if live else None,
        demo_models=services.settings.uses_demo_models,
    )


# Caches and load balancers ask with HEAD.
for _path, _endpoint in (("/images/{path:path}", get_image), ("/health", get_health)):
    router.head(_path, include_in_schema=False)(_endpoint)


@router.get("/metrics", summary="Prometheus metrics", tags=["operation"], response_class=PlainTextResponse)
def get_metrics(api: ApiDependency) -> PlainTextResponse:
    return PlainTextResponse(api.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _product_picture(form: FormData, api: Api) -> CheckedImage | None:
    image_id = generated_image_id(form)
    if image_id is not None:
        return await run_in_threadpool(api.generation.picture, image_id)
    return await checked_upload(form, api.services.settings)


def _known_index_id(api: Api) -> int | None:
    live = api.services.registry.known
    return live.vector_index_id if live else None


async def _probe(check: Awaitable[None]) -> ComponentHealth:
    try:
        await check
    except AppError as error:
        return ComponentHealth(status="down", detail=error.detail)
    return ComponentHealth(status="ok")


app = create_app(load_settings())

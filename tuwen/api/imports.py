"""`/product/import`: products from a file, as a job. `/product/export`: products as such a file."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRouter

from data_models import ImportJob, ImportMode
from orm_models import ImportErrorRow, ProductRow
from tuwen.access.errors import TooManyAtOnce
from tuwen.api.access import GuardedRoute, needs, require_caller
from tuwen.api.file_upload import receive_file
from tuwen.api.messages import Language, find_message
from tuwen.api.openapi import sent
from tuwen.api.problems import accepted_language, problem_responses, worded
from tuwen.api.state import Api, ApiDependency, JobId
from tuwen.errors import (
    DatabaseUnavailable,
    DependencyUnavailable,
    FieldError,
    FileTooLarge,
    InvalidInput,
    MalformedRequest,
    NotCancellable,
    NotFound,
    Overloaded,
    UnsupportedMediaType,
)
from tuwen.importing.export import MEDIA_TYPES, ExportFormat, as_rows, products_after
from tuwen.importing.export_archive import MOST_PRODUCTS, archive_of_products, last_of_archive
from tuwen.importing.files import make_durable, new_file, remove_file
from tuwen.importing.jobs import as_csv

router = APIRouter(tags=["products"], route_class=GuardedRoute)

IMPORT_PATH = "/product/import"
FILE = {
    "type": "string",
    "format": "binary",
    "description": "CSV, XLSX, JSON lines, or a ZIP archive with one of them.",
}
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": {"file": FILE}, "required": ["file"]}}
        },
    }
}
CSV = {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "UTF-8 with a byte order mark."}

FILES = {
    "content": {kind: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()}
    | {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    "description": "UTF-8; CSV with a byte order mark.",
}


@router.post(
    IMPORT_PATH,
    status_code=202,
    summary="Import products from a file",
    openapi_extra=FORM,
    responses=problem_responses(
        MalformedRequest,
        InvalidInput,
        FileTooLarge,
        UnsupportedMediaType,
        TooManyAtOnce,
        Overloaded,
        DatabaseUnavailable,
    )
    | sent(202, "Location"),
)
@needs("write")
async def import_products(
    request: Request,
    response: Response,
    api: ApiDependency,
    mode: ImportMode = "create",
    mask_personal_data: bool = False,
    dry_run: bool = False,
    allow_deletes_percent: Annotated[float | None, Query(ge=0, le=100)] = None,
) -> ImportJob:
    """Takes the file and answers with a job; poll `status_url`. `create` leaves products whose sku is there as they
    are, `upsert` changes what the file says of them. Rows that can't be taken keep no other out; `errors_url` has
    them, and warnings of others. `mask_personal_data` puts asterisks in the place of phone and ID numbers and mail
    addresses in titles, categories, attributes and the reasons of errors; not in a sku or `group_id`, which are keys.

    `replace_all` is `upsert`, and then deletes the products whose sku the file does not have: none without a sku, none
    that a row with an error names, and not more than a tenth of all (or ten, of few products at most half) unless
    `allow_deletes_percent` says so. `dry_run` changes nothing, counts what would be, and fails where it would."""
    if allow_deletes_percent is not None and mode != "replace_all":
        raise InvalidInput.in_field("allow_deletes_percent", "goes with mode=replace_all")
    settings, threads = api.services.settings, api.threads.uploads
    client = request.state.caller.client
    await threads.run(api.imports.require_room_for, client)
    try:
        name, file = await threads.run(new_file, settings)
        try:
            with file:
                file_name = await receive_file(request, file, threads)
                await threads.run(make_durable, settings, file)
                await require_caller(request)  # again: a key may have ended since
        except BaseException:
            await threads.run(remove_file, settings, name)
            raise
    except OSError as error:
        raise DependencyUnavailable(f"The file can't be kept (DATA_DIR): {error.strerror}") from error
    options: dict[str, Any] = {"mask_personal_data": mask_personal_data, "dry_run": dry_run}
    options |= {"allow_deletes_percent": allow_deletes_percent}
    job = await _job_of(api, name, partial(api.imports.create, name, file_name, mode, client, **options))
    response.headers["Location"] = job.status_url
    return job


async def _job_of(api: Api, name: str, create: Callable[[], ImportJob]) -> ImportJob:
    threads = api.threads.uploads
    try:
        return await threads.run(create)
    except TooManyAtOnce:  # after any other error a job may name it: the database's answer may have been lost
        await threads.run(remove_file, api.services.settings, name)
        raise


@router.get(
    IMPORT_PATH + "/{job_id}",
    summary="How an import stands",
    responses=problem_responses(NotFound, InvalidInput, DatabaseUnavailable),
)
@needs("write")
async def get_import(job_id: JobId, request: Request, api: ApiDependency) -> ImportJob:
    """Its `error` in Chinese by `Accept-Language: zh`."""
    job = await api.threads.reads.run(api.imports.read, job_id)
    if job.error is None or accepted_language(request) == "en":
        return job
    field, _, message = job.error.partition(": ")
    said = find_message(message)
    return job.model_copy(update={"error": f"{field}：{said.in_chinese}"}) if said else job


@router.get(
    IMPORT_PATH + "/{job_id}/errors",
    summary="The rows that an import could not take",
    response_class=Response,
    responses={200: CSV, **problem_responses(NotFound, InvalidInput, DatabaseUnavailable)},
)
@needs("write", streams=True)
async def get_import_errors(job_id: JobId, request: Request, api: ApiDependency) -> StreamingResponse:
    """CSV: line, sku, field, reason, severity (`error`, or `warning`: the row is in); of all pages that are done. In
    Chinese by `Accept-Language: zh`."""
    first = await api.threads.reads.run(api.imports.errors_after, job_id, 0)
    headers = {"Content-Disposition": f'attachment; filename="import-{job_id}-errors.csv"'}
    language = accepted_language(request)
    return StreamingResponse(_errors(api, job_id, first, language), media_type="text/csv", headers=headers)


@router.post(
    IMPORT_PATH + "/{job_id}/cancel",
    status_code=204,
    summary="Cancel an import",
    responses=problem_responses(NotFound, InvalidInput, NotCancellable, DatabaseUnavailable),
)
@needs("write")
async def cancel_import(job_id: JobId, api: ApiDependency) -> None:
    """What is in stays in."""
    await api.threads.writes.run(api.imports.cancel, job_id)


@router.get(
    "/product/export",
    summary="Export products as a file",
    response_class=Response,
    responses={200: FILES, **problem_responses(InvalidInput, DatabaseUnavailable)},
)
@needs("search", streams=True)
async def export_products(
    request: Request,
    api: ApiDependency,
    file_format: Annotated[ExportFormat | Literal["zip"], Query(alias="format")] = "csv",
    after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    archive_limit: Annotated[int, Query(ge=1, le=MOST_PRODUCTS)] = MOST_PRODUCTS,
) -> StreamingResponse:
    """All products of the key's shop (a key without one: of `default`, as imports): what is changed in the file goes
    back by an import with `mode=upsert`. `zip` has their pictures, and an import into an empty installation makes the
    same products; each archive has `archive_limit` of them at most and no more files than an import takes, and the
    `Link` header has the address of the next one. `after`: behind this `product_id`."""
    headers = {"Content-Disposition": f'attachment; filename="products.{file_format}"'}
    database, run = api.services.database, api.threads.reads.run
    if file_format == "zip":
        last = await run(last_of_archive, database, after, archive_limit)
        if last is not None:
            headers["Link"] = f'<{request.url.include_query_params(after=last)}>; rel="next"'
        folder = api.services.settings.data_dir
        pieces = archive_of_products(database, api.services.images, folder, after, last)
        return StreamingResponse(_archive(api, pieces), media_type="application/zip", headers=headers)
    first = await run(products_after, database, after)
    return StreamingResponse(_products(api, first, file_format), media_type=MEDIA_TYPES[file_format], headers=headers)


async def _archive(api: Api, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await api.threads.pictures.run(partial(next, pieces, None))) is not None:
        yield piece


async def _products(api: Api, products: Sequence[ProductRow], file_format: ExportFormat) -> AsyncIterator[bytes]:
    run = api.threads.reads.run
    yield await run(partial(as_rows, products, file_format, with_head=True))
    while products:
        products = await run(products_after, api.services.database, products[-1].product_id)
        yield await run(partial(as_rows, products, file_format, with_head=False))


async def _errors(api: Api, job_id: int, errors: Sequence[ImportErrorRow], language: Language) -> AsyncIterator[bytes]:
    def say(field: str, reason: str) -> str:
        return worded(FieldError(field, reason), language).message

    run = api.threads.reads.run
    yield await run(partial(as_csv, errors, say, with_head=True))
    while errors:
        errors = await run(api.imports.errors_after, job_id, errors[-1].import_error_id)
        yield await run(partial(as_csv, errors, say, with_head=False))

"""Has a running service import a file, with the pictures that lie beside it, and follows the job to its end."""

import itertools
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from clients.catalogue_import import CatalogueError, ServiceAway, answer_of
from clients.chinese_clip_layout import images_beside, pictures, product_lines
from clients.jobs import ENDED
from tuwen.errors import InvalidInput
from tuwen.importing.columns import SourceRow, named_pictures
from tuwen.importing.outgoing import Outgoing
from tuwen.importing.source import DATA_FILES, Source, archived_name, is_archive

CHUNK_BYTES = 1024 * 1024
OnUpload = Callable[[int], None]


def begin_import(client: httpx.Client, file: Path, mode: str, on_upload: OnUpload, **options: Any) -> Any:
    """The job. Raises CatalogueError where the file or the service makes it impossible."""
    answer_of(client.get("/health/live"))  # before gigabytes are sent to whatever answers there
    boundary = secrets.token_hex(16)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    try:
        with file.open("rb"):
            pass
        contents = _contents(file)
        response = client.post(
            "/product/import",
            params={"mode": mode} | {name: value for name, value in options.items() if value is not None},
            content=_Form(file, boundary, contents, on_upload),
            headers=headers,
        )
    except OSError as error:
        raise CatalogueError(f"{file} can't be sent: {error}") from error
    except InvalidInput as error:
        raise CatalogueError(f"{file} {'; '.join(each.message for each in error.errors)}") from error
    except ServiceAway as error:
        answer_of(client.get("/health/live"))
        raise CatalogueError(
            "The service broke off the upload; its log says why. It may be over its limit (IMPORT_MAX_BYTES)."
        ) from error
    return answer_of(response)


def read_job(client: httpx.Client, job_id: int) -> Any:
    return answer_of(client.get(f"/product/import/{job_id}"))


def cancel(client: httpx.Client, job_id: int) -> str:
    response = client.post(f"/product/import/{job_id}/cancel")
    if not response.is_success:
        answer_of(response)
    return f"Job {job_id} is cancelled; what is in stays in."


def save_errors(client: httpx.Client, job: dict[str, Any], beside: Path) -> Path | None:
    """The rows that could not be taken, and warnings, as a CSV beside the file; None, and no such file of before, where
    there are none. Raises CatalogueError."""
    path = beside.with_name(f"{beside.name}.errors.csv")
    try:
        if not job["failed"] and not job["warnings"]:
            path.unlink(missing_ok=True)
            return None
        with client.stream("GET", job["errors_url"]) as response, path.open("wb") as file:
            if not response.is_success:
                response.read()
                answer_of(response)
            for chunk in response.iter_bytes():
                file.write(chunk)
    except OSError as error:
        url = f"{str(client.base_url).rstrip('/')}{job['errors_url']}"
        raise CatalogueError(f"The errors can't be written beside the file ({error}); they are at {url}") from error
    return path


def progress_of(job: dict[str, Any]) -> dict[str, Any]:
    """For a progress bar."""
    rate = f", {job['rows_per_s']:.0f} rows/s" if job["rows_per_s"] else ""
    failed = f", {job['failed']} failed" if job["failed"] else ""
    return {
        "description": f"{job['status']}{rate}{failed}",
        "completed": job["rows"],
        "total": _rows_expected(job),
    }


def _rows_expected(job: dict[str, Any]) -> int | None:
    """By how much of the file is read, which is known in bytes alone: an estimate until the end."""
    rows: int = job["rows"]
    if job["status"] == "done" or not job["progress"]:
        return rows or None
    return round(rows / float(job["progress"]))


def summary_of(job: dict[str, Any]) -> str:
    counts = ", ".join(f"{job[name]} {name}" for name in ("created", "updated", "unchanged", "failed"))
    warnings = f" {job['warnings']} warnings." if job["warnings"] else ""
    deleted = (
        f", {job['deleted']} {'would be ' if job['dry_run'] else ''}deleted" if job["mode"] == "replace_all" else ""
    )
    dry = " Nothing was changed: it was a dry run." if job["dry_run"] else ""
    return f"{counts}{deleted}, of {job['rows']} rows.{warnings}{dry}"


def ways_back(job: dict[str, Any]) -> str:
    """For whoever leaves a job that goes on."""
    job_id = job["job_id"]
    if job["status"] in ENDED:
        return f"Job {job_id} is {job['status']}; what is in goes on being indexed."
    return f"Job {job_id} goes on: 'cli.py import --follow {job_id}' follows it, '--cancel {job_id}' gives it up."


@dataclass(frozen=True)
class _Form:
    """Each iteration begins anew: one that was answered 429 is sent again."""

    file: Path
    boundary: str
    contents: Callable[[], Iterator[bytes]]
    on_upload: OnUpload

    def __iter__(self) -> Iterator[bytes]:
        name = self.file.name.replace('"', "'").replace("\r", " ").replace("\n", " ")
        yield (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        sent = 0
        for chunk in self.contents():
            sent += len(chunk)
            self.on_upload(sent)
            yield chunk
        yield f"\r\n--{self.boundary}--\r\n".encode()


class _LocalPicture(NamedTuple):
    path: Path
    name: str
    """In the archive, where the service looks for it."""


def _contents(file: Path) -> Callable[[], Iterator[bytes]]:
    """The file as it is, if it is an archive or names no picture that lies here; else an archive of both.

    All rows are looked through before the first byte goes out: a service waits half a minute for the next one, and to
    read gigabytes takes longer.
    """
    if (images := images_beside(file)) is not None:
        return partial(_archive_of_layout, file, images)
    if is_archive(file):
        return partial(_chunks, file)
    with Source(file) as source:
        pictures = list(_local_pictures(file.parent, source.rows()))
    return partial(_archive, file, pictures) if pictures else partial(_chunks, file)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            yield chunk


def _archive(file: Path, pictures: Iterable[_LocalPicture]) -> Iterator[bytes]:
    outgoing = Outgoing()
    with zipfile.ZipFile(outgoing, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
        kind = file.suffix.lower()
        yield from _add(archive, outgoing, file, f"rows{kind if kind in DATA_FILES else '.txt'}")
        for picture in pictures:
            yield from _add(archive, outgoing, *picture)
    yield outgoing.take()


def _archive_of_layout(texts: Path, images: Path) -> Iterator[bytes]:
    outgoing = Outgoing()
    with zipfile.ZipFile(outgoing, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("rows.jsonl", "w", force_zip64=True) as member:
            for line in product_lines(texts):
                member.write(line)
                yield outgoing.take()
        for name, data in pictures(images):
            archive.writestr(name, data)
            yield outgoing.take()
    yield outgoing.take()


def _add(archive: zipfile.ZipFile, outgoing: Outgoing, path: Path, name: str) -> Iterator[bytes]:
    with path.open("rb") as opened, archive.open(name, "w", force_zip64=True) as member:
        while chunk := opened.read(CHUNK_BYTES):
            member.write(chunk)
            yield outgoing.take()


def _local_pictures(folder: Path, rows: Iterator[Any]) -> Iterator[_LocalPicture]:
    """Each once. One that is not here is the service's to report, with its row."""
    seen: set[str] = set()
    for named in itertools.chain.from_iterable(map(_names_in, rows)):
        if not isinstance(named, str) or "://" in named:
            continue
        name = archived_name(named)
        if not name or name in seen:
            continue
        seen.add(name)
        for path in (folder / named.strip(), folder / named.strip().replace("\\", "/")):
            if path.is_file():
                yield _LocalPicture(path, name)
                break


def _names_in(row: Any) -> list[Any]:
    named = named_pictures(row.fields.get("image")) if isinstance(row, SourceRow) else None
    return named if isinstance(named, list) else [named]

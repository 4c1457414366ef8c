"""Small files as shops send them, and the way of one through a running service."""

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import openpyxl

from tests.processes import wait_until


def csv_of(*rows: Sequence[object], encoding: str = "utf-8", delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode(encoding)


def json_lines_of(*records: Mapping[str, object]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def xlsx_of(*rows: Sequence[object]) -> bytes:
    workbook, file = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        workbook.active.append(list(row))
    workbook.save(file)
    return file.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def import_file(client: httpx.Client, data: bytes, mode: str = "create", name: str = "products.zip") -> dict[str, Any]:
    """The job as it ended."""
    response = client.post("/product/import", params={"mode": mode}, files={"file": (name, data)})
    assert response.status_code == httpx.codes.ACCEPTED, response.text
    return wait_for_job(client, response.json())


def wait_for_job(client: httpx.Client, job: dict[str, Any], timeout_s: float = 60.0) -> dict[str, Any]:
    def has_ended() -> bool:
        job.update(client.get(job["status_url"]).json())
        return job["status"] in ("done", "failed", "cancelled")

    wait_until(has_ended, timeout_s=timeout_s, what="the import to end")
    return job


def counts_of(job: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Created, updated, unchanged, failed."""
    assert job["status"] == "done", job
    assert job["rows"] == sum(job[name] for name in ("created", "updated", "unchanged", "failed"))
    return job["created"], job["updated"], job["unchanged"], job["failed"]


def errors_of(client: httpx.Client, job: Mapping[str, Any]) -> list[list[str]]:
    """Line, sku, field, reason."""
    return [row[:4] for row in said_of(client, job) if row[4] == "error"]


def warnings_of(client: httpx.Client, job: Mapping[str, Any]) -> list[list[str]]:
    return [row[:4] for row in said_of(client, job) if row[4] == "warning"]


def said_of(client: httpx.Client, job: Mapping[str, Any]) -> list[list[str]]:
    """Line, sku, field, reason, severity."""
    response = client.get(job["errors_url"])
    assert response.status_code == httpx.codes.OK, response.text
    assert response.content.startswith(b"\xef\xbb\xbf")  # by which spreadsheets know UTF-8
    head, *rows = csv.reader(io.StringIO(response.content.decode("utf-8-sig")))
    assert head == ["line", "sku", "field", "reason", "severity"]
    assert len([row for row in rows if row[4] == "warning"]) == job["warnings"]
    return rows

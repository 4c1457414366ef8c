"""Imports as the API sees them: taken as jobs, read, cancelled, and what was wrong with their rows.

The work itself is `importer.py`'s.
"""

import copy
import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import DEFAULT_SHOP, ImportJob, ImportMode
from orm_models import ImportErrorRow, JobRow, utc_now
from tuwen.access.queues import require_room_for
from tuwen.database.engine import Database
from tuwen.database.jobs import cancel_job, find_job
from tuwen.errors import NotFound
from tuwen.importing.attempts import WARNING

ERRORS_AT_ONCE = 1000
# A spreadsheet takes a cell that begins so for a formula.
FORMULA_SIGNS = ("=", "+", "-", "@")


class ImportJobs:
    """Blocks. `most_of_one`: imports of one client that may wait; of all, as many as files may (`files.py`)."""

    def __init__(self, database: Database, most_of_one: int = 50) -> None:
        self._database = self._all_shops = database
        self._shop_id = DEFAULT_SHOP
        self._most_of_one = most_of_one

    def of_shop(self, shop_id: str) -> Self:
        view = copy.copy(self)
        view._database, view._shop_id = self._database.of_shop(shop_id), shop_id
        return view

    def require_room_for(self, client: str) -> None:
        """Raises TooManyAtOnce, before a large file comes in vain."""
        with self._all_shops.read() as session:
            require_room_for(session, client, "import", "imports", self._most_of_one)

    def create(self, file: str, file_name: str, mode: ImportMode, client: str = "", **options: Any) -> ImportJob:
        """`file`: as `files.new_file` has named it, written to its end. `options`: mask_personal_data, dry_run,
        allow_deletes_percent. Raises TooManyAtOnce."""
        with self._all_shops.write() as session:
            require_room_for(session, client, "import", "imports", self._most_of_one)
            request = {"file": file, "name": file_name, "mode": mode, **options}
            job = JobRow(
                kind="import",
                shop_id=self._shop_id,
                request=request,
                client=client,
                state={},
                created_at=utc_now(),
            )
            session.add(job)
            session.flush()
            return describe(job)

    def read(self, job_id: int) -> ImportJob:
        with self._database.read() as session:
            return describe(_find(session, job_id))

    def cancel(self, job_id: int) -> None:
        """What is in stays in. Cancelling twice is no error; a job that ended is one."""
        with self._database.write() as session:
            cancel_job(_find(session, job_id, lock=True))

    def errors_after(self, job_id: int, last: int) -> Sequence[ImportErrorRow]:
        """The next ones, behind that id; none at the end. Raises NotFound."""
        with self._database.read() as session:
            _find(session, job_id)
            statement = sa.select(ImportErrorRow).where(
                ImportErrorRow.job_id == job_id, ImportErrorRow.import_error_id > last
            )
            return list(session.scalars(statement.order_by(ImportErrorRow.import_error_id).limit(ERRORS_AT_ONCE)))


def describe(job: JobRow) -> ImportJob:
    state: dict[str, Any] = job.state or {}
    return ImportJob(
        job_id=job.job_id,
        status=job.status,
        status_url=f"/product/import/{job.job_id}",
        errors_url=f"/product/import/{job.job_id}/errors",
        file_name=job.request["name"],
        mode=job.request["mode"],
        dry_run=job.request.get("dry_run", False),
        mask_personal_data=job.request.get("mask_personal_data", False),
        progress=job.progress,
        **{
            name: state.get(name, 0)
            for name in ("rows", "created", "updated", "unchanged", "failed", "warnings", "deleted")
        },
        deletes_allowed=state.get("deletes_allowed"),
        rows_per_s=state.get("rows_per_s"),
        columns=state.get("columns", {}),
        error=job.error,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def as_csv(errors: Sequence[ImportErrorRow], say: Callable[[str, str], str], *, with_head: bool) -> bytes:
    """With a mark in front, by which spreadsheets know UTF-8. `say`: the reason in the reader's language."""
    text = io.StringIO()
    writer = csv.writer(text)
    if with_head:
        text.write("\ufeff")
        writer.writerow(("line", "sku", "field", "reason", "severity"))
    for each in errors:
        reason, severity = each.reason.removeprefix(WARNING), "warning" if each.reason.startswith(WARNING) else "error"
        said = _as_text(say(each.field, reason))
        writer.writerow((each.line, _as_text(each.sku or ""), _as_text(each.field), said, severity))
    return text.getvalue().encode()


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA_SIGNS) else cell


def _find(session: orm.Session, job_id: int, *, lock: bool = False) -> JobRow:
    job = find_job(session, "import", job_id, lock=lock)
    if job is None:
        raise NotFound(f"There is no import job {job_id}.")
    return job

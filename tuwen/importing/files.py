"""Where files wait that are to be imported: in DATA_DIR, of the machine that they were sent to."""

import os
import time
import uuid
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from data_models import ENDED
from orm_models import JobRow
from tuwen.database.engine import Database
from tuwen.folders import sync
from tuwen.settings import Settings

LEFT_AFTER_S = 6 * 3600.0  # longer than one is on its way here without a byte of it


def import_folder(settings: Settings) -> Path:
    return settings.data_dir.resolve() / "imports"


def new_file(settings: Settings) -> tuple[str, IO[bytes]]:
    """Its name, and it, to be written."""
    folder = import_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    return name, (folder / name).open("xb")


def make_durable(settings: Settings, file: IO[bytes]) -> None:
    file.flush()
    if settings.durable_writes:
        os.fsync(file.fileno())
        sync(import_folder(settings))


def remove_left_files(database: Database, folder: Path) -> None:
    """Of jobs that ended, and of uploads that never did."""
    files = list(folder.iterdir()) if folder.exists() else []
    if not files:
        return
    with database.read() as session:
        jobs = session.execute(sa.select(JobRow.request, JobRow.status).where(JobRow.kind == "import"))
        status_of = {request["file"]: status for request, status in jobs}
    old = time.time() - LEFT_AFTER_S
    for file in files:
        status = status_of.get(file.name)
        if status in ENDED or (status is None and file.stat().st_mtime < old):
            file.unlink(missing_ok=True)


def remove_file(settings: Settings, name: str) -> None:
    (import_folder(settings) / name).unlink(missing_ok=True)

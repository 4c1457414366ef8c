"""Where files wait that are to be imported: in DATA_DIR, of the machine that they were sent to."""

import io
import os
import time
import uuid
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from data_models import ENDED
from orm_models import JobRow
from tuwen.database.engine import Database
from tuwen.errors import DependencyUnavailable, Overloaded
from tuwen.folders import sync, those_too_full
from tuwen.settings import Settings

LEFT_AFTER_S = 6 * 3600.0  # longer than one is on its way here without a byte of it

MOST_WAITING, LOOK_EVERY_BYTES = 100, 8 * 1024 * 1024
TOGETHER = 2  # times the largest file that is allowed, those on their way here with them


def import_folder(settings: Settings) -> Path:
    return settings.data_dir.resolve() / "imports"


def new_file(settings: Settings) -> tuple[str, IO[bytes]]:
    """Its name, and it, to be written. That, too, raises DependencyUnavailable where there is no room."""
    folder = import_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    _require_room(settings, few=True)
    name = uuid.uuid4().hex
    return name, _Incoming(folder / name, settings)


class _Incoming(io.BufferedWriter):
    """Others come in at the same time, and the databases are on the same disk."""

    def __init__(self, path: Path, settings: Settings) -> None:
        super().__init__(io.FileIO(path, "xb"))
        self._settings = settings
        self._unlooked = 0

    def write(self, data: Any) -> int:
        self._unlooked += len(data)
        if self._unlooked >= LOOK_EVERY_BYTES:
            self._unlooked = 0
            _require_room(self._settings)
        return super().write(data)


def _require_room(settings: Settings, *, few: bool = False) -> None:
    """Raises DependencyUnavailable. `few`: and not more files than one more may join."""
    if full := lacks_room(settings):
        raise DependencyUnavailable(f"There is no room for imports: {full}.")
    sizes = [size for file in import_folder(settings).iterdir() if (size := _size_of(file)) is not None]
    if few and len(sizes) >= MOST_WAITING:
        raise Overloaded(f"{len(sizes)} imports wait, the limit is {MOST_WAITING}; try again when some are done.")
    if sum(sizes) > (limit := TOGETHER * settings.import_max_bytes):
        raise Overloaded(
            f"The files of imports that wait have {sum(sizes):,} bytes, the limit is {limit:,} (twice "
            "IMPORT_MAX_BYTES); try again when some are done."
        )


def lacks_room(settings: Settings) -> str:
    """Where and how much, for a sentence; empty where there is enough."""
    full = those_too_full(settings.local_folders, settings.disk_min_free_mb)
    return full and f"{full}, less than the {settings.disk_min_free_mb} MB of DISK_MIN_FREE_MB"


def _size_of(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # its job has ended meanwhile
        return None


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
        status = status_of.get(file.name.partition(".")[0])  # what lies beside it goes with it
        if status in ENDED or (status is None and file.stat().st_mtime < old):
            file.unlink(missing_ok=True)


def remove_file(settings: Settings, name: str) -> None:
    (import_folder(settings) / name).unlink(missing_ok=True)

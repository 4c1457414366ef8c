"""Copies the embedded default's database and pictures while it runs. The order is what makes the copy whole.

The rows first, then the pictures: one is stored before the row that names it, and stays for an hour after that is gone.
The copied rows get their name last, so that a copy that was cut off leaves the one before as it was.
"""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tuwen.database.start import require_installation
from tuwen.errors import ConfigurationError
from tuwen.settings import Settings

PART = ".part"  # what is being written; `Folder` calls its own so, too


class Copied(NamedTuple):
    products: int
    pictures: int
    """Files that were not there yet, thumbnails among them."""


def back_up(settings: Settings, folder: Path) -> Copied:
    """Into a folder of any name, the one of the last time too. Raises ConfigurationError, and `folder` is as before."""
    require_installation(settings)
    images = settings.image_store_address.removeprefix("file://")
    if settings.database_url or "://" in images:
        raise ConfigurationError(
            "This copies an SQLite file and a folder of pictures. The engines of DATABASE_URL and IMAGE_STORE_URL have "
            "ways of their own: docs/operations.md, Backup."
        )
    rows = folder / f"tuwen.db{PART}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            rows.unlink(missing_ok=True)
            products, paths = _copy_rows(settings.data_dir.resolve() / "tuwen.db", rows)
            there = [path for path in paths if (Path(images) / path).is_file()]
            if paths and not there:
                raise ConfigurationError(f"None of the products' pictures is in {images}: is a disk not mounted?")
            new = _copy_new(Path(images), folder / "images")
            _require_all(there, folder / "images")
            rows.replace(folder / "tuwen.db")
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"The backup in {folder} failed, and is not to be used: {error}") from error
    return Copied(products, new)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """The lock goes with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigurationError(f"Another backup into {folder} is under way: wait for its end.") from error
    finally:
        os.close(descriptor)


def _require_all(paths: Sequence[str], copies: Path) -> None:
    missing = [path for path in paths if not (copies / path).is_file()]
    if missing:
        raise ConfigurationError(
            f"{len(missing)} pictures that the rows name were removed while they were copied, the first {missing[0]}, "
            "since their products were deleted or changed: copying took longer than reconciliation leaves them "
            "(six times RECONCILE_GRACE_S). Run it again: what is copied already is not copied again."
        )


def _copy_rows(source: Path, target: Path) -> tuple[int, list[str]]:
    """With what is in the write-ahead log. Returns how many products there are, and the paths of their pictures."""
    with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("VACUUM INTO ?", [str(target)])
    with closing(sqlite3.connect(target)) as connection:
        paths = [path for (path,) in connection.execute("SELECT image_path FROM product")]
        products = len(paths)
        # Before an upgrade there may be no such table yet.
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'product_image'").fetchone():
            paths += [path for (path,) in connection.execute("SELECT image_path FROM product_image")]
        return products, paths


def _copy_new(source: Path, target: Path) -> int:
    new = 0
    for file in source.rglob("*"):
        copy = target / file.relative_to(source)
        with suppress(FileNotFoundError):  # a sweep has removed it this moment
            if file.is_dir() or file.suffix == PART or _is_copied(file, copy):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            part = copy.with_name(copy.name + PART)
            shutil.copy2(file, part)
            part.replace(copy)
            new += 1
    return new


def _is_copied(file: Path, copy: Path) -> bool:
    there = file.stat()
    with suppress(FileNotFoundError):
        here = copy.stat()
        return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    return False

"""Picture files in a local folder: each appears whole or not at all, and, if so wished, survives a power loss."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tuwen.errors import ConfigurationError, ImageStoreUnavailable, PictureUnreadable
from tuwen.folders import sync
from tuwen.pictures.stored_file import StoredFile

# These are about the whole disk, or the process: whichever picture comes next meets them, too.
OF_NO_PICTURE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Folder:
    """Paths are relative to `root`. A path that there is none of is a FileNotFoundError, a root that is gone is not."""

    may_be_unmounted = True

    def __init__(self, root: Path, *, durable: bool) -> None:
        self._root = root
        self._durable = durable
        try:
            # At the start alone: a folder that goes missing later is a disk that is not there, and no empty store.
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"IMAGE_STORE_URL: {error}") from error

    def read(self, path: str) -> bytes:
        with self._translated():
            return (self._root / path).read_bytes()

    def write(self, path: str, data: bytes, *, derived: bool = False) -> None:
        durable = self._durable and not derived
        target = self._root / path
        part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
        with self._translated():
            self._make(target.parent, durable=durable)
            try:
                with part.open("wb") as file:
                    file.write(data)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                part.replace(target)
            except OSError:
                part.unlink(missing_ok=True)
                raise
            if durable:
                sync(target.parent)

    def exists(self, path: str) -> bool:
        with self._translated():
            return (self._root / path).is_file()

    def move(self, source: str, target: str) -> None:
        with self._translated():
            self._make((self._root / target).parent, durable=False)
            (self._root / source).replace(self._root / target)

    def remove(self, path: str) -> None:
        with self._translated():
            (self._root / path).unlink()

    def list(self, folder: str) -> list[StoredFile]:
        """What lies in it, files and folders."""
        with self._translated(), os.scandir(self._root / folder) as entries:
            return [StoredFile(f"{folder}/{entry.name}", _modified_at(entry)) for entry in entries]

    def check(self) -> None:
        with self._translated(), os.scandir(self._root) as entries:
            next(entries, None)

    def _make(self, folder: Path, *, durable: bool) -> None:
        if folder == self._root or folder.is_dir():
            return
        self._make(folder.parent, durable=durable)
        folder.mkdir(exist_ok=True)
        if durable:
            sync(folder.parent)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if not self._root.is_dir():
                raise ImageStoreUnavailable(f"The folder {self._root} is gone (IMAGE_STORE_URL).") from error
            raise FileNotFoundError(str(error)) from error
        except OSError as error:
            kind = ImageStoreUnavailable if error.errno in OF_NO_PICTURE else PictureUnreadable
            raise kind(f"The image store does not answer (IMAGE_STORE_URL): {error}") from error


def _modified_at(entry: os.DirEntry[str]) -> datetime:
    try:
        return datetime.fromtimestamp(entry.stat().st_mtime, UTC)
    except OSError:  # gone this moment, or broken: the others are listed, and this one is not old enough to go
        return datetime.now(UTC)

"""Where picture files are kept: a local folder or S3, through fsspec, whose only importer this is.

A picture is stored under the installation's id and the SHA-256 of its bytes, so storing is idempotent, a stored file
never changes, and installations that share a store never touch each other's. (Version 0.2.0 stored without the id: such
files are read, and never removed.) Files are removed only by reconciliation, once nothing has named them for a while,
and in two steps, so that an upload of the same picture at the same moment can't lose it.
"""

import logging
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from data_models import PICTURE_FORMATS
from tuwen.errors import ConfigurationError, ImageStoreUnavailable, NotFound
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.thumbnails import make_thumbnail, thumbnail_path
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

MEDIA_TYPES = {each.extensions[0]: each.media_type for each in PICTURE_FORMATS.values()}
# Whatever else is asked for is not ours, wherever it would lead.
STORED_PATH = re.compile(rf"(thumbnails/)?([0-9a-f]{{12}}/)?[0-9a-f]{{2}}/[0-9a-f]{{64}}\.({'|'.join(MEDIA_TYPES)})")
OWNER_DIGITS = 12
ASIDE = "aside"


@dataclass(frozen=True)
class StoredFile:
    path: str
    modified_at: datetime


class ImageStore:
    """The picture files behind one address: a folder, or any fsspec URL such as s3://bucket/prefix."""

    def __init__(self, settings: Settings, installation_id: str) -> None:
        self._owner = installation_id[:OWNER_DIGITS]
        try:
            self._files, self._root = fsspec.core.url_to_fs(settings.image_store_address)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"IMAGE_STORE_URL={settings.image_store_address}: {error}") from error

    def path_of(self, image: CheckedImage) -> str:
        return f"{self._owner}/{image.sha256[:2]}/{image.sha256}.{image.extension}"

    def save(self, image: CheckedImage) -> None:
        """Store the picture and its thumbnail; again, if they are there, so that they count as fresh."""
        path = self.path_of(image)
        self._write(path, image.data)
        self._write(thumbnail_path(path), make_thumbnail(image.data))

    def save_if_gone(self, image: CheckedImage) -> None:
        """After a transaction that names the picture: a sweep may have taken it away before the name could be seen.

        What is committed can't be refused any more, so a store that does not answer now is only said in the log.
        """
        try:
            if not self._files.exists(self._full(self.path_of(image))):
                self.save(image)
        except (OSError, ImageStoreUnavailable) as error:
            logger.warning("Whether %s is still there could not be seen: %s", self.path_of(image), error)

    def read(self, path: str) -> bytes:
        """Raises NotFound, or ImageStoreUnavailable when the store does not answer.

        What a sweep has set aside is still there to be read; it may be taken back between two looks.
        """
        full = self._full(path)
        for place in (full, self._aside(path), full):
            try:
                return bytes(self._files.cat_file(place))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                continue
            except OSError as error:
                raise _unavailable(error) from error
        raise NotFound(f"There is no picture {path}.")

    def set_aside(self, path: str) -> None:
        """The first step of removing a picture and its thumbnail: still to be had back. Gone already is no error."""
        for each in (path, thumbnail_path(path)):
            self._move(self._full(each), self._aside(each))

    def take_back(self, path: str) -> None:
        for each in (path, thumbnail_path(path)):
            self._move(self._aside(each), self._full(each))

    def remove_aside(self, path: str) -> None:
        """The second step; what an upload has stored anew meanwhile stays."""
        for each in (thumbnail_path(path), path):
            try:
                self._files.rm_file(self._aside(each))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unavailable(error) from error

    def list_pages(self, size: int) -> Iterator[list[StoredFile]]:
        """This installation's pictures, folder by folder in pages of at most `size`; nothing else that lies there."""
        yield from self._pages(f"{self._root}/{self._owner}", self._root, size)

    def list_pages_aside(self, size: int) -> Iterator[list[StoredFile]]:
        """What was set aside and neither removed nor taken back: a sweep was killed."""
        yield from self._pages(f"{self._root}/{ASIDE}/{self._owner}", f"{self._root}/{ASIDE}", size)

    def _pages(self, top: str, base: str, size: int) -> Iterator[list[StoredFile]]:
        for folder in self._list(top):
            listed = [(self._below(base, info), _modified_at(info)) for info in self._list(folder["name"])]
            ours = [StoredFile(path, moment) for path, moment in listed if STORED_PATH.fullmatch(path)]
            yield from (ours[start : start + size] for start in range(0, len(ours), size))

    def check(self) -> None:
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.ls(self._root, refresh=True)
        except OSError as error:
            raise _unavailable(error) from error

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            listed: list[dict[str, Any]] = self._files.ls(folder, detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unavailable(error) from error
        return listed

    def _below(self, base: str, info: dict[str, Any]) -> str:
        return str(info["name"]).removeprefix(base).lstrip("/")

    def _aside(self, path: str) -> str:
        self._full(path)  # refuses what is no picture's
        return f"{self._root}/{ASIDE}/{path}"

    def _move(self, source: str, target: str) -> None:
        try:
            if isinstance(self._files, LocalFileSystem):
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._files.mv(source, target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unavailable(error) from error

    def _full(self, path: str) -> str:
        if not STORED_PATH.fullmatch(path):
            raise NotFound(f"There is no picture {path}.")
        return f"{self._root}/{path}"

    def _write(self, path: str, data: bytes) -> None:
        full = self._full(path)
        try:
            if not isinstance(self._files, LocalFileSystem):
                self._files.pipe_file(full, data)  # object stores show an object whole or not at all
                return
            self._files.makedirs(full.rpartition("/")[0], exist_ok=True)
            part = f"{full}.{uuid.uuid4().hex}.part"
            self._files.pipe_file(part, data)
            self._files.mv(part, full)  # renamed into place: a crash never leaves half a picture
        except OSError as error:
            raise _unavailable(error) from error


def _unavailable(error: OSError) -> ImageStoreUnavailable:
    return ImageStoreUnavailable(f"The image store does not answer (IMAGE_STORE_URL): {error}")


def _modified_at(info: dict[str, Any]) -> datetime:
    moment = info.get("mtime") or info.get("LastModified")
    return moment if isinstance(moment, datetime) else datetime.fromtimestamp(float(moment or 0), UTC)

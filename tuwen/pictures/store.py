"""Where picture files are kept: a local folder or S3, through fsspec, whose only importer this is.

A picture is stored under the SHA-256 of its bytes, so storing is idempotent and a stored file never changes. Files are
removed only by reconciliation, once no product has named them for a while: an upload of the same picture that happens
at the same moment can then never lose it.
"""

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

MEDIA_TYPES = {each.extensions[0]: each.media_type for each in PICTURE_FORMATS.values()}
# Whatever else is asked for is not ours, wherever it would lead.
STORED_PATH = re.compile(rf"(thumbnails/)?[0-9a-f]{{2}}/[0-9a-f]{{64}}\.({'|'.join(MEDIA_TYPES)})")


@dataclass(frozen=True)
class StoredFile:
    path: str
    modified_at: datetime


class ImageStore:
    """The picture files behind one address: a folder, or any fsspec URL such as s3://bucket/prefix."""

    def __init__(self, settings: Settings) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(settings.image_store_address)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"IMAGE_STORE_URL={settings.image_store_address}: {error}") from error

    def save(self, image: CheckedImage) -> None:
        """Store the picture and its thumbnail; again, if they are there, so that they count as fresh."""
        self._write(image.path, image.data)
        self._write(thumbnail_path(image.path), make_thumbnail(image.data))

    def read(self, path: str) -> bytes:
        """Raises NotFound, or ImageStoreUnavailable when the store does not answer."""
        try:
            return bytes(self._files.cat_file(self._full(path)))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(f"There is no picture {path}.") from error
        except OSError as error:
            raise _unavailable(error) from error

    def delete(self, path: str) -> None:
        """Remove a picture and its thumbnail; gone already is no error."""
        for each in (path, thumbnail_path(path)):
            try:
                self._files.rm_file(self._full(each))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unavailable(error) from error

    def list_pages(self, size: int) -> Iterator[list[StoredFile]]:
        """All stored pictures, folder by folder in pages of at most `size`; without thumbnails and what isn't ours."""
        for folder in self._list(self._root):
            files = [StoredFile(self._path(info), _modified_at(info)) for info in self._list(folder["name"])]
            ours = [file for file in files if STORED_PATH.fullmatch(file.path)]
            yield from (ours[start : start + size] for start in range(0, len(ours), size))

    def check(self) -> None:
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.ls(self._root)
        except OSError as error:
            raise _unavailable(error) from error

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            listed: list[dict[str, Any]] = self._files.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unavailable(error) from error
        return listed

    def _path(self, info: dict[str, Any]) -> str:
        return str(info["name"]).removeprefix(self._root).lstrip("/")

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

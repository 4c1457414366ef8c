"""Where picture files are kept, and under which names: a local folder (`folder.py`) or S3 (`object_store.py`).

A picture is stored under the installation's id and the SHA-256 of its bytes, so storing is idempotent, a stored file
never changes, and installations that share a store never touch each other's. (Version 0.2.0 stored without the id: such
files are read, and never removed.) Files are removed only by reconciliation, once nothing has named them for a while,
and in two steps, so that an upload of the same picture at the same moment can't lose it.

A store that the installation has used holds its mark. Without it nothing is believed to be missing, and nothing is
written: it may be the empty folder under a disk that is not mounted, or another bucket.
"""

import copy
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, Self, TypeVar

from data_models import PICTURE_FORMATS
from tuwen.errors import ImageStoreUnavailable, NotFound, PictureUnreadable
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.folder import Folder
from tuwen.pictures.stored_file import StoredFile
from tuwen.pictures.thumbnails import FOR_BROWSERS, derived_paths, paths_that_go_with, thumbnail_path
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

MEDIA_TYPES = {each.extensions[0]: each.media_type for each in PICTURE_FORMATS.values()}
# Whatever else is asked for is not ours, wherever it would lead.
DERIVED = rf"(?:thumbnails|{FOR_BROWSERS})/"
HASHED = r"(?:[0-9a-f]{12}/)?[0-9a-f]{2}/[0-9a-f]{64}\."
STORED_PATH = re.compile(rf"{DERIVED}{HASHED}webp|{HASHED}(?:{'|'.join(MEDIA_TYPES)})")
OWNER_DIGITS = 12
ASIDE, MARK_DIGITS = "aside", 16
ASIDE_PATH = re.compile(rf"{ASIDE}/(?P<path>{STORED_PATH.pattern})\.(?P<mark>[0-9a-f]{{{MARK_DIGITS}}})")
# To callers, of one that raises PictureUnreadable, in whose `detail` buckets and users may stand.
NOT_STORED = "the picture store does not take this picture; the service's log says why"
Item = TypeVar("Item")


class Aside(NamedTuple):
    """A picture that a sweep has set aside."""

    path: str
    """Where it was."""
    mark: str


def sha256_in(path: str) -> str:
    """The hash of the bytes that are stored there."""
    return path.rpartition("/")[2].partition(".")[0]


class Files(Protocol):
    """Paths are relative. FileNotFoundError where there is none such; all else raises ImageStoreUnavailable."""

    may_be_unmounted: bool
    """While the service runs."""

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes, *, derived: bool = False) -> None:
        """`derived`: it can be made again, and so need not survive a power loss."""

    def exists(self, path: str) -> bool: ...

    def move(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def list(self, folder: str) -> list[StoredFile]: ...

    def check(self) -> None: ...


class ImageStore:
    """The picture files behind one address. `named_paths`: some that lie in the right one, if any do."""

    def __init__(
        self, settings: Settings, installation_id: str, named_paths: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._owner = installation_id[:OWNER_DIGITS]
        self._address = settings.image_store_address
        self._files = _open_files(settings)
        self._named_paths = named_paths
        self._may_read: Callable[[str], bool] = lambda _: True
        self._was_ours = False

    def narrowed(self, may_read: Callable[[str], bool]) -> Self:
        """The same store, to whom no other pictures are there to be read. Asked with the path, once that is one."""
        view = copy.copy(self)
        view._may_read = may_read
        return view

    def path_of(self, image: CheckedImage) -> str:
        return f"{self._owner}/{image.sha256[:2]}/{image.sha256}.{image.extension}"

    def save(self, image: CheckedImage) -> None:
        """Store the picture and its thumbnail; again, if they are there, so that they count as fresh."""
        if self._files.may_be_unmounted or not self._was_ours:
            self._require_ours()
        path = self.path_of(image)
        self._files.write(path, image.data)
        self._files.write(thumbnail_path(path), image.thumbnail, derived=True)

    def save_if_gone(self, image: CheckedImage) -> None:
        """After a transaction that names the picture: a sweep may have taken it away before the name could be seen.

        What is committed can't be refused any more, so a store that does not answer now is only said in the log.
        """
        try:
            if not self._files.exists(self.path_of(image)):
                self.save(image)
        except ImageStoreUnavailable as error:
            logger.warning("Whether %s is still there could not be seen: %s", self.path_of(image), error)

    def read(self, path: str) -> bytes:
        """Raises NotFound, or ImageStoreUnavailable when the store does not answer.

        What a sweep has set aside is still there to be read.
        """
        if not STORED_PATH.fullmatch(path) or not self._may_read(path):
            raise _no_picture(path)
        data = self._find(path)
        if not data:
            self._require_ours()
            raise _no_picture(path)
        return data

    def original_of(self, path: str) -> bytes:
        """The picture of which this is made, and is missing, or empty after a power loss. Raises as `read`."""
        original = PurePosixPath(re.sub(f"^{DERIVED}", "", path))
        if STORED_PATH.fullmatch(path) and str(original) != path and self._may_read(path):
            for extension in MEDIA_TYPES:
                candidate = str(original.with_suffix(f".{extension}"))
                # What is made of a picture goes with it only under its own names.
                if path in derived_paths(candidate) and (data := self._find(candidate)):
                    return data
            self._require_ours()
        raise _no_picture(path)

    def save_derived(self, path: str, data: bytes) -> None:
        self._files.write(path, data, derived=True)

    def has(self, path: str) -> bool:
        """Whether it is there, or set aside. Raises ImageStoreUnavailable."""
        if not self._may_read(path):
            return False
        if self._files.exists(path) or self._copies_aside(path) or self._files.exists(path):
            return True
        self._require_ours()
        return False

    def paths_in(self, folder: str) -> set[str]:
        """What lies in it; nothing that is set aside."""
        return {file.path for file in self._list(folder)}

    def _find(self, path: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self._files.read(path)
        for place in (*self._copies_aside(path), path):  # it may be taken back between two looks
            with suppress(FileNotFoundError):
                return self._files.read(place)
        return None

    def _copies_aside(self, path: str) -> list[str]:
        place = f"{ASIDE}/{path}"
        return [file.path for file in self._list(place.rpartition("/")[0]) if file.path.startswith(f"{place}.")]

    def set_aside(self, path: str) -> str:
        """The first step of removing a picture and what is made of it: to be had back, by the mark that is returned.

        A mark is one sweep's alone: what another sets aside later, and has to take back, this one can't remove, however
        long it was paused. Gone already is no error.
        """
        mark = secrets.token_hex(MARK_DIGITS // 2)
        for each in (path, *paths_that_go_with(path)):
            self._move(each, _aside(each, mark))
        return mark

    def take_back(self, path: str, mark: str) -> None:
        for each in (*paths_that_go_with(path), path):  # a sweep that is killed in between is seen by the picture
            self._move(_aside(each, mark), each)

    def remove_aside(self, path: str, mark: str) -> None:
        """The second step; what an upload has stored anew meanwhile stays. Where the first was broken off, what was
        made of the picture is still in its place."""
        made = paths_that_go_with(path)
        left = [] if self._files.exists(path) else made
        for each in (*left, *(_aside(each, mark) for each in (*made, path))):
            with suppress(FileNotFoundError):
                self._files.remove(each)

    def list_pages(self, size: int, unlisted: dict[str, str] | None = None) -> Iterator[list[StoredFile]]:
        """This installation's pictures, folder by folder in pages of at most `size`; nothing else that lies there.

        A folder that the store does not list goes into `unlisted`, with the reason. Raises PictureUnreadable without.
        """
        for files in self._list_folders(self._owner, unlisted):
            yield from _pages([file for file in files if STORED_PATH.fullmatch(file.path)], size)

    def list_pages_aside(self, size: int, unlisted: dict[str, str] | None = None) -> Iterator[list[Aside]]:
        """What was set aside and neither removed nor taken back: a sweep was killed. Otherwise as `list_pages`."""
        for files in self._list_folders(f"{ASIDE}/{self._owner}", unlisted):
            found = [ASIDE_PATH.fullmatch(file.path) for file in files]
            yield from _pages([Aside(each["path"], each["mark"]) for each in found if each], size)

    def check(self) -> None:
        """Raises ImageStoreUnavailable."""
        self._files.check()
        self._require_ours()

    def mark(self) -> None:
        """This is the installation's store, whatever it lacks."""
        self._files.write(self._mark_path, self._owner.encode())
        self._was_ours = True

    @property
    def _mark_path(self) -> str:
        return f"{self._owner}/installation"

    def _require_ours(self) -> None:
        """Raises ImageStoreUnavailable. Marks a store that was never used, or only by a version that knew no marks."""
        if self._has(lambda: self._files.read(self._mark_path)):
            self._was_ours = True
            return
        named = self._named_paths()
        if named and not any(self._has(partial(self._files.exists, path)) for path in named):
            raise ImageStoreUnavailable(
                f"The image store {self._address} holds no picture of this installation's (IMAGE_STORE_URL): is a disk "
                "not mounted, or is it another store?"
            )
        with suppress(ImageStoreUnavailable):  # whoever wants to write will hear of it
            self.mark()

    def _has(self, look: Callable[[], object]) -> bool:
        with suppress(FileNotFoundError, PictureUnreadable):  # S3 refuses so what is missing, if it may not list
            return bool(look())
        return False

    def _list_folders(self, parent: str, unlisted: dict[str, str] | None) -> Iterator[list[StoredFile]]:
        to_list = [parent]
        while to_list:
            folder = to_list.pop(0)
            try:
                files = self._list(folder)
            except PictureUnreadable as error:
                if unlisted is None:
                    raise
                unlisted[folder] = error.detail
                continue
            if folder == parent:
                to_list = [file.path for file in files]
            else:
                yield files

    def _list(self, folder: str) -> list[StoredFile]:
        try:
            return self._files.list(folder)
        except FileNotFoundError:
            return []

    def _move(self, source: str, target: str) -> None:
        with suppress(FileNotFoundError):
            self._files.move(source, target)


def _open_files(settings: Settings) -> Files:
    address = settings.image_store_address
    if "://" not in address or address.startswith("file://"):
        return Folder(Path(address.removeprefix("file://")).expanduser(), durable=settings.durable_writes)
    from tuwen.pictures.object_store import ObjectStore  # noqa: PLC0415  # a folder needs none of its libraries

    return ObjectStore(address, timeout_s=settings.image_store_timeout_s)


def _aside(path: str, mark: str) -> str:
    return f"{ASIDE}/{path}.{mark}"


def _pages(files: list[Item], size: int) -> Iterator[list[Item]]:
    yield from (files[start : start + size] for start in range(0, len(files), size))


def _no_picture(path: str) -> NotFound:
    return NotFound(f"There is no picture {path}.")

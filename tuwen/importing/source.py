"""What was sent, opened: rows, from whichever kind of file it is, and the pictures that came with it in an archive."""

import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Self

from tuwen.errors import InvalidInput
from tuwen.importing.archives import Archive
from tuwen.importing.columns import BadRow, SourceRow
from tuwen.importing.spreadsheet import WORKBOOK, read_sheet_rows
from tuwen.importing.text_files import find_encoding, read_lines, read_text_rows

DATA_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".xlsx")
COLUMNS_SHOWN, LONGEST_SHOWN = 200, 100
LARGEST_WORKBOOK_BYTES, CHUNK_BYTES = 256 * 1024 * 1024, 1024 * 1024  # within an archive
LOCK_FILE = "~$"  # what Excel lays beside a workbook that is open
UTF8_NAME = 0x800  # the flag of a ZIP member
# What zipfile raises at an archive that is damaged, encrypted, or packed in a way that it does not know.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)
OTHER_KINDS = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls)",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"%PDF": "a PDF",
}


class Source:
    """Open within a `with` block; `rows` may be read once. Blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = ExitStack()
        self._archive: Archive | None = None
        self._pictures: dict[str, zipfile.ZipInfo | None] = {}
        self._folder = PurePosixPath()
        self._stream: IO[bytes] | None = None
        self._size = 1
        self._share = [0.0]
        self.columns: dict[str, str] = {}
        """Column → what it is taken for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    @property
    def share_read(self) -> float:
        """0 to 1."""
        if self._stream is not None and not self._stream.closed:
            self._share[0] = min(self._stream.tell() / self._size, 1.0)
        return self._share[0]

    def rows(self) -> Iterator[SourceRow | BadRow]:
        """Raises InvalidInput where the file can't be read at all, or not to its end."""
        try:
            for row in self._rows():
                if isinstance(row, SourceRow) and len(self.columns) < COLUMNS_SHOWN:
                    for name, meaning in row.columns.items():
                        self.columns.setdefault(name[:LONGEST_SHOWN], meaning[:LONGEST_SHOWN])
                yield row
        except DAMAGE as error:
            raise InvalidInput.in_field("file", f"is a ZIP archive that can't be read: {error}") from error

    def _rows(self) -> Iterator[SourceRow | BadRow]:
        with self._path.open("rb") as file:
            beginning = file.read(8)
        for mark, kind in OTHER_KINDS.items():
            if beginning.startswith(mark):
                raise InvalidInput.in_field("file", f"is {kind}; send CSV, XLSX, JSON lines, or a ZIP archive")
        if not beginning.startswith(b"PK"):
            self._size = max(self._path.stat().st_size, 1)
            return self._text_rows(partial(self._path.open, "rb"))
        packed = self._open.enter_context(self._path.open("rb"))
        self._archive = self._open.enter_context(Archive(packed))
        if _has(self._archive, WORKBOOK):
            return read_sheet_rows(packed, self._share)
        return self._archived_rows(self._archive)

    def _archived_rows(self, archive: Archive) -> Iterator[SourceRow | BadRow]:
        data = self._index_members(archive)
        self._folder = PurePosixPath(_name_of(data)).parent
        opened = partial(archive.unpack, data)
        if PurePosixPath(_name_of(data)).suffix.lower() == ".xlsx":
            return read_sheet_rows(self._unpacked(opened, data.file_size), self._share)
        self._size = max(data.file_size, 1)
        return self._text_rows(opened)

    def _unpacked(self, opened: "partial[IO[bytes]]", stated_size: int) -> IO[bytes]:
        """A workbook is read from its end, which in an archive is far."""
        copy = self._open.enter_context(tempfile.TemporaryFile(dir=self._path.parent))  # noqa: SIM115  # it is
        size = stated_size
        with opened() as packed:
            copied = 0
            while size <= LARGEST_WORKBOOK_BYTES and (chunk := packed.read(CHUNK_BYTES)):
                copied += copy.write(chunk)
                size = max(size, copied)
        if size > LARGEST_WORKBOOK_BYTES:
            limit = f"{LARGEST_WORKBOOK_BYTES:,}"
            raise InvalidInput.in_field("file", f"has a workbook of over {limit} bytes in it; send that by itself")
        return copy

    def _text_rows(self, opened: "partial[IO[bytes]]") -> Iterator[SourceRow | BadRow]:
        encoding = find_encoding(opened)
        self._stream = self._open.enter_context(opened())
        return read_text_rows(read_lines(self._stream, encoding))

    def _index_members(self, archive: Archive) -> zipfile.ZipInfo:
        """Of pictures, by their paths and, where that is no other's, by their bare names. Returns the one with rows."""
        data = []
        for member in archive.infolist():
            name = _name_of(member)
            path = PurePosixPath(name)
            if name.endswith("/") or path.name.startswith((".", LOCK_FILE)) or "__MACOSX" in path.parts:
                continue
            if path.suffix.lower() in DATA_FILES:
                data.append(member)
            for key in {archived_name(str(path)), f"*/{archived_name(path.name)}"}:
                self._pictures[key] = None if key in self._pictures else member
        nearest = min((_name_of(member).count("/") for member in data), default=0)
        data = [member for member in data if _name_of(member).count("/") == nearest]
        if len(data) != 1:
            found = ", ".join(map(_name_of, data[:5])) or "none"
            raise InvalidInput.in_field(
                "file", f"must have one file of rows (CSV, XLSX, JSON lines) in it; it has {found}"
            )
        return data[0]

    def read_picture(self, path: str, max_bytes: int) -> bytes:
        """As a row names it: as a path in the archive, or beside its file, or by its bare name. Raises InvalidInput."""
        if self._archive is None or not self._pictures:
            raise InvalidInput.in_field("image", f"{path!r} came with no archive that it could be in")
        name = archived_name(path)
        keys = (archived_name(str(self._folder / name)), name, f"*/{name.rpartition('/')[2]}")
        member = next((found for key in keys if (found := self._pictures.get(key))), None)
        if member is None and keys[-1] in self._pictures:
            raise InvalidInput.in_field("image", f"{path!r} is in the archive several times; say in which folder")
        if member is None:
            raise InvalidInput.in_field("image", f"{path!r} is not in the archive")
        try:
            with self._archive.unpack(member) as packed:
                data = packed.read(max_bytes + 1)
        except DAMAGE as error:
            raise InvalidInput.in_field("image", f"{path!r} can't be read from the archive: {error}") from error
        if len(data) > max_bytes:
            size = max(member.file_size, len(data))
            raise InvalidInput.in_field("image", f"{path!r} has {size:,} bytes, the limit is {max_bytes:,}")
        return data


def is_archive(path: Path) -> bool:
    """Of rows and pictures; a workbook is none."""
    try:
        with path.open("rb") as file, Archive(file) as archive:
            return not _has(archive, WORKBOOK)
    except zipfile.BadZipFile:
        return False


def _has(archive: Archive, name: str) -> bool:
    try:
        archive.getinfo(name)
    except KeyError:
        return False
    return True


def _name_of(member: zipfile.ZipInfo) -> str:
    """Programs on a Chinese Windows write names in GBK, and say nothing of it; some have backslashes in them."""
    return _decoded_name(member).replace("\\", "/")


def _decoded_name(member: zipfile.ZipInfo) -> str:
    if not member.flag_bits & UTF8_NAME:
        data = member.filename.encode("cp437", "replace")
        for encoding in ("utf-8", "gb18030"):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                continue
    return member.filename


def archived_name(path: str) -> str:
    """As what a row's path is looked for: paths of Windows, too, and in one case, as Windows has no regard to it."""
    plain = unicodedata.normalize("NFC", path.strip()).replace("\\", "/").casefold()
    return "/".join(part for part in plain.split("/") if part not in ("", "."))

"""ZIP archives of strangers, opened so that nothing they state of themselves can cost more memory than it may."""

import copy
import io
import zipfile
from collections.abc import Callable
from typing import IO, Any, cast

from tuwen.errors import InvalidInput

# Python unpacks these a piece at a time. Of bzip2 and LZMA it unpacks all that a piece of the file becomes: from 700
# bytes, 600 MB.
PACKED_AS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
OTHERS = {9: "deflate64", zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA", 93: "Zstandard", 95: "XZ"}
MOST_MEMBERS = 300_000  # a kilobyte of memory each
LARGEST_DIRECTORY_BYTES = 64 * 1024 * 1024
ENTRY = b"PK\x01\x02"
ANY_SIZE, CHUNK_BYTES = 1 << 62, 64 * 1024


class Archive(zipfile.ZipFile):
    """`file` stays the caller's to close. Raises InvalidInput where there is too much in it, before it is in memory."""

    def __init__(self, file: IO[bytes], most_members: int = MOST_MEMBERS) -> None:
        directory = _Directory(file, most_members)
        super().__init__(cast("IO[bytes]", directory))
        directory.is_read = True

    def unpack(self, member: zipfile.ZipInfo) -> IO[bytes]:
        """All of it: the size that is stated may be any, and reading would end there. Raises NotImplementedError."""
        if member.compress_type not in PACKED_AS:
            kind = OTHERS.get(member.compress_type, f"method {member.compress_type}")
            raise NotImplementedError(f"{member.filename} is packed with {kind}; pack it with deflate")
        whole = copy.copy(member)
        whole.file_size = ANY_SIZE
        return super().open(whole)


class _Directory:
    """A file as ZipFile reads its list of members through it: as a whole. How many there are is stated, too, and may
    be false; how often a mark of one stands there is not."""

    def __init__(self, file: IO[bytes], most_members: int) -> None:
        self._file = file
        self._most_members = most_members
        self.is_read = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if self.is_read:
            return self._file.read(size)
        if size > LARGEST_DIRECTORY_BYTES:
            raise InvalidInput.in_field(
                "file", f"has a directory of {size:,} bytes, the limit is {LARGEST_DIRECTORY_BYTES:,}"
            )
        data = self._file.read(size)
        if (count := data.count(ENTRY)) > self._most_members:
            raise InvalidInput.in_field("file", f"has {count:,} files in it, the limit is {self._most_members:,}")
        return data


class Watched(io.RawIOBase):
    """`watch` sees what is read, piece by piece, and raises where it is too much."""

    def __init__(self, file: IO[bytes], watch: Callable[[bytes], None]) -> None:
        self._file = file
        self._watch = watch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), CHUNK_BYTES))
        self._watch(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

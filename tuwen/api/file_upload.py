"""A form with one large file, which goes to the disk as it comes in, and never into memory."""

from collections.abc import AsyncIterator
from typing import IO, TYPE_CHECKING

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from tuwen.background import WorkPool
from tuwen.errors import InvalidInput, MalformedRequest, UnsupportedMediaType

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "file"
WRITE_BYTES = 1024 * 1024
LONGEST_NAME = 255


async def receive_file(request: Request, file: IO[bytes], threads: WorkPool) -> str:
    """The file's name, once it is written whole. Raises InvalidInput, a kind of it, or OSError."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise UnsupportedMediaType(f"POST {request.url.path} takes multipart/form-data with a field 'file'.")
    part = _Part()
    async for data in _in_pieces(request, options[b"boundary"], part):
        await threads.run(file.write, data)
    if not part.is_whole:
        raise MalformedRequest("The body ends before the form does.")
    if part.name is None:
        raise InvalidInput.in_field(FIELD, "is missing; send CSV, XLSX, JSON lines, or a ZIP archive with one of them")
    return part.name


async def _in_pieces(request: Request, boundary: bytes, part: "_Part") -> AsyncIterator[bytes]:
    try:
        parser = MultipartParser(boundary, part.callbacks)
        async for chunk in request.stream():
            parser.write(chunk)
            if len(part.data) >= WRITE_BYTES:
                yield part.take()
        parser.finalize()
    except ValueError as error:  # python_multipart's are
        raise MalformedRequest(f"The form can't be read: {error}") from error
    yield part.take()


class _Part:
    """What of the file has come in. A form may have no other field: what it said would be passed over."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.data = bytearray()
        self.is_whole = False
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._finish_headers,
            "on_part_data": lambda data, start, end: self.data.extend(data[start:end]),
            "on_end": self._end,
        }

    def take(self) -> bytes:
        data, self.data = bytes(self.data), bytearray()
        return data

    def _begin(self) -> None:
        self._disposition = b""

    def _end_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _finish_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise InvalidInput.in_field(field or "form", "is unknown; the form has a field 'file' alone")
        if self.name is not None:
            raise InvalidInput.in_field(field, "comes twice; send it once")
        self.name = options.get(b"filename", b"").decode("utf-8", "replace")[:LONGEST_NAME] or FIELD

    def _end(self) -> None:
        self.is_whole = True

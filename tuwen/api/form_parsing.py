"""Forms as they come: their charset honoured or refused, each field once, and a picture is a file however it is named.

Starlette takes what is not in the form's charset for Latin-1, so that a title in GBK became another one, and a file
without a plain `filename` for text.
"""

from collections import Counter
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from tuwen.errors import FieldError, InvalidInput, MalformedRequest, summary

PICTURE = "image"
PICTURES = "images"  # further ones: the one field that may come several times
# Python knows more, some of which are no charsets, or take long. GB18030 reads what GBK and GB2312 wrote, too.
CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8", "us-ascii", "ascii"), "utf-8-sig"),
    **dict.fromkeys(("gb18030", "gbk", "gb2312", "cp936", "x-gbk"), "gb18030"),
    **dict.fromkeys(("big5", "big5-hkscs"), "big5hkscs"),
    **dict.fromkeys(("iso-8859-1", "latin1", "windows-1252"), "cp1252"),
}


async def parse_form(request: Request) -> FormData:
    """The caller closes it. Raises MalformedRequest, or InvalidInput for a field that comes twice."""
    charset = _charset_of(request.headers["content-type"], "utf-8-sig")
    is_multipart = request.headers["content-type"].strip().lower().startswith("multipart/")
    parser = (_Parts if is_multipart else _Pairs)(request.headers, request.stream())
    parser.charset = charset
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise MalformedRequest(error.message) from error
    if not parser.is_whole:
        await form.close()
        raise MalformedRequest("The body ends before the form does.")
    twice = [name for name, count in Counter(name for name, _ in form.multi_items()).items() if count > 1]
    twice = [name for name in twice if name != PICTURES]
    if twice:
        await form.close()
        errors = [FieldError(name, "comes twice; send it once") for name in twice]
        raise InvalidInput(summary(errors), errors)
    return form


class _Parts(MultiPartParser):
    charset = "utf-8-sig"
    is_whole = False

    def on_end(self) -> None:
        """A form that was cut off lacks its last fields, and would else be taken for one without them."""
        self.is_whole = True

    def on_headers_finished(self) -> None:
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        is_picture = options.get(b"name") in (PICTURE.encode(), PICTURES.encode())
        has_extended_name = b"filename*=" in (part.content_disposition or b"").replace(b" ", b"").lower()
        if part.content_disposition and b"filename" not in options and (is_picture or has_extended_name):
            part.content_disposition += b'; filename=""'
        super().on_headers_finished()

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is not None:
            super().on_part_end()
            return
        headers = dict(part.item_headers)
        charset = _charset_of(headers.get(b"content-type", b"").decode("latin-1"), self.charset)
        self.items.append((part.field_name, _decoded(part.field_name, bytes(part.data), charset)))


class _Pairs(FormParser):
    charset = "utf-8-sig"
    is_whole = True  # which nothing in it tells

    def on_field_end(self) -> None:
        super().on_field_end()
        name, _ = self._items.pop()
        value = unquote_to_bytes(bytes(self._field_value).replace(b"+", b" "))
        self._items.append((name, _decoded(name, value, self.charset)))


def _charset_of(content_type: str, otherwise: str) -> str:
    _, options = parse_options_header(content_type)
    declared = options.get(b"charset", b"").decode("latin-1").strip().lower()
    if not declared:
        return otherwise
    if declared not in CHARSETS:
        raise MalformedRequest(f"The charset '{declared}' is not known here; send UTF-8.")
    return CHARSETS[declared]


def _decoded(field: str, data: bytes, charset: str) -> str:
    try:
        return data.decode(charset)
    except UnicodeDecodeError as error:
        name = charset.removesuffix("-sig").upper()
        raise MalformedRequest.in_field(
            field, f"is not {name}; send UTF-8, or declare the charset: multipart/form-data; charset=gb18030"
        ) from error

"""Bodies and files that nobody means well with: mutations of real ones, and what is known to have hurt others.

None of them may be stored: forms bring a picture that is broken, or are for a product that is not there.
"""

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from data_models import PICTURE_FORMATS
from tests.conftest import picture
from tests.pictures.files import huge_png
from tests.pictures.mutations import mutated

BOUNDARY = "----tuwen-of-the-tests"
MEGABYTE = 1 << 20
BROKEN_PICTURE = picture()[: len(picture()) // 2]
FORMS = (
    ("POST", "/product", [("title", "桌子"), ("price", "12.50"), ("attributes", '{"颜色": "红"}'), ("image", None)]),
    ("PUT", "/product/by-sku/HOSTILE-1", [("title", "椅子"), ("image", None), ("images", None), ("images", None)]),
    ("PATCH", "/product/999999", [("title", "沙发"), ("category", ""), ("image", None)]),
    ("POST", "/product/999999/image", [("position", "1"), ("image", None)]),
    ("POST", "/search", [("mode", "image_to_image"), ("filters", '{"price_max": 5}'), ("image", None)]),
    ("POST", "/product/import", [("file", None), ("more", "which the form does not have")]),
)
NAMES = (
    *("../../../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "C:\\CON", "a\0.png", "\u202egnp.exe", "." * 300),
    *("%2e%2e%2f", "图" * 5000, "", " ", '"', "'; DROP TABLE product; --", "<script>alert(1)</script>.png"),
)
LONG_BOUNDARY = f"multipart/form-data; boundary={'b' * 8000}"
CHARSETS = (
    "utf-7",
    "utf-16",
    "rot13",
    "idna",
    "punycode",
    "zlib",
    "unicode_escape",
    "raw_unicode_escape",
    "\xff",
    "x" * 9999,
)
# Headers of requests that are wrong before any form is.
REQUESTS = (
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 99999999999999999999999999\r\n\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\na",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 100_000 + b"\r\na\r\n0\r\n\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"X: " + b"y" * MEGABYTE + b"\r\n\r\n",
    b"X: y\r\n" * 50_000 + b"\r\n",
    b"Content-Type: multipart/form-data; boundary=a\0b\r\nContent-Length: 2\r\n\r\n--",
    b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n",
)


class Body(NamedTuple):
    method: str
    path: str
    content_type: str
    content: bytes


class File(NamedTuple):
    name: str
    content: bytes


def part(name: str, content: bytes, *headers: str, file_name: str | None = None) -> bytes:
    ending = "" if file_name is None else f'; filename="{file_name}"'
    lines = [f"--{BOUNDARY}", f'Content-Disposition: form-data; name="{name}"{ending}', *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content + b"\r\n"


def end() -> bytes:
    return f"--{BOUNDARY}--\r\n".encode()


def form(fields: list[tuple[str, str | None]], content: bytes = BROKEN_PICTURE, file_name: str = "a.png") -> bytes:
    """`None` stands for the file."""
    parts = [
        part(name, content, "Content-Type: image/png", file_name=file_name)
        if value is None
        else part(name, value.encode())
        for name, value in fields
    ]
    return b"".join([*parts, end()])


def bodies(count: int, seed: int, *, everywhere: bool) -> Iterator[Body]:
    """The nasties first, each to all routes that take a form, or in turn to one of them."""
    for number, body in enumerate(_nasties()):
        # By another number than there are routes, so that all have some.
        if everywhere or number % (len(FORMS) + 1) == 0 or body.content_type == LONG_BOUNDARY:
            yield body
    dice = random.Random(seed)
    of_form = f"multipart/form-data; boundary={BOUNDARY}"
    for number in range(count):
        method, path, fields = FORMS[number % len(FORMS)]
        content_type, mutated = of_form, bytearray(form(fields))
        for _ in range(dice.choice((1, 1, 2, 4, 16))):
            _mutate(mutated, dice)
        if number % 9 == 0:
            changed = bytearray(of_form.encode())
            _mutate(changed, dice)
            # What an HTTP client would not send is `REQUESTS`' part.
            content_type = "".join(each for each in changed.decode("latin-1") if " " <= each <= "~")
        yield Body(method, path, content_type.strip(), bytes(mutated))


def _nasties() -> Iterator[Body]:
    of_form = f"multipart/form-data; boundary={BOUNDARY}"
    for method, path, fields in FORMS:
        whole = form(fields)
        name = "file" if path.endswith("import") else "image"
        for content_type in (
            *("multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""'),
            *("multipart/form-data; boundary=other", LONG_BOUNDARY, "multipart/mixed"),
            *(
                f'multipart/form-data; boundary="{BOUNDARY}',
                "application/x-www-form-urlencoded",
                "application/json",
                "",
            ),
            *(f"{of_form}; charset={charset}" for charset in CHARSETS if charset.isascii()),
        ):
            yield Body(method, path, content_type, whole)
        first, file = part("title", b"a"), part(name, BROKEN_PICTURE, file_name="a.png")
        for content in (
            *(
                b"",
                b"--",
                whole[:-4],
                whole[: len(whole) // 2],
                whole.replace(b"\r\n", b"\n"),
                b"\r\n" * 100_000 + whole,
            ),
            *(whole + b"x" * MEGABYTE, whole * 50, end(), end() * 1000, first * 100_000 + end(), file * 2000 + end()),
            part(name, BROKEN_PICTURE, *(f"X-{number}: y" for number in range(100_000)), file_name="a.png") + end(),
            part(name, BROKEN_PICTURE, f"X: {'y' * MEGABYTE}", file_name="a.png") + end(),
            part("n" * MEGABYTE, b"") + end(),
            part("a\0b", b"\0" * 1000) + part("__proto__", b"{}") + part("", b"") + end(),
            part("title", b"\xff\xfe\xed\xa0\x80") + end(),
            part(name, BROKEN_PICTURE, "Content-Transfer-Encoding: base64", file_name="a.png") + end(),
            part(name, form([("a", None)]), "Content-Type: multipart/mixed; boundary=" + BOUNDARY, file_name="a")
            + end(),
            f"--{BOUNDARY}\r\n\r\nnameless\r\n".encode() + end(),
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; filename*=UTF-8''%00%ff\r\n\r\n\r\n".encode() + end(),
            part("attributes", b"[" * 100_000) + first + file + end(),
            part("attributes", b'{"a": ' + b"9" * 100_000 + b"}") + first + file + end(),
        ):
            yield Body(method, path, of_form, content)
        for charset in CHARSETS:
            content = part("title", b"+AGE-", f"Content-Type: text/plain; charset={charset}") + file + end()
            yield Body(method, path, of_form, content)
        for file_name in NAMES:
            yield Body(method, path, of_form, form(fields, file_name=file_name))


def _mutate(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) or 1)
    match dice.randrange(7):
        case 0:
            data[at : at + 1] = bytes([dice.randrange(256)])
        case 1:
            del data[at : at + dice.randrange(1, 80)]
        case 2:
            data[at:at] = dice.randbytes(dice.randrange(1, 80))
        case 3:
            data[at:at] = dice.choice((b"\r\n", b"\n", b"\r", b"\0", b'"', b";", b"--", f"--{BOUNDARY}".encode()))
        case 4:
            del data[at + 1 :]
        case 5:
            source = dice.randrange(len(data) or 1)
            data[at:at] = data[source : source + 200]
        case 6:
            data[at : at + 8] = data[at : at + 8].swapcase()


def pictures(count: int, seed: int) -> Iterator[File]:
    yield from _picture_nasties()
    each = [mutated(image_format, count // len(PICTURE_FORMATS) + 1, seed) for image_format in PICTURE_FORMATS]
    for number in range(count):
        yield File(f"{number}.png", next(each[number % len(each)]))


def _picture_nasties() -> Iterator[File]:
    whole = picture()
    jpeg, gif = picture(image_format="JPEG"), picture(image_format="GIF")
    page, archive = b"<html><script>alert(1)</script>", _zip({"a.csv": b"sku,title\n1,a\n"})
    for content in (
        b"",
        *(huge_png(0), _png(50_000, 50_000, zlib.compress(bytes(MEGABYTE))), _png(2**31 - 1, 2**31 - 1, b"")),
        *(
            _png(8, 8, zlib.compress(bytes(MEGABYTE * 50))),
            _png(8, 8, b"", b"zTXt", b"a\0\0" + zlib.compress(bytes(50 * MEGABYTE))),
        ),
        _png(8, 8, b"", b"iCCP", b"a\0\0" + zlib.compress(bytes(50 * MEGABYTE))),
        *(
            gzip.compress(bytes(50 * MEGABYTE)),
            gzip.compress(whole),
            _zip({"a.png": whole}),
            _zip({"0": bytes(50 * MEGABYTE)}),
        ),
        *(b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', _BILLION_LAUGHS.replace(b"<x>", b"<svg>")),
        *(page, b"GIF89a=1;" + page, b"%PDF-1.4\n" + jpeg, b"MZ" + bytes(500), b"\x7fELF" + bytes(500), b"#!/bin/sh\n"),
        b"push graphic-context\nviewbox 0 0 1 1\nfill 'url(https://127.0.0.1/x\"|ls \"-la)'\npop graphic-context",
        *(
            gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
            b"BM" + bytes(8) + struct.pack("<LLll", 54, 40, 2**31 - 1, -(2**31)) + bytes(40),
        ),
        *(
            b"II*\0\x08\0\0\0" + struct.pack("<HHHLL", 1, 0x0111, 4, 2**32 - 1, 8) + struct.pack("<L", 8),
            b"II*\0\x08\0\0\0",
        ),
        *(
            b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6,
            b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 99,
        ),
        *(jpeg[:2] + b"\xff\xe1\xff\xff" * 50_000, jpeg[:2] + b"\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(99)),
        *(
            b"\0\0\0\x20ftypheic" + b"\xff" * 200,
            b"\0\0\0\x20ftypavif" + bytes(200),
            b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(99),
        ),
        *(archive, whole[:8] + archive, b"P6 99999 99999 255\n", b"\x89PNG\r\n\x1a\n" * 9999, b"\n" * MEGABYTE),
    ):
        yield File("a.png", content)


def tables(count: int, seed: int) -> Iterator[File]:
    """Files to be imported, of products that are new and have no picture."""
    yield from _table_nasties()
    csv = "sku,title,price,颜色\nA-1,桌子,12.5,红\nA-2,椅子,9,\n".encode()
    lines = b'{"sku": "B-1", "title": "a", "attributes": {"b": [1, 2]}}\n{"sku": "B-2", "title": "c"}\n'
    originals = [
        ("a.csv", csv),
        ("a.jsonl", lines),
        ("a.zip", _zip({"a.csv": csv})),
        ("a.xlsx", _workbook(b"<c><v>1</v></c>")),
    ]
    dice = random.Random(seed)
    for number in range(count):
        name, content = originals[number % len(originals)]
        changed = bytearray(content)
        for _ in range(dice.choice((1, 1, 2, 4))):
            _mutate(changed, dice)
        yield File(name, bytes(changed))


def _table_nasties() -> Iterator[File]:
    bomb = bytes(50 * MEGABYTE)
    for name, content in (
        *(
            ("a.csv", b""),
            ("a.csv", b"\0" * MEGABYTE),
            ("a.csv", b"sku,title\n" + b'"' * MEGABYTE),
            ("a.csv", b"," * MEGABYTE),
        ),
        *(
            ("a.csv", b"sku,title\n=cmd|' /C calc'!A0,a\n"),
            ("a.csv", b"\xff\xfes\0k\0u\0,\0\x00\xd8"),
            ("a.csv", gzip.compress(bomb)),
        ),
        *(
            ("a.jsonl", b"[" * MEGABYTE),
            ("a.jsonl", b'{"sku": ' + b"9" * MEGABYTE + b"}"),
            ("a.jsonl", b'{"sku": "\\ud800", "title": "\\u0000"}'),
        ),
        *(("a.jsonl", b'{"sku": "C", "title": "a", "price": 1e999999}'), ("a.jsonl", b'{"a":' * 50_000)),
        *(("a.zip", _zip({"a.csv": bomb})), ("a.zip", _zip({"a.csv": b"sku,title,images\nD,a,../../../etc/passwd\n"}))),
        *(("a.zip", _zip({"../../a.csv": b"sku,title\nE,a\n"})), ("a.zip", _zip({"b.zip": _zip({"a.csv": bomb})}))),
        *(("a.zip", _zip({f"{number}.csv": b"" for number in range(2000)})), ("a.zip", b"PK\x05\x06" + b"\xff" * 18)),
        *(
            ("a.xlsx", _workbook(bomb)),
            ("a.xlsx", _workbook(b"<c><v>1</v></c>" * 100_000)),
            ("a.xlsx", _zip({"xl/workbook.xml": _BILLION_LAUGHS})),
        ),
        *(
            ("a.pdf", b"%PDF-1.4"),
            ("a.png", picture()),
            ("../../a.csv", b"sku,title\nF,a\n"),
            ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(999)),
        ),
    ):
        yield File(name, content)


_BILLION_LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (letter + 1, b"&%c;" % letter * 10) for letter in range(97, 107))
    + b'<!ENTITY z SYSTEM "file:///etc/passwd">]><x>&k;&z;</x>'
)


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _workbook(cells: bytes) -> bytes:
    space = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    sheet = b"<worksheet " + space + b"><sheetData><row>" + cells + b"</row></sheetData></worksheet>"
    return _zip({"xl/workbook.xml": b"<workbook " + space + b"/>", "xl/worksheets/sheet1.xml": sheet})


def _png(width: int, height: int, pixels: bytes, kind: bytes = b"tEXt", extra: bytes = b"a\0b") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))

    head = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(kind, extra) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )

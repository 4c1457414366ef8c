"""Files of more pieces than any sound one has: refused before a reader goes through them."""

import hashlib
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from tests.pictures.files import encoded
from tuwen.errors import UnreadableImage
from tuwen.pictures.checks import is_stored_as
from tuwen.pictures.cleaning import cleaned
from tuwen.pictures.decoding import read_header
from tuwen.pictures.pieces import MOST, require_few_pieces
from tuwen.settings import Settings

# As in the service: what Pillow warns of is no error there.
pytestmark = pytest.mark.filterwarnings("ignore")
PLAIN = Image.effect_noise((64, 64), 60).convert("RGB")


def jpeg(segments: bytes) -> bytes:
    data = encoded(PLAIN, "JPEG")
    return data[:2] + segments + data[2:]


def segment(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body


def progressive(scans: int) -> bytes:
    data = encoded(PLAIN.convert("L"), "JPEG", progressive=True)
    return data[:-2] + scans * segment(0xDA, b"\x01\x01\0\0\0\x10") + data[-2:]


def png(chunks: bytes) -> bytes:
    data = encoded(PLAIN, "PNG")
    return data[:33] + chunks + data[33:]  # behind the IHDR


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def gif(blocks: bytes) -> bytes:
    data = encoded(PLAIN.convert("L"), "GIF")
    return data[: 13 + 3 * 256] + blocks + data[13 + 3 * 256 :]


def tiff(strips: int) -> bytes:
    """One grey pixel high and wide, in so many strips at one place."""
    shorts = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()]
    behind = 8 + 2 + 12 * (len(shorts) + 2) + 4
    entries += [struct.pack("<HHII", tag, 4, strips, behind) for tag in (273, 279)]
    directory = struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + strips * struct.pack("<I", 1)


def jpeg2000(boxes: bytes, behind: bytes) -> bytes:
    data = encoded(PLAIN, "JPEG2000")
    start = data.index(behind) + len(behind)
    return data[:start] + boxes + data[start:]


EMPTY_BOX = b"\0\0\0\x08free"
OF_MANY: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "JPEG of empty segments": ("segments", lambda many: jpeg(many * segment(0xE5, b""))),
    "JPEG that ends at once": ("segments", lambda many: jpeg(b"\xff\xd9" + many * segment(0xE5, b""))),
    "JPEG of padding": ("bytes between segments", lambda many: jpeg(many * b"\xff")),
    "JPEG of EXIF": ("EXIF segments", lambda many: jpeg(many * segment(0xE1, b"Exif\0\0"))),
    "JPEG of Photoshop's": ("Photoshop segments", lambda many: jpeg(many * segment(0xED, b"Photoshop 3.0\0"))),
    "JPEG of empty scans": ("scans", progressive),
    "PNG of empty chunks": ("chunks", lambda many: png(many * chunk(b"abCd"))),
    "PNG of empty pixels": ("chunks", lambda many: png(many * chunk(b"IDAT"))),
    "PNG of profiles": ("colour profiles", lambda many: png(many * chunk(b"iCCP", b"a\0\0" + zlib.compress(b"a")))),
    "GIF of empty extensions": ("blocks", lambda many: gif(many * b"\x21\x01\x01a\0")),
    "GIF of empty sub-blocks": ("blocks", lambda many: gif(many * b"\x21\x01\0\0")),
    "GIF of what is no block": ("blocks", lambda many: gif(many * b"\x01")),
    "GIF of a comment in single characters": ("sub-blocks", lambda many: gif(b"\x21\xfe" + many * b"\x01a" + b"\0")),
    "JPEG 2000 of empty boxes": ("boxes", lambda many: jpeg2000(many * EMPTY_BOX, b"jP  \r\n\x87\n")),
    "TIFF of strips": ("strips or tiles", tiff),
}


@pytest.mark.parametrize("kind", OF_MANY)
def test_a_file_of_too_many_pieces_is_refused_and_one_of_some_is_not(kind: str) -> None:
    pieces, make = OF_MANY[kind]
    read_header(make(MOST[pieces] // 2))
    with pytest.raises(UnreadableImage, match=f"too many {pieces}"):
        read_header(make(2 * MOST[pieces] + 2))


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def avif(*parts: bytes) -> bytes:
    """Without a picture: only what is counted."""
    return box(b"ftyp", b"avif\0\0\0\0avifmif1miaf") + box(b"meta", b"\0\0\0\0" + b"".join(parts))


def one_byte_extents(many: int) -> bytes:
    counts = [min(65_535, many - start) for start in range(0, many, 65_535)]
    each = b"".join(struct.pack(">HHH", number, 0, count) + count * b"\1" for number, count in enumerate(counts))
    return box(b"iloc", struct.pack(">IBBH", 0, 1, 0, len(counts)) + each)


def no_byte_extents(many: int) -> bytes:
    return box(b"iloc", struct.pack(">IBBH", 0, 0, 0, 1) + struct.pack(">HHH", 1, 0, many) + b"\0")


def strips_of_all(times: int) -> bytes:
    """So many strips, each of which is half of the file."""
    size = 1 << 16
    entries = [struct.pack("<HHII", tag, 4, times, 8 + at * times) for tag, at in ((273, 0), (279, 4))]
    numbers = times * struct.pack("<I", 8) + times * struct.pack("<I", size // 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(numbers)) + (numbers + directory).ljust(size, b"\0")[: size - 8]


def webp(many: int) -> bytes:
    data = encoded(PLAIN, "WEBP") + many * b"abcd\0\0\0\0"
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


# What is cleaned here, and read by none of Pillow's own code.
CLEANED_OF_MANY: dict[str, tuple[str, str, int, Callable[[int], bytes]]] = {
    "boxes": ("AVIF", "boxes", MOST["boxes"], lambda many: avif() + many * EMPTY_BOX),
    "boxes of meta": ("HEIF", "boxes", MOST["boxes"], lambda many: avif(many * EMPTY_BOX)),
    "boxes of a film": ("AVIF", "boxes", MOST["boxes"], lambda many: avif() + box(b"moov", many * EMPTY_BOX)),
    "items": ("AVIF", "items", MOST["items"], lambda many: avif(box(b"iinf", bytes(6) + many * box(b"infe", b"")))),
    "extents": ("AVIF", "extents of items", MOST["extents of items"], lambda many: avif(one_byte_extents(many))),
    "extents of no bytes": ("HEIF", "extents of items", 32_000, lambda many: avif(*2 * [no_byte_extents(many)])),
    "chunks": ("WEBP", "chunks", MOST["chunks"], webp),
    "strips that overlap": ("TIFF", "bytes of strips or tiles", 128, strips_of_all),
}


@pytest.mark.parametrize("kind", CLEANED_OF_MANY)
def test_what_is_cleaned_here_has_no_more_pieces_either(kind: str) -> None:
    image_format, pieces, most, make = CLEANED_OF_MANY[kind]
    require_few_pieces(make(most // 2), image_format)
    with pytest.raises(UnreadableImage, match=f"too many {pieces}"):
        require_few_pieces(make(2 * most), image_format)


def test_an_import_cleans_no_file_of_too_many_pieces_to_compare_it() -> None:
    settings = Settings(_env_file=None)
    for segments, is_cleaned in ((100, True), (2 * MOST["segments"], False)):
        data = jpeg(segments * segment(0xE5, b""))
        assert is_stored_as(hashlib.sha256(cleaned(data, "JPEG")).hexdigest(), data, settings) is is_cleaned


def test_extensions_that_pillow_takes_for_few_are_not_gone_through_without_end() -> None:
    data = gif(200_000 * b"\x21\xf9\0")
    require_few_pieces(data, "GIF")
    with pytest.raises(UnreadableImage, match="too many parts"):
        cleaned(data, "GIF")


def test_strips_that_are_all_of_the_file_are_copied_once() -> None:
    times, size = 1_000, 16 << 20
    shorts = {256: 1, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()]
    entries += [struct.pack("<HHII", tag, 4, times, 8 + at * times) for tag, at in ((273, 0), (279, 4))]
    numbers = times * struct.pack("<I", 8) + times * struct.pack("<I", size)
    directory = struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)
    data = b"II*\0" + struct.pack("<I", 8 + len(numbers)) + (numbers + directory).ljust(size, b"\1")
    began = time.process_time()
    assert cleaned(data, "TIFF") == data
    assert time.process_time() - began < 1  # thousandths; it was ten and more


def test_texts_of_a_png_that_nobody_asks_for_are_not_unpacked() -> None:
    text = zlib.compress(bytes(1 << 20))
    data = png(b"".join(chunk(b"zTXt", b"note %d\0\0" % number + text) for number in range(60)))
    tracemalloc.start()
    try:
        cleaned(data, "PNG")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_30_megabytes_of_pieces_are_refused_by_the_first_of_them() -> None:
    with pytest.raises(UnreadableImage, match="too many segments"):
        read_header(b"\xff\xd8" + b"\xff\xe5\0\x02" * 8_000_000)


def test_what_follows_the_picture_is_nobodys() -> None:
    read_header(encoded(PLAIN, "JPEG") + progressive(2 * MOST["scans"]))

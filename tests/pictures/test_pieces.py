"""Files of more pieces than any sound one has: refused before a reader goes through them."""

import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from tests.pictures.files import encoded
from tuwen.errors import UnreadableImage
from tuwen.pictures.decoding import read_header
from tuwen.pictures.pieces import MOST

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


def test_30_megabytes_of_pieces_are_refused_by_the_first_of_them() -> None:
    with pytest.raises(UnreadableImage, match="too many segments"):
        read_header(b"\xff\xd8" + b"\xff\xe5\0\x02" * 8_000_000)


def test_what_follows_the_picture_is_nobodys() -> None:
    read_header(encoded(PLAIN, "JPEG") + progressive(2 * MOST["scans"]))

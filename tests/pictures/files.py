"""Picture files that are large in pixels and small in bytes."""

import io
import struct
import zlib
from functools import cache

from PIL import Image

WIDTH, HEIGHT = 8000, 5000  # 40 megapixels


def huge_png(number: int) -> bytes:
    """40 megapixels in about 120 kB; another file for each number."""
    note = b"Comment\0" + str(number).encode()
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)  # eight bits of red, green and blue
    chunks = ((b"IHDR", header), (b"tEXt", note), (b"IDAT", _rows()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@cache
def _rows() -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 + 3 * WIDTH)) for _ in range(HEIGHT)) + packer.flush()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

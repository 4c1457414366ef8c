"""How many pieces a file is made of: 30 MiB of empty ones cost a reader seconds, and are refused before it begins.

Each kind of piece that costs its reader time has a limit well above what sound files have. What is broken is left to
the reader: a walk ends where it can't go on.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from tuwen.errors import UnreadableImage
from tuwen.pictures.boxes import boxes, boxes_of_film, boxes_of_meta, extents, items
from tuwen.pictures.metadata import MOST_STRIPS, TIFF_DATA, tiff_counts, tiff_numbers

Walk = Iterator[tuple[str, int]]  # kinds of pieces, and how many

LARGEST_GROWN = 2_000_000  # in pixels, of a GIF that a later frame makes larger than its first

# A camera's JPEG has a dozen segments, and some hundreds with a depth map. Pillow makes one of all EXIF, anew with each
# segment of it, and libjpeg goes over all pixels for each scan, an empty one, too: progressive files have about ten.
# A PNG has a chunk for each 8 KB or so of its pixels; its profile is unpacked as often as it is there. A TIFF of 52
# megapixels in the smallest tiles has 203,000; tiles that are alike may be at one place, but not each all of the file.
# WebP, AVIF and HEIC are read in C, a million pieces in a moment, and cleaned here.
MOST = {
    "segments": 4_000,
    "bytes between segments": 65_536,
    "EXIF segments": 64,
    "Photoshop segments": 64,
    "scans": 100,
    "chunks": 50_000,
    "colour profiles": 2,
    "blocks": 50_000,
    "sub-blocks": 50_000,
    "frames larger than the first": 0,
    "boxes": 10_000,
    "items": 10_000,
    "extents of items": 50_000,
    "strips or tiles": MOST_STRIPS,
    "bytes of strips or tiles": 0,
}
# And so many for each byte of the file: full sub-blocks of a GIF have 255.
MOST_FOR_BYTE = {"sub-blocks": 1 / 128, "bytes of strips or tiles": 64}

JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
JPEG_MARKER_BEHIND_PIXELS = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
WITHOUT_LENGTH = {0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}  # as Pillow takes them
GIF_COMMENT = 0xFE


def require_few_pieces(data: bytes, image_format: str) -> None:
    """Raises UnreadableImage. Takes milliseconds for a sound file, and some hundreds for the worst."""
    found: Counter[str] = Counter()
    for kind, number in WALKS.get(image_format, _no_walk)(data):
        found[kind] += number
        most = _most(kind, data)
        if found[kind] > most:
            raise UnreadableImage.in_field("image", f"has too many {kind} (more than {most:,}); save it anew")


def _most(kind: str, data: bytes) -> int:
    return MOST[kind] + int(MOST_FOR_BYTE.get(kind, 0) * len(data))


def _no_walk(_: bytes) -> Walk:
    yield from ()


def _jpeg(data: bytes) -> Walk:
    """Up to the end of its first picture: what a phone puts behind that nobody reads."""
    position, marker = 2, JPEG_MARKER
    while match := marker.search(data, position):
        kind = data[match.start() + 1]
        if marker is JPEG_MARKER:
            yield "bytes between segments", match.start() - position
        yield "segments", 1
        position = match.end()
        if kind == JPEG_END and marker is JPEG_MARKER_BEHIND_PIXELS:
            return
        if kind in WITHOUT_LENGTH:
            continue
        if kind == JPEG_SCAN:
            yield "scans", 1
            marker = JPEG_MARKER_BEHIND_PIXELS
        elif data.startswith(b"Exif\0\0", position + 2):
            yield "EXIF segments", 1
        elif data.startswith(b"Photoshop 3.0\0", position + 2):
            yield "Photoshop segments", 1
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    if marker is JPEG_MARKER:
        yield "bytes between segments", max(0, len(data) - position)


def _png(data: bytes) -> Walk:
    position = 8
    while position + 8 <= len(data):
        yield "chunks", 1
        if data.startswith(b"iCCP", position + 4):
            yield "colour profiles", 1
        position += 12 + int.from_bytes(data[position : position + 4], "big")


def _gif(data: bytes) -> Walk:
    position = 13 + gif_colours_bytes(data, 10)
    first, canvas = 0, _numbers(data, 6, 2)
    most = _most("sub-blocks", data)
    while position < len(data) and data[position] != ord(";"):
        yield "blocks", 1
        introduced = data[position : position + 1]
        position += 1
        if introduced == b"!":
            is_comment = data[position : position + 1] == bytes([GIF_COMMENT])
            is_empty = not any(data[position + 1 : position + 2])
            position += 2 if is_empty and not is_comment else 1  # Pillow goes on behind an empty one
        elif introduced == b",":
            x, y, width, height = _numbers(data, position, 4)
            canvas = [max(canvas[0], x + width), max(canvas[1], y + height)]  # as Pillow makes it
            pixels = canvas[0] * canvas[1]
            if first and pixels > max(first, LARGEST_GROWN):
                yield "frames larger than the first", 1
            first = first or max(1, pixels)
            position += 10 + gif_colours_bytes(data, position + 8)
        else:  # readers pass over it
            continue
        count = 0
        while position < len(data) and data[position] and count <= most:
            position, count = position + 1 + data[position], count + 1
        yield "sub-blocks", count
        position += 1


def gif_colours_bytes(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 6 << (flags & 7) if flags & 0x80 else 0


def _numbers(data: bytes, position: int, count: int) -> list[int]:
    return [int.from_bytes(data[at : at + 2], "little") for at in range(position, position + 2 * count, 2)]


def _jpeg2000(data: bytes) -> Walk:
    """Its boxes, those within the header's among them, up to the pixels."""
    position = 0
    while position + 8 <= len(data):
        yield "boxes", 1
        size, kind, head = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        position += head if kind == b"jp2h" else max(head, size)


def _heif(data: bytes) -> Walk:
    for _ in boxes(data):
        yield "boxes", 1
    for _ in boxes_of_film(data):
        yield "boxes", 1
    for box in boxes_of_meta(data):
        yield "boxes", 1
        if box.kind == b"iinf":
            yield from (("items", 1) for _ in items(data, box))
        elif box.kind == b"iloc":
            yield from (("extents of items", 1) for _ in extents(data, box, None))


def _webp(data: bytes) -> Walk:
    position, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while position + 8 <= end:
        yield "chunks", 1
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + (size & 1)


def _tiff(data: bytes) -> Walk:
    for tag, number in tiff_counts(data):
        if any(tag == where for where, _ in TIFF_DATA):
            yield "strips or tiles", number
    for where, how_long in TIFF_DATA:
        places = zip(tiff_numbers(data, where), tiff_numbers(data, how_long), strict=False)
        yield "bytes of strips or tiles", sum(max(0, min(length, len(data) - start)) for start, length in places)


WALKS: dict[str, Callable[[bytes], Walk]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
    "AVIF": _heif,
    "HEIF": _heif,
    "JPEG2000": _jpeg2000,
    "TIFF": _tiff,
}

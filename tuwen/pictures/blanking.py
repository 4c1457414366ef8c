"""The same as `cleaning.py` for files whose parts are found by where they are: what goes becomes zeros, nothing moves.

HEIC, AVIF and JPEG 2000 are boxes; of a TIFF what its first picture needs stays, and all else is blank.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tuwen.pictures.metadata import TIFF_NEEDS, only_these_entries, tiff_entries, tiff_layout

EXIF_ITEM, MIME_ITEM = b"Exif", b"mime"  # the latter is XMP
MOST_BOXES = 10_000
SHORTEST_ITEM, HAS_TYPES, WIDE_NUMBERS = 12, 2, 2  # bytes, and versions of `infe` and `iloc`

# Besides what its pixels need: which way up, and its resolution.
TIFF_KEPT = TIFF_NEEDS | {254, 274, 282, 283, 296}
TIFF_XMP = 700
TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
TIFF_NUMBERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}
COMPRESSION, OLD_JPEG, UNCOMPRESSED = 259, 6, 1
DATA = ((273, 279), (324, 325))  # where strips are, or tiles, and how long

Range = tuple[int, int]


class Box(NamedTuple):
    kind: bytes
    start: int
    body: int
    end: int


def _boxes(data: bytes, position: int, end: int) -> Iterator[Box]:
    for _ in range(MOST_BOXES):
        if position + 8 > end:
            return
        size, kind, head = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif size == 0:
            size = end - position
        if size < head or position + size > end:
            return
        yield Box(kind, position, position + head, position + size)
        position += size


def _jpeg2000(data: bytes, is_generated: bool) -> bytes:
    clean = bytearray(data)
    if data.startswith(b"\0\0\0\x0cjP  ") and not is_generated:  # which only these boxes say
        _blank_boxes(clean, data, {b"xml ", b"uuid"})
    return bytes(clean)


def _blank_boxes(clean: bytearray, data: bytes, kinds: set[bytes]) -> None:
    for box in _boxes(data, 0, len(data)):
        if box.kind in kinds:
            clean[box.start + 4 : box.start + 8] = b"free"
            clean[box.body : box.end] = bytes(box.end - box.body)


def _heif(data: bytes, is_generated: bool) -> bytes:
    """Its items of EXIF and XMP. Which way up it is says a property of the picture, which stays."""
    clean = bytearray(data)
    if not is_generated:
        _blank_boxes(clean, data, {b"uuid"})
    meta = next((box for box in _boxes(data, 0, len(data)) if box.kind == b"meta"), None)
    if meta is None:
        return bytes(clean)
    parts = {box.kind: box for box in _boxes(data, meta.body + 4, meta.end)}
    if b"iinf" not in parts or b"iloc" not in parts:
        return bytes(clean)
    goes = {EXIF_ITEM} if is_generated else {EXIF_ITEM, MIME_ITEM}
    items = {item: type_at for item, type_at, kind in _items(data, parts[b"iinf"]) if kind in goes}
    extents = list(_extents(data, parts[b"iloc"], parts.get(b"idat")))
    # What a file says of itself may be false: what a picture needs, and the list of items itself, stay.
    kept = _Ranges([(start, end) for item, start, end in extents if item not in items])
    inside = parts.get(b"idat")
    for item, start, end in extents:
        in_meta = start < meta.end and end > meta.start
        may_go = not in_meta or (inside is not None and inside.body <= start and end <= inside.end)
        if item in items and may_go and end <= len(data) and not kept.touch(start, end):
            clean[start:end] = bytes(end - start)
            clean[items[item] : items[item] + 4] = b"free"
    return bytes(clean)


def _items(data: bytes, iinf: Box) -> Iterator[tuple[int, int, bytes]]:
    """Number, where its type stands, and its type."""
    first = iinf.body + (6 if data[iinf.body : iinf.body + 1] == b"\0" else 8)
    for box in _boxes(data, first, iinf.end):
        version = data[box.body] if box.kind == b"infe" and box.end - box.body >= SHORTEST_ITEM else 0
        if version >= HAS_TYPES:
            width = 2 if version == HAS_TYPES else 4
            at = box.body + 4
            yield int.from_bytes(data[at : at + width], "big"), at + width + 2, data[at + width + 2 : at + width + 6]


def _extents(data: bytes, iloc: Box, idat: Box | None) -> Iterator[tuple[int, int, int]]:
    """Item, start and end in the file, as versions 0 to 2 of the box have them."""
    at = iloc.body

    def number(width: int) -> int:
        nonlocal at
        at += width
        return int.from_bytes(data[at - width : at], "big")

    version = number(1)
    number(3)
    sizes, more = number(1), number(1)
    wide = 4 if version >= WIDE_NUMBERS else 2
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)
        base = number(more >> 4)
        for _ in range(number(2)):
            if at >= iloc.end:
                return
            number(more & 15 if version in (1, 2) else 0)
            start, length = base + number(sizes >> 4), number(sizes & 15)
            origin = 0 if method == 0 else idat.body if method == 1 and idat else None
            if origin is not None and length:
                yield item, origin + start, origin + start + length
        if at >= iloc.end:
            return


class _Ranges:
    def __init__(self, ranges: list[Range]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def touch(self, start: int, end: int) -> bool:
        before = bisect_right(self._starts, end - 1)
        return before > 0 and self._ends[before - 1] > start


def _tiff(data: bytes, is_generated: bool) -> bytes:
    entries = {tag: (kind, entry) for tag, kind, entry in tiff_entries(data)}
    keep = TIFF_KEPT | {TIFF_XMP} if is_generated else TIFF_KEPT
    kept = _tiff_data(data, entries)
    if kept is None:
        return data
    order, wide = tiff_layout(data)
    for tag in keep & entries.keys():
        kind, entry = entries[tag]
        size = _count(entry, order, wide) * TIFF_TYPE_BYTES.get(kind, 1)
        if size > (8 if wide else 4):
            start = struct.unpack(f"{order}{'Q' if wide else 'L'}", entry[-8:] if wide else entry[-4:])[0]
            kept.append((start, start + size))
    clean = bytearray(len(data))
    for start, end in [(0, 16 if wide else 8), *kept]:
        clean[start:end] = data[start:end]
    only_these_entries(clean, data, keep)
    return bytes(clean)


def _tiff_data(data: bytes, entries: dict[int, tuple[int, bytes]]) -> list[Range] | None:
    """Where its pixels are; None where only its reader could tell."""
    compression = _numbers(data, entries, COMPRESSION)
    if compression[:1] == [OLD_JPEG]:
        return None
    for where, how_long in DATA:
        starts, lengths = _numbers(data, entries, where), _numbers(data, entries, how_long)
        if starts and len(starts) == len(lengths) and all(lengths):
            needed = 0 if compression not in ([], [UNCOMPRESSED]) else _uncompressed_bytes(data, entries)
            if sum(lengths) < needed:
                return None
            return [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    return None


def _uncompressed_bytes(data: bytes, entries: dict[int, tuple[int, bytes]]) -> int:
    width, height, samples = (_numbers(data, entries, tag)[:1] or [1] for tag in (256, 257, 277))
    bits = _numbers(data, entries, 258) or [1]
    return width[0] * height[0] * samples[0] * min(bits) // 8


def _numbers(data: bytes, entries: dict[int, tuple[int, bytes]], tag: int) -> list[int]:
    if tag not in entries or entries[tag][0] not in TIFF_NUMBERS:
        return []
    kind, entry = entries[tag]
    order, wide = tiff_layout(data)
    code, count = TIFF_NUMBERS[kind], _count(entry, order, wide)
    size, inline = struct.calcsize(f"={code}") * count, entry[12:] if wide else entry[8:]
    if size > len(inline):
        (start,) = struct.unpack(f"{order}{'Q' if wide else 'L'}", inline)
        inline = data[start : start + size]
    return list(struct.unpack(f"{order}{count}{code}", inline[:size])) if len(inline) >= size else []


def _count(entry: bytes, order: str, wide: bool) -> int:
    return int(struct.unpack_from(f"{order}{'Q' if wide else 'L'}", entry, 4)[0])


BLANKS: dict[str, Callable[[bytes, bool], bytes]] = {
    "HEIF": _heif,
    "AVIF": _heif,
    "JPEG2000": _jpeg2000,
    "TIFF": _tiff,
}

"""How HEIC, AVIF and JPEG 2000 are laid out: boxes, and of the former two the items and where these are.

Walks are lazy, and end where they can't go on. Whoever goes through them says how far (`pieces.py`): a byte may stand
for 65,535 extents of nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

SHORTEST_ITEM, HAS_TYPES, WIDE_NUMBERS = 12, 2, 2  # bytes, and versions of `infe` and `iloc`


class Box(NamedTuple):
    kind: bytes
    start: int
    body: int
    end: int


class Item(NamedTuple):
    number: int
    kind: bytes
    kind_at: int


class Extent(NamedTuple):
    item: int
    start: int
    end: int


def boxes(data: bytes, position: int = 0, end: int | None = None) -> Iterator[Box]:
    end = len(data) if end is None else end
    while position + 8 <= end:
        size, kind, head = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif size == 0:
            size = end - position
        if size < head or position + size > end:
            return
        yield Box(kind, position, position + head, position + size)
        position += size


def boxes_of_meta(data: bytes) -> Iterator[Box]:
    """Those within `meta`, the first there is, then `meta` itself."""
    meta = next((box for box in boxes(data) if box.kind == b"meta"), None)
    if meta is not None:
        yield from boxes(data, meta.body + 4, meta.end)
        yield meta


def boxes_of_film(data: bytes) -> Iterator[Box]:
    """Those within `moov`, and within its tracks."""
    for film in boxes(data):
        if film.kind == b"moov":
            for box in boxes(data, film.body, film.end):
                yield box
                if box.kind == b"trak":
                    yield from boxes(data, box.body, box.end)


def items(data: bytes, iinf: Box) -> Iterator[Item | None]:
    """None for what is no item with a type."""
    first = iinf.body + (6 if data[iinf.body : iinf.body + 1] == b"\0" else 8)
    for box in boxes(data, first, iinf.end):
        version = data[box.body] if box.kind == b"infe" and box.end - box.body >= SHORTEST_ITEM else 0
        if version < HAS_TYPES:
            yield None
            continue
        width = 2 if version == HAS_TYPES else 4
        at = box.body + 4
        kind_at = at + width + 2
        yield Item(int.from_bytes(data[at : at + width], "big"), data[kind_at : kind_at + 4], kind_at)


def extents(data: bytes, iloc: Box, idat: Box | None) -> Iterator[Extent | None]:
    """Where they are in the file, as versions 0 to 2 of the box have it; None for each that is nowhere or empty, and
    for an item without any.
    """
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
        base, origin = number(more >> 4), 0 if method == 0 else idat.body if method == 1 and idat else None
        count = number(2)
        if not count:
            yield None
        for _ in range(count):
            if at >= iloc.end:
                return
            number(more & 15 if version in (1, 2) else 0)
            start, length = base + number(sizes >> 4), number(sizes & 15)
            yield Extent(item, origin + start, origin + start + length) if origin is not None and length else None
        if at >= iloc.end:
            return

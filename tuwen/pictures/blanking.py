"""The same as `cleaning.py` for files whose parts are found by where they are: what goes becomes zeros, nothing moves.

HEIC, AVIF and JPEG 2000 are boxes; of a TIFF what its first picture needs stays, and all else is blank.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from tuwen.pictures.boxes import Box, boxes, boxes_of_film, boxes_of_meta, extents, items
from tuwen.pictures.formats import brands
from tuwen.pictures.metadata import (
    TIFF_DATA,
    TIFF_NEEDS,
    only_these_entries,
    tiff_count,
    tiff_entries,
    tiff_layout,
    tiff_numbers,
)
from tuwen.pictures.provenance import GENERATED_SOURCE

EXIF_ITEM, MIME_ITEM = b"Exif", b"mime"  # the latter is XMP
BOX_HEAD = 8
# What stays of a file's own boxes. `moov` is a film, and of an image sequence the picture, but for these within it.
HEIF_KEPT = {b"ftyp", b"meta", b"mdat"}
SEQUENCES = {b"avis", b"msf1", b"hevc", b"hevx", b"hevm", b"hevs"}
FILM_GOES = {b"udta", b"meta"}
JPEG2000_KEPT = {b"jP  ", b"ftyp", b"rreq", b"jp2h", b"jp2c"}
MARKED, MARK = {b"xml ", b"uuid"}, GENERATED_SOURCE.encode()

# Besides what its pixels need: which way up, and its resolution.
TIFF_KEPT = TIFF_NEEDS | {254, 274, 282, 283, 296}
TIFF_XMP = 700
TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
COMPRESSION, OLD_JPEG, UNCOMPRESSED = 259, 6, 1

Range = tuple[int, int]


def _jpeg2000(data: bytes, is_generated: bool) -> bytes:
    clean = bytearray(data)
    if data.startswith(b"\0\0\0\x0cjP  "):
        _blank_boxes(clean, data, JPEG2000_KEPT, _Ranges([]), is_generated)
    return bytes(clean)


def _heif(data: bytes, is_generated: bool) -> bytes:
    """Which way up it is says a property of the picture, which stays."""
    clean = bytearray(data)
    kept = _blank_items(clean, data, {EXIF_ITEM} if is_generated else {EXIF_ITEM, MIME_ITEM})
    is_sequence = not SEQUENCES.isdisjoint(brands(data))
    _blank_boxes(clean, data, HEIF_KEPT | {b"moov"} if is_sequence else HEIF_KEPT, kept, is_generated)
    if is_sequence and not is_generated:
        for box in boxes_of_film(data):
            if box.kind in FILM_GOES and not kept.touch(box.start, box.end):
                _blank(clean, box)
    return bytes(clean)


def _blank_boxes(clean: bytearray, data: bytes, stays: set[bytes], kept: "_Ranges", is_generated: bool) -> None:
    """All others, and what follows the last. One of `stays` that is cut off may be read as far as it goes."""
    end = 0
    for box in boxes(data):
        end = box.end
        if box.kind not in stays:
            _blank_box(clean, data, box, kept, is_generated)
    if end < len(data) and data[end + 4 : end + 8] not in stays:
        behind = Box(b"", end, min(end + 8, len(data)), len(data))
        if _blank_box(clean, data, behind, kept, is_generated) and len(data) - end >= BOX_HEAD:
            clean[end : end + 4] = struct.pack(">L", len(data) - end)


def _blank_box(clean: bytearray, data: bytes, box: Box, kept: "_Ranges", is_generated: bool) -> bool:
    """But for the mark of a model, and for what an item of the picture is in, whatever its box is called."""
    has_mark = is_generated and (box.kind in MARKED or data.find(MARK, box.start, box.end) >= 0)
    if has_mark or kept.touch(box.start, box.end):
        return False
    _blank(clean, box)
    return True


def _blank(clean: bytearray, box: Box) -> None:
    if box.end - box.start < BOX_HEAD:
        clean[box.start : box.end] = bytes(box.end - box.start)
        return
    clean[box.start + 4 : box.start + 8] = b"free"
    clean[box.body : box.end] = bytes(box.end - box.body)


def _blank_items(clean: bytearray, data: bytes, kinds: set[bytes]) -> "_Ranges":
    """Returns where the others are."""
    parts = {box.kind: box for box in boxes_of_meta(data)}
    if b"iinf" not in parts or b"iloc" not in parts:
        return _Ranges([])
    meta = parts[b"meta"]
    goes = {item.number: item.kind_at for item in items(data, parts[b"iinf"]) if item and item.kind in kinds}
    inside = parts.get(b"idat")
    # What a file says of itself may be false: what a picture needs, and the list of items itself, stay.
    kept = _Ranges(each[1:] for each in extents(data, parts[b"iloc"], inside) if each and each.item not in goes)
    blank = []
    for each in extents(data, parts[b"iloc"], inside):
        if each is None or each.item not in goes or each.end > len(data) or kept.touch(each.start, each.end):
            continue
        in_meta = each.start < meta.end and each.end > meta.start
        if not in_meta or (inside is not None and inside.body <= each.start and each.end <= inside.end):
            blank.append(each[1:])
            clean[goes[each.item] : goes[each.item] + 4] = b"free"
    for start, end in _Ranges(blank):  # merged: thousands of extents may be the same
        clean[start:end] = bytes(end - start)
    return kept


class _Ranges:
    """Merged, and in order."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._ends, strict=True)

    def touch(self, start: int, end: int) -> bool:
        before = bisect_right(self._starts, end - 1)
        return before > 0 and self._ends[before - 1] > start


def _tiff(data: bytes, is_generated: bool) -> bytes:
    entries = {tag: (kind, entry) for tag, kind, entry in tiff_entries(data)}
    keep = TIFF_KEPT | {TIFF_XMP} if is_generated else TIFF_KEPT
    kept = _tiff_data(data)
    if kept is None:
        return data
    order, wide = tiff_layout(data)
    for tag in keep & entries.keys():
        kind, entry = entries[tag]
        size = tiff_count(entry, order, wide) * TIFF_TYPE_BYTES.get(kind, 1)
        if size > (8 if wide else 4):
            start = struct.unpack(f"{order}{'Q' if wide else 'L'}", entry[-8:] if wide else entry[-4:])[0]
            kept.append((start, start + size))
    clean = bytearray(len(data))
    for start, end in _Ranges([(0, 16 if wide else 8), *kept]):  # merged: each strip may be all of the file
        clean[start:end] = data[start:end]
    only_these_entries(clean, data, keep)
    return bytes(clean)


def _tiff_data(data: bytes) -> list[Range] | None:
    """Where its pixels are; None where only its reader could tell."""
    compression = tiff_numbers(data, COMPRESSION)
    if compression[:1] == [OLD_JPEG]:
        return None
    for where, how_long in TIFF_DATA:
        starts, lengths = tiff_numbers(data, where), tiff_numbers(data, how_long)
        if starts and len(starts) == len(lengths) and all(lengths):
            needed = 0 if compression not in ([], [UNCOMPRESSED]) else _uncompressed_bytes(data)
            if sum(lengths) < needed:
                return None
            return [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    return None


def _uncompressed_bytes(data: bytes) -> int:
    width, height, samples = (tiff_numbers(data, tag)[:1] or [1] for tag in (256, 257, 277))
    bits = tiff_numbers(data, 258) or [1]
    return width[0] * height[0] * samples[0] * min(bits) // 8


BLANKS: dict[str, Callable[[bytes, bool], bytes]] = {
    "HEIF": _heif,
    "AVIF": _heif,
    "JPEG2000": _jpeg2000,
    "TIFF": _tiff,
}

"""A picture without what its file says of people, places and cameras: EXIF, XMP, IPTC, comments, further pictures.

Without loss: no pixel is encoded anew. What the pixels need stays (colour profile, orientation, transparency), and so
does the mark of a model that drew it. A file that has nothing of this, or is not understood, stays as it is. Cleaned
twice is as cleaned once.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from tuwen.errors import UnreadableImage
from tuwen.pictures.blanking import BLANKS
from tuwen.pictures.metadata import (
    MAGICKS_EXIF,
    ORIENTATION,
    PNG_NEEDS,
    PROFILE_SEGMENT,
    TURNS,
    XMP_ORIENTATION,
    exif_orientation,
    magicks_exif,
    png_texts,
)
from tuwen.pictures.pieces import (
    GIF_COMMENT,
    JPEG_END,
    JPEG_MARKER,
    JPEG_MARKER_BEHIND_PIXELS,
    JPEG_SCAN,
    WITHOUT_LENGTH,
    gif_colours_bytes,
)
from tuwen.pictures.provenance import GENERATED_SOURCE, GENERATED_XMP, PNG_XMP

EXIF_SEGMENT, XMP_SEGMENT = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
JFIF_SEGMENT, ADOBE_SEGMENT = b"JFIF\0", b"Adobe"
SEGMENT_NEEDS = 12  # bytes of either's body; behind them JFIF has a thumbnail: its width, height and pixels
APP0, APP1, APP2, APP14, COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
PNG_KEPT = PNG_NEEDS | {b"iCCP", b"sBIT", b"pHYs", b"bKGD", b"hIST", b"sPLT", b"cICP", b"mDCV", b"cLLI"}
PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
PNG_HEADER_END = 33  # the signature, and the header, which is the first chunk
ANCILLARY = 0x20  # a chunk without which a PNG can be read
WEBP_KEPT = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}
WEBP_FLAGS_AT, WEBP_EXIF, WEBP_XMP = 20, 0x08, 0x04
GIF_KEPT = {b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012"}
GIF_APPLICATION = 0xFF
MOST_PARTS = 100_000  # more than `pieces.py` lets in, where both read a file alike


class Said(NamedTuple):
    """What of it all has a meaning for the picture."""

    orientation: int
    is_generated: bool


class Part(NamedTuple):
    """Of a file, that goes."""

    kind: str
    start: int
    body: int
    end: int


Parts = Iterator[Part]


def cleaned(data: bytes, image_format: str, said: Said | None = None) -> bytes:
    """Of what `require_few_pieces` let in. `said`: as whoever decoded it found; else as the file says by itself.

    Raises UnreadableImage.
    """
    if image_format in BLANKS:
        is_generated = GENERATED_SOURCE.encode() in data if said is None else said.is_generated
        return BLANKS[image_format](data, is_generated)
    find = FINDS.get(image_format)
    parts = list(islice(find(data), MOST_PARTS + 1)) if find else []
    if len(parts) > MOST_PARTS:
        raise _too_many_parts()
    if not parts:
        return data
    said = said or _said(data, image_format, parts)
    if image_format == "GIF" and said.is_generated:
        parts = [part for part in parts if part.kind != "xmp"]
    clean = JOINS[image_format](data, parts, said)
    return data if clean == data else clean


def _too_many_parts() -> UnreadableImage:
    return UnreadableImage.in_field("image", f"has too many parts (more than {MOST_PARTS:,}); save it anew")


def _said(data: bytes, image_format: str, parts: Sequence[Part]) -> Said:
    exif = b"".join(data[part.body : part.end].removeprefix(EXIF_SEGMENT) for part in parts if part.kind == "exif")
    xmp = [data[part.body : part.end] for part in parts if part.kind == "xmp"]
    if image_format == "PNG":
        chunks = (data[part.start : part.end] for part in parts if part.kind == "text")
        texts = png_texts(chunks, (MAGICKS_EXIF.encode(), PNG_XMP.encode()))
        exif = exif or magicks_exif(texts.get(MAGICKS_EXIF.encode(), b"").decode("latin-1"))
        xmp = [texts[PNG_XMP.encode()]] if PNG_XMP.encode() in texts else []
    orientation = exif_orientation(exif)
    if orientation is None:
        found = XMP_ORIENTATION.search(xmp[-1]) if xmp else None
        orientation = int(found[1]) if found else 1
    source = GENERATED_SOURCE.encode()
    return Said(orientation if orientation in TURNS else 1, source in data or any(source in each for each in xmp))


def _exif(said: Said) -> bytes:
    """A TIFF with one entry; empty where the picture is upright."""
    if said.orientation not in TURNS:
        return b""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, ORIENTATION, 3, 1, said.orientation, 0, 0)


def _xmp(said: Said) -> bytes:
    return GENERATED_XMP.encode() if said.is_generated else b""


def _without(data: bytes, parts: Sequence[Part], begin: int = 0) -> bytes:
    """From `begin` on."""
    kept, position = [], begin
    for part in parts:
        kept.append(data[position : part.start])
        position = max(part.end, begin)
    return b"".join((*kept, data[position:]))


# --- JPEG -------------------------------------------------------------------------------------------------------------


def _jpeg_parts(data: bytes) -> Parts:
    position, marker = 2, JPEG_MARKER
    while match := marker.search(data, position):
        if marker is JPEG_MARKER and match.start() > position:  # between segments, where nothing is
            yield Part("other", position, position, match.start())
        start, position = match.span()
        kind = data[start + 1]
        if kind == JPEG_END and marker is JPEG_MARKER_BEHIND_PIXELS:
            if position < len(data):  # a second picture, a film: nobody reads it
                yield Part("behind", position, position, len(data))
            return
        if kind in WITHOUT_LENGTH:
            continue
        end = position + int.from_bytes(data[position : position + 2], "big")
        if end < position + 2 or end > len(data):
            return
        if kind == JPEG_SCAN:
            marker = JPEG_MARKER_BEHIND_PIXELS
        elif what := _segment_that_goes(kind, data[position + 2 : min(end, position + 64)]):
            body = position + 2 + (len(XMP_SEGMENT) if what == "xmp" else 0)
            yield Part(what, start, body, end)
        elif kind in (APP0, APP14) and any(data[position + 2 + SEGMENT_NEEDS : end]):
            yield Part("zeros", position + 2 + SEGMENT_NEEDS, end, end)
        position = end


def _segment_that_goes(kind: int, beginning: bytes) -> str:
    if kind == APP1 and beginning.startswith(EXIF_SEGMENT):
        return "exif"
    if kind == APP1 and beginning.startswith(XMP_SEGMENT):
        return "xmp"
    is_beside = kind == COMMENT or APP0 <= kind <= APP0 + 15
    stays = (
        (kind == APP0 and beginning.startswith(JFIF_SEGMENT))
        or (kind == APP2 and beginning.startswith(PROFILE_SEGMENT))
        or (kind == APP14 and beginning.startswith(ADOBE_SEGMENT))  # how its colours are meant
    )
    return "other" if is_beside and not stays else ""


def _join_jpeg(data: bytes, parts: Sequence[Part], said: Said) -> bytes:
    blanked, begin = bytearray(data), 2
    for part in parts:
        if part.kind == "zeros":
            blanked[part.start : part.end] = bytes(part.end - part.start)
    data, parts = bytes(blanked), [part for part in parts if part.kind != "zeros"]
    if data[2:4] == bytes([0xFF, APP0]) and data.startswith(JFIF_SEGMENT, 6):  # which must be the first
        begin = 4 + int.from_bytes(data[4:6], "big")
    bodies = (EXIF_SEGMENT, _exif(said)), (XMP_SEGMENT, _xmp(said))
    added = [struct.pack(">BBH", 0xFF, APP1, 2 + len(mark) + len(body)) + mark + body for mark, body in bodies if body]
    return b"".join((data[:begin], *added, _without(data, parts, begin)))


# --- PNG --------------------------------------------------------------------------------------------------------------


def _png_parts(data: bytes) -> Parts:
    position = 8 if data[12:16] == b"IHDR" else len(data)
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data) or not kind.isalpha():  # whose reader ends there, too
            return
        if kind not in PNG_KEPT and kind[0] & ANCILLARY:
            what = "exif" if kind == b"eXIf" else "text" if kind in PNG_TEXTS else "other"
            # A body has a checksum behind it, which no reader of EXIF minds.
            yield Part(what, position, position + 8, end)
        position = end
        if kind == b"IEND":
            if position < len(data):
                yield Part("behind", position, position, len(data))
            return


def _join_png(data: bytes, parts: Sequence[Part], said: Said) -> bytes:
    exif, xmp = _exif(said), _xmp(said)
    chunks = [(b"eXIf", exif)] if exif else []
    chunks += [(b"iTXt", PNG_XMP.encode() + bytes(5) + xmp)] if xmp else []
    added = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"".join((data[:PNG_HEADER_END], *added, _without(data, parts, PNG_HEADER_END)))


# --- WebP -------------------------------------------------------------------------------------------------------------


def _webp_parts(data: bytes) -> Parts:
    position, stated = 12, 8 + int.from_bytes(data[4:8], "little")
    flags = data[WEBP_FLAGS_AT] if data[12:16] == b"VP8X" and len(data) > WEBP_FLAGS_AT else 0
    counts = {b"EXIF": ("exif", flags & WEBP_EXIF), b"XMP ": ("xmp", flags & WEBP_XMP)}
    seen = set()
    while position + 8 <= min(stated, len(data)):
        kind, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + size + (size & 1)
        if end > len(data):
            return
        if kind not in WEBP_KEPT:
            what, is_read = counts.get(kind, ("", 0))
            yield Part(what if is_read and kind not in seen else "other", position, position + 8, end)
            seen.add(kind)
        position = end
    if stated <= position < len(data):
        yield Part("behind", position, position, len(data))


def _join_webp(data: bytes, parts: Sequence[Part], said: Said) -> bytes:
    clean = bytearray(_without(data, parts))
    if clean[12:16] == b"VP8X" and len(clean) > WEBP_FLAGS_AT:
        added = (b"EXIF", _exif(said), WEBP_EXIF), (b"XMP ", _xmp(said), WEBP_XMP)
        clean[WEBP_FLAGS_AT] &= ~(WEBP_EXIF | WEBP_XMP)
        for kind, body, flag in added:
            if body:
                clean[WEBP_FLAGS_AT] |= flag
                clean += kind + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)
    clean[4:8] = struct.pack("<I", len(clean) - 8)
    return bytes(clean)


# --- GIF --------------------------------------------------------------------------------------------------------------


def _gif_parts(data: bytes) -> Parts:
    position: int | None = 13 + gif_colours_bytes(data, 10)
    for _ in range(MOST_PARTS):  # behind an empty extension there may be more of them than Pillow takes them for
        if position is None or position + 1 >= len(data):
            return
        start, introduced, label = position, data[position : position + 1], data[position + 1]
        if introduced == b"!":
            position = _behind_sub_blocks(data, start + 2)
            name = data[start + 3 : start + 14]
            is_unknown = label == GIF_APPLICATION and data[start + 2] == len(name) and name not in GIF_KEPT
            if position is not None and (label == GIF_COMMENT or is_unknown):
                yield Part("xmp" if name == b"XMP DataXMP" else "other", start, start, position)
        elif introduced == b",":
            position = _behind_sub_blocks(data, start + 11 + gif_colours_bytes(data, start + 9))
        else:
            if introduced == b";":
                yield Part("behind", start + 1, start + 1, len(data))
            return
    raise _too_many_parts()


def _behind_sub_blocks(data: bytes, position: int) -> int | None:
    while position < len(data):
        if not data[position]:
            return position + 1
        position += 1 + data[position]
    return None


FINDS: dict[str, Callable[[bytes], Parts]] = {
    "JPEG": _jpeg_parts,
    "PNG": _png_parts,
    "WEBP": _webp_parts,
    "GIF": _gif_parts,
}
JOINS: dict[str, Callable[[bytes, Sequence[Part], Said], bytes]] = {
    "JPEG": _join_jpeg,
    "PNG": _join_png,
    "WEBP": _join_webp,
    "GIF": lambda data, parts, _: _without(data, parts),
}

"""What stands beside the pixels of a file: which way up it is, and how to read it where the rest is in the way.

Nothing here changes what is stored, and nothing that is written there can fail a picture: what can't be read says
nothing.
"""

import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator

from PIL import ExifTags, Image

ORIENTATION = int(ExifTags.Base.Orientation)
# EXIF's 2 to 8, as what turns the picture upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LIES_ON_ITS_SIDE = range(5, 9)
INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q"}  # TIFF's types
MOST_ENTRIES = 4096
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
MAGICKS_EXIF = "Raw profile type exif"  # ImageMagick's way to put it into a PNG: as hex, behind three lines

# JPEG's segments: APP0 and APP14 say how the pixels are meant, APP2 has the colour profile.
MARKER, FIRST_APP, LAST_APP, COMMENT, START_OF_SCAN = 0xFF, 0xE0, 0xEF, 0xFE, 0xDA
MEANT_FOR_PIXELS = {0xE0, 0xEE}
PROFILE_SEGMENT = b"ICC_PROFILE\0"
PNG_SIGNATURE_BYTES = 8
# Chunks of a PNG that its pixels need, or an animation; `iCCP` only where it can be unpacked within this.
PNG_NEEDS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"cHRM", b"sRGB"}
LARGEST_PROFILE = 4 * 1024 * 1024
LARGEST_TEXT = 1024 * 1024  # of a compressed one that is looked into
# A TIFF's entries that its first picture needs: libtiff's baseline and extensions, and the colour profile.
TIFF_NEEDS = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 297, 317, 320, 322, 323, 324, 325, 332}
TIFF_NEEDS |= {333, 334, 338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
TIFF_NEEDS |= {34675, 50674, 65000}
TIFF_NUMBERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}
TIFF_DATA = ((273, 279), (324, 325))  # where strips are, or tiles, and how long
MOST_STRIPS = 250_000
NEW_SUBFILE_TYPE, SUB_DIRECTORIES, DNG_VERSION = 254, 330, 50706
EXIF_ITEM = re.compile(rb"(infe[\x02\x03]...(?:..|....)..)(?:Exif|mime)", re.DOTALL)  # as AVIF and HEIC list theirs


def orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8, of a picture that is loaded: a PNG may say it behind its pixels."""
    info = image.info
    exif = info.get("exif") or magicks_exif(info.get(MAGICKS_EXIF))
    said = exif_orientation(exif.removeprefix(b"Exif\0\0")) if isinstance(exif, bytes) else None
    if said is None:
        packet = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
        found = XMP_ORIENTATION.search(packet.encode(errors="replace") if isinstance(packet, str) else bytes(packet))
        said = int(found[1]) if found else 1
    return said if said in TURNS else 1


def tiff_orientation(data: bytes) -> int:
    said = exif_orientation(data)
    return said if said in TURNS else 1


def is_camera_raw(tiff: bytes) -> bool:
    """Its first picture is a small preview, and its pixels are not for us: DNG, CR2, and what is built as NEF is."""
    entries = {tag: entry for tag, _, entry in tiff_entries(tiff)}
    preview_first = struct.pack(f"{_order(tiff)}L", 1) == entries.get(NEW_SUBFILE_TYPE, b"")[8:12]
    return tiff[8:10] == b"CR" or DNG_VERSION in entries or (preview_first and SUB_DIRECTORIES in entries)


def tiff_counts(tiff: bytes) -> Iterator[tuple[int, int]]:
    """Each tag of the first directory, and how many values it says there are."""
    for tag, _, entry in tiff_entries(tiff):
        yield tag, tiff_count(entry, *tiff_layout(tiff))


def tiff_count(entry: bytes, order: str, wide: bool) -> int:
    return int(struct.unpack_from(f"{order}{'Q' if wide else 'L'}", entry, 4)[0])


def tiff_numbers(tiff: bytes, tag: int) -> list[int]:
    """The values of one tag of the first directory, as many as there may be strips; none where it has no numbers."""
    found = {known: (kind, entry) for known, kind, entry in tiff_entries(tiff)}.get(tag)
    if found is None or found[0] not in TIFF_NUMBERS:
        return []
    kind, entry = found
    order, wide = tiff_layout(tiff)
    code, count = TIFF_NUMBERS[kind], min(tiff_count(entry, order, wide), MOST_STRIPS + 1)
    size, inline = struct.calcsize(f"={code}") * count, entry[12:] if wide else entry[8:]
    if size > len(inline):
        (start,) = struct.unpack(f"{order}{'Q' if wide else 'L'}", inline)
        inline = tiff[start : start + size]
    return list(struct.unpack(f"{order}{count}{code}", inline[:size])) if len(inline) >= size else []


def upright(image: Image.Image, said: int) -> Image.Image:
    return image.transpose(TURNS[said]) if said in TURNS else image


def magicks_exif(text: object) -> bytes:
    try:
        return bytes.fromhex("".join(str(text or "").split("\n")[3:]))
    except ValueError:
        return b""


def png_texts(chunks: Iterable[bytes], keywords: Collection[bytes]) -> dict[bytes, bytes]:
    """Of each keyword its last text, empty where it can't be unpacked, and no other: a kilobyte may be a megabyte."""
    last = {}
    for chunk in chunks:
        keyword, _, rest = chunk[8:-4].partition(b"\0")
        if keyword in keywords:
            last[keyword] = chunk[4:8], rest
    return {keyword: _png_text(kind, rest) for keyword, (kind, rest) in last.items()}


def _png_text(kind: bytes, rest: bytes) -> bytes:
    is_packed = kind == b"zTXt"
    if kind == b"iTXt":
        is_packed, (_, _, translated) = rest[:1] == b"\1", rest[2:].partition(b"\0")
        rest = translated.partition(b"\0")[2]
    elif is_packed:
        rest = rest[1:]
    if not is_packed:
        return rest
    try:
        return zlib.decompressobj().decompress(rest, LARGEST_TEXT)
    except zlib.error:
        return b""


def exif_orientation(tiff: bytes) -> int | None:
    """Of the first directory; of any integer type, however many it says there are."""
    for tag, kind, entry in tiff_entries(tiff):
        if tag == ORIENTATION and kind in INTEGERS:
            wide = _is_big(tiff)
            value = entry[12:20] if wide else entry[8:12]
            code = INTEGERS[kind]
            if struct.calcsize(f"<{code}") > len(value):
                return None
            return int(struct.unpack_from(f"{_order(tiff)}{code}", value)[0])
    return None


def tiff_entries(tiff: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Tag, type and all the bytes of each entry that is there."""
    start, count = _directory(tiff)
    size = 20 if _is_big(tiff) else 12
    for offset in range(start, start + size * count, size):
        entry = tiff[offset : offset + size]
        if len(entry) < size:
            return
        tag, kind = struct.unpack_from(f"{_order(tiff)}HH", entry)
        yield tag, kind, entry


def _directory(tiff: bytes) -> tuple[int, int]:
    """Where the entries of the first directory begin, and how many there are; none where there is no telling."""
    order, wide = _order(tiff), _is_big(tiff)
    try:
        (at,) = struct.unpack_from(f"{order}{'Q' if wide else 'L'}", tiff, 8 if wide else 4)
        (count,) = struct.unpack_from(f"{order}{'Q' if wide else 'H'}", tiff, at)
    except (struct.error, OverflowError):
        return 0, 0
    return at + (8 if wide else 2), min(count, MOST_ENTRIES)


def _order(tiff: bytes) -> str:
    return ">" if tiff[:2] == b"MM" else "<"


def _is_big(tiff: bytes) -> bool:
    return tiff[2:4] in (b"+\0", b"\0+")


def readings(data: bytes, image_format: str) -> Iterator[bytes]:
    """The file, then the same without what the pixels don't need: for whoever could not read the one before."""
    if image_format == "TIFF":  # whose reader acts on what it finds there
        yield only_first_picture(data)
        return
    yield data
    left = data
    for reading in _for_pixels(data, image_format):
        if len(reading) < len(left) or (len(reading) == len(data) and reading != data):
            left = reading
            yield reading


def _for_pixels(data: bytes, image_format: str) -> Iterator[bytes]:
    if image_format == "JPEG":
        yield b"".join(_jpeg_for_pixels(data, with_profile=True))
        yield b"".join(_jpeg_for_pixels(data, with_profile=False))
    elif image_format == "PNG":
        yield b"".join(_png_for_pixels(data))
    elif image_format in ("AVIF", "HEIF"):
        yield EXIF_ITEM.sub(rb"\1free", data)


def _jpeg_for_pixels(data: bytes, *, with_profile: bool) -> Iterator[bytes]:
    yield data[:2]
    position = 2
    while position + 4 <= len(data) and data[position] == MARKER:
        kind = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if kind == START_OF_SCAN:
            break
        is_beside = kind == COMMENT or (FIRST_APP <= kind <= LAST_APP and kind not in MEANT_FOR_PIXELS)
        is_profile = data.startswith(PROFILE_SEGMENT, position + 4)
        if not is_beside or (is_profile and with_profile):
            yield data[position:end]
        position = end
    yield data[position:]


def _png_for_pixels(data: bytes) -> Iterator[bytes]:
    yield data[:PNG_SIGNATURE_BYTES]
    position = PNG_SIGNATURE_BYTES
    while position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if kind in PNG_NEEDS or (kind == b"iCCP" and _can_be_unpacked(data[position + 8 : end - 4])):
            yield data[position:end]
        position = end


def _can_be_unpacked(chunk: bytes) -> bool:
    _, _, packed = chunk.partition(b"\0")
    try:
        unpacker = zlib.decompressobj()
        unpacker.decompress(packed[1:], LARGEST_PROFILE // 8)  # Pillow takes a megabyte
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def only_first_picture(data: bytes) -> bytes:
    """A TIFF whose directory names what the pixels of its first picture need, in the same places, and no other one."""
    reading = bytearray(data)
    only_these_entries(reading, data, TIFF_NEEDS)
    return bytes(reading)


def only_these_entries(tiff: bytearray, data: bytes, tags: set[int]) -> None:
    """Of the first directory of `data`, and no further one; written to the same place of `tiff`."""
    order, wide = tiff_layout(data)
    start, count = _directory(data)
    if count:
        kept = [entry for tag, _, entry in tiff_entries(data) if tag in tags]
        directory = struct.pack(f"{order}{'Q' if wide else 'H'}", len(kept)) + b"".join(kept) + bytes(8 if wide else 4)
        start -= 8 if wide else 2
        tiff[start : start + len(directory)] = directory


def tiff_layout(tiff: bytes) -> tuple[str, bool]:
    """The order of its bytes, and whether its numbers are wide (BigTIFF)."""
    return _order(tiff), _is_big(tiff)

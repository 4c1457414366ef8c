"""From bytes to pixels, and what that costs; whatever Pillow raises on the way becomes one of our errors.

The one place that turns a stored file into what is encoded, shown and made small: 8-bit sRGB without transparency,
upright, of the first picture that is not blank. In a running service only `decoder.py` has pixels made: it sees to how
much is decoded at once.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from PIL import Image

from tuwen.errors import UnreadableImage
from tuwen.pictures.colours import (
    GREY_MODES,
    GreyScale,
    is_grey_of_many_bits,
    keeps_its_mode,
    on_a_ground,
    profile_of,
    to_srgb,
)
from tuwen.pictures.formats import format_of, open_picture
from tuwen.pictures.frames import further_frames, go_to_first_seen, is_animated
from tuwen.pictures.jpeg import draft, with_its_end
from tuwen.pictures.jpeg2000 import resolutions_to_drop
from tuwen.pictures.metadata import LIES_ON_ITS_SIDE, orientation, readings, tiff_orientation, upright
from tuwen.pictures.pieces import require_few_pieces
from tuwen.pictures.provenance import says_generated

# Longest side of what encoders get. They look at 224 to 384 pixels; vectors of a picture that was cut down to this have
# a cosine of 0.9996 and more to those of the whole one.
DECODE_SIDE = 768
# An averaging reduction to no less than this many times that, then a resampling: as good as the resampling alone.
REDUCING_GAP = 2
BAND_PIXELS = 1_000_000
# What Pillow 13 holds at the same time, in pixels of 4 bytes for each pixel of the picture; measured. libwebp keeps two
# canvases beside Pillow's two copies, OpenJPEG four bytes a channel, libtiff a strip that may be all of the picture.
# libjpeg keeps the coefficients of a progressive file, 2 bytes a channel.
FULL_COPIES = {"WEBP": 4.0, "AVIF": 3.0, "HEIF": 3.0, "TIFF": 3.5, "JPEG2000": 7.0}
ANIMATED_COPIES = 4.5  # of a GIF or a PNG that goes on to its next frame: the one before, and what it is put on
JPEG_COPIES_PER_CHANNEL = 0.5
LARGEST_DRAFT = 8  # libjpeg decodes to a half, a quarter or an eighth at once

Box = tuple[int, int, int, int]  # left, top, right, bottom
Read = TypeVar("Read")


class Header(NamedTuple):
    """What is known of a picture before it is decoded."""

    image_format: str
    width: int
    height: int
    pixels_to_decode: int
    """What decoding holds at most, in pixels of 4 bytes, and the further frames of an animation."""


class Decoded(NamedTuple):
    image: Image.Image
    """RGB, upright, without anything beside its pixels."""
    width: int
    height: int
    """Of the whole picture, upright."""
    is_generated: bool
    """Its own metadata says that a model made it."""
    orientation: int
    """As its metadata has it, of what is no upright picture."""


def read_header(data: bytes, side: int = DECODE_SIDE) -> Header:
    """Raises UnsupportedImageType, UnreadableImage, or ImageTooLarge for an absurd size."""
    image_format = format_of(data)
    require_few_pieces(data, image_format)

    def read(reading: bytes) -> Header:
        image = open_picture(reading, image_format)
        return Header(image_format, *image.size, pixels_to_decode(image, reading, side))

    return _first_that_reads(readings(data, image_format), read)


def decode(data: bytes, *, side: int = DECODE_SIDE, trim: bool = False) -> Decoded:
    """At most `side` pixels on its longer side. Raises UnsupportedImageType or UnreadableImage.

    `trim` cuts transparent margins off first, so that a small product on a large empty canvas keeps its pixels.
    """
    image_format = format_of(data)

    def read(reading: bytes) -> Decoded:
        return _decode(reading, image_format, data, side=side, trim=trim)

    try:
        return _first_that_reads(readings(data, image_format), read)
    except UnreadableImage:
        whole = with_its_end(data, REDUCING_GAP * side) if image_format == "JPEG" else None
        if whole is None:
            raise
    return read(whole)


def _first_that_reads(all_readings: Iterable[bytes], read: Callable[[bytes], Read]) -> Read:
    """Raises what the first one met, where none does."""
    failed: UnreadableImage | None = None
    try:
        for reading in all_readings:
            try:
                return read(reading)
            except UnreadableImage as error:
                failed = failed or error
        assert failed is not None, "there is one reading at least"
        raise failed
    finally:
        del failed  # it holds this frame, which holds it, and the upload, until the garbage collector comes


def decode_image(data: bytes, *, side: int = DECODE_SIDE, trim: bool = False) -> Image.Image:
    return decode(data, side=side, trim=trim).image


def _decode(reading: bytes, image_format: str, data: bytes, *, side: int, trim: bool) -> Decoded:
    image = open_picture(reading, image_format)
    width, height = image.size
    try:
        load_image(image, side, reading)
        go_to_first_seen(image)
        said = tiff_orientation(data) if image_format == "TIFF" else orientation(image)
        small = upright(cut_down(image, side=side, trim=trim), said)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise UnreadableImage.in_field("image", f"is broken or cut off: {error}") from error
    if said in LIES_ON_ITS_SIDE:
        width, height = height, width
    return Decoded(small, width, height, says_generated(image, data), said)


def pixels_to_decode(image: Image.Image, data: bytes, side: int = DECODE_SIDE) -> int:
    """What `load_image` and `cut_down` hold at most, in pixels of 4 bytes; from the header alone.

    Frames that may have to be looked at count, too: they take no memory, but the time of as many pictures.
    """
    pixels, factor = image.width * image.height, _reducing_factor(max(image.size), side)
    if image.format == "JPEG":
        fraction = min(LARGEST_DRAFT, 1 << factor.bit_length() - 1)  # the largest power of two up to `factor`
        return int(pixels * JPEG_COPIES_PER_CHANNEL * len(image.getbands())) + 2 * pixels // fraction**2
    copies = FULL_COPIES.get(image.format or "", ANIMATED_COPIES if is_animated(image) else 1.0)
    if image.format == "JPEG2000":
        copies /= 4 ** resolutions_to_drop(data, factor)
    largest = (2 * REDUCING_GAP * side) ** 2  # of what is visible only, which may be any part
    reduced = min(pixels, largest) if image.has_transparency_data else pixels // factor**2
    return int(pixels * copies) + reduced + pixels * further_frames(image)


def load_image(image: Image.Image, side: int, data: bytes) -> None:
    """All of its pixels, in place; a JPEG's and a JPEG 2000's at a fraction of its size."""
    if image.format == "JPEG":
        draft(image, REDUCING_GAP * side)
    elif image.format == "JPEG2000":
        setattr(image, "reduce", resolutions_to_drop(data, _reducing_factor(max(image.size), side)))  # noqa: B010  # Pillow has two of the name
    image.load()


def cut_down(image: Image.Image, *, side: int = DECODE_SIDE, trim: bool = False) -> Image.Image:
    """See `decode`. At full size only a band of rows is ever copied: converting would make a second picture."""
    profile, was_grey = profile_of(image), image.mode in GREY_MODES or is_grey_of_many_bits(image)
    look = _Look(image, profile)
    small = _reduced(image, look, side, trim=trim)
    small = to_srgb(small, profile, was_grey=was_grey)
    if small.mode == "RGBA":
        if trim and (box := small.getchannel("A").getbbox()):
            small = small.crop(box)
        small = on_a_ground(small)
    small.info.clear()
    return small


class _Look:
    """How a band of a picture is seen: in which mode it is cut down."""

    def __init__(self, image: Image.Image, profile: bytes | None) -> None:
        self._scale: GreyScale | None = None
        self.mode = "RGB"
        if is_grey_of_many_bits(image):
            bands = (image.crop(band) for band in _bands((0, 0, *image.size)))
            self._scale = GreyScale(bands, white_is_zero=_white_is_zero(image))
        elif image.has_transparency_data:
            self.mode = "RGBA"
        elif keeps_its_mode(image, profile):
            self.mode = image.mode

    def __call__(self, band: Image.Image) -> Image.Image:
        return (self._scale(band) if self._scale else band).convert(self.mode)


def _reduced(image: Image.Image, look: _Look, side: int, *, trim: bool) -> Image.Image:
    whole: Box = (0, 0, *image.size)
    left, top, right, bottom = box = _visible_box(image) if trim and look.mode == "RGBA" else whole
    factor = _reducing_factor(max(right - left, bottom - top), side)
    if box == whole and max(box) <= side:  # most pictures of a shop
        return look(image)
    small = Image.new(look.mode, (-(-(right - left) // factor), -(-(bottom - top) // factor)))
    for band in _bands(box, row_step=factor):
        small.paste(look(image.crop(band)).reduce(factor), (0, (band[1] - top) // factor))
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    return small


def _white_is_zero(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})  # Pillow turns 8-bit TIFFs round by itself, and no wider ones
    return bool(tags.get(262, 1) == 0)


def _reducing_factor(longer_side: int, side: int) -> int:
    return max(1, longer_side // (REDUCING_GAP * side))


def _visible_box(image: Image.Image) -> Box:
    """Around all that is not wholly transparent; the whole where nothing is visible."""
    whole = (0, 0, *image.size)
    boxes = []
    for band in _bands(whole):
        found = image.crop(band).convert("RGBA").getbbox(alpha_only=True)
        if found:
            boxes.append((found[0], band[1] + found[1], found[2], band[1] + found[3]))
    if not boxes:
        return whole
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _bands(box: Box, *, row_step: int = 1) -> Iterator[Box]:
    """Of a multiple of `row_step` rows each, but the last."""
    left, top, right, bottom = box
    rows = row_step * max(1, BAND_PIXELS // (row_step * (right - left)))
    for start in range(top, bottom, rows):
        yield left, start, right, min(start + rows, bottom)

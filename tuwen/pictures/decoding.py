"""From bytes to pixels, and what that costs; whatever Pillow raises on the way becomes one of our errors.

In a running service only `decoder.py` has pixels made: it sees to how much is decoded at once.
"""

import io
import warnings
from collections.abc import Iterator

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from data_models import PICTURE_FORMATS_IN_WORDS
from tuwen.errors import ImageTooLarge, UnreadableImage

LIES_ON_ITS_SIDE = range(5, 9)  # EXIF's orientation
# Longest side of what leaves this module. Encoders look at 224 to 384 pixels; vectors of a picture that was cut down
# to this have a cosine of 0.9996 and more to those of the whole one.
DECODE_SIDE = 768
# An averaging reduction to no less than this many times that, then a resampling: as good as the resampling alone.
REDUCING_GAP = 2
BAND_PIXELS = 1_000_000
# What Pillow 13 holds at the same time, in pixels of 4 bytes for each pixel of the picture; measured. libwebp keeps two
# canvases beside Pillow's two copies. libjpeg keeps the coefficients of a progressive file, 2 bytes a channel.
FULL_COPIES = {"WEBP": 4}
JPEG_COPIES_PER_CHANNEL = 0.5
LARGEST_DRAFT = 8  # libjpeg decodes to a half, a quarter or an eighth at once

Box = tuple[int, int, int, int]  # left, top, right, bottom


def decode_image(data: bytes, *, trim: bool = False) -> Image.Image:
    """The picture upright, RGB or RGBA, at most DECODE_SIDE pixels on its longer side. Raises UnreadableImage.

    `trim` cuts transparent margins off first, so that a small product on a large empty canvas keeps its pixels.
    """
    image = open_image(data)
    load_image(image)
    return cut_down(image, trim=trim)


def open_image(data: bytes) -> Image.Image:
    """Its header alone: format and size. Raises UnreadableImage, or ImageTooLarge for an absurd size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit of the settings is stricter
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageTooLarge.in_field("image", f"has too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        message = f"is not a picture; send a {PICTURE_FORMATS_IN_WORDS} file"
        raise UnreadableImage.in_field("image", message) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage.in_field("image", f"can't be read: {error}") from error


def pixels_to_decode(image: Image.Image) -> int:
    """What `load_image` and `cut_down` hold at most, in pixels of 4 bytes; from the header alone."""
    pixels, factor = image.width * image.height, _reducing_factor(max(image.size))
    if image.format == "JPEG":
        fraction = min(LARGEST_DRAFT, 1 << factor.bit_length() - 1)  # the largest power of two up to `factor`
        return int(pixels * JPEG_COPIES_PER_CHANNEL * len(image.getbands())) + 2 * pixels // fraction**2
    largest = (2 * REDUCING_GAP * DECODE_SIDE) ** 2  # of what is visible only, which may be any part
    reduced = min(pixels, largest) if image.has_transparency_data else pixels // factor**2
    return int(pixels * FULL_COPIES.get(image.format or "", 1)) + reduced


def load_image(image: Image.Image) -> None:
    """All of its pixels, in place; a JPEG's at a fraction of its size. Raises UnreadableImage for a part of a file."""
    share = REDUCING_GAP * DECODE_SIDE / max(image.size)
    try:
        if share < 1:
            image.draft("RGB", (max(1, int(image.width * share)), max(1, int(image.height * share))))
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UnreadableImage.in_field("image", f"is broken or cut off: {error}") from error


def cut_down(image: Image.Image, *, trim: bool = False) -> Image.Image:
    """See `decode_image`. At full size only a band of rows is ever copied: converting would make a second picture."""
    mode = _mode_to_see(image)
    left, top, right, bottom = box = _visible_box(image) if trim and mode == "RGBA" else (0, 0, *image.size)
    factor = _reducing_factor(max(right - left, bottom - top))
    if box == (0, 0, *image.size) and max(box) <= DECODE_SIDE:  # most pictures of a shop
        return _upright(image.convert(mode), orientation(image))
    small = Image.new(mode, (-(-(right - left) // factor), -(-(bottom - top) // factor)))
    for band in _bands(box, row_step=factor):
        small.paste(image.crop(band).convert(mode).reduce(factor), (0, (band[1] - top) // factor))
    small.thumbnail((DECODE_SIDE, DECODE_SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
    return _upright(small, orientation(image))


def orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8, of a picture that is loaded: a PNG may say it behind its pixels."""
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _upright(image: Image.Image, said: int) -> Image.Image:
    """In place."""
    image.getexif()[ExifTags.Base.Orientation] = said
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _reducing_factor(longer_side: int) -> int:
    return max(1, longer_side // (REDUCING_GAP * DECODE_SIDE))


def _mode_to_see(image: Image.Image) -> str:
    return "RGBA" if image.has_transparency_data and not image.mode.startswith(("I", "F")) else "RGB"


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

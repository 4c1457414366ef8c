"""What a file is, by its first bytes: opened by the one reader of its kind, or refused under its own name.

Pillow has forty readers and asks all of them; here a file meets none but the one that its kind needs.
"""

import io
import re
from collections.abc import Callable

from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from data_models import PICTURE_FORMATS_IN_WORDS
from tuwen.errors import ImageTooLarge, UnreadableImage, UnsupportedImageType
from tuwen.pictures.metadata import is_camera_raw

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # of more than 4 GB, by its layout
    b"MM\0+": "TIFF",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
}
# ISO base media files name their kind by brands: the first of these that one has.
BRANDS = {"AVIF": {b"avif", b"avis"}, "HEIF": {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}}
MOST_BRANDS = 32
# What people send, and what no reader here is for. Pictures are answered 415; what is none, 422.
REFUSED_PICTURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"FUJIFILMCCD-RAW": "camera's raw",
    b"IIU\0": "camera's raw",
    b"IIRO": "camera's raw",
    b"qoif": "QOI",
    b"gimp xcf": "GIMP",
    b"II\xbc\x01": "JPEG XR",
}
REFUSED_FILES = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1aE\xdf\xa3": "a video",
}
MARKUP = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?P<first>svg|\?xml|!doctype|html)", re.IGNORECASE)
MARKUP_BYTES = 1024


def format_of(data: bytes) -> str:
    """One of PICTURE_FORMATS. Raises UnsupportedImageType or UnreadableImage, which say what it is instead."""
    known = _format_of(data)
    if known is None:
        raise _refusal(data)
    if known == "TIFF" and is_camera_raw(data):
        raise unsupported("camera's raw")
    return known


def open_picture(data: bytes, image_format: str) -> Image.Image:
    """Its header alone. Raises UnreadableImage, or ImageTooLarge for an absurd size."""
    try:
        return READERS.get(image_format, _open_by_pillow)(data, image_format)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge.in_field("image", f"has too many pixels: {error}") from error
    except MemoryError:
        raise
    except UnidentifiedImageError as error:  # whose own words name an address in memory
        raise UnreadableImage.in_field("image", "can't be read: its header is broken") from error
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise UnreadableImage.in_field("image", f"can't be read: {error}") from error


def _open_by_pillow(data: bytes, image_format: str) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=[image_format])


def _open_jpeg(data: bytes, _: str) -> Image.Image:
    """Its first picture: a phone's holds more of them (a gain map, a depth map, a preview), and Pillow's own way to
    open one looks for these, and takes the file for another format.
    """
    return JpegImagePlugin.JpegImageFile(io.BytesIO(data))


def _open_heif(data: bytes, _: str) -> Image.Image:
    import pillow_heif  # noqa: PLC0415  # 25 MB of libraries that few need
    from pillow_heif.as_plugin import HeifImageFile  # noqa: PLC0415

    options = pillow_heif.options
    options.DECODE_THREADS = 1  # of several at a time it sees none of the others, nor DECODE_MAX_MEGAPIXELS
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False  # the picture, and nothing said of it
    image: Image.Image = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    return image


def _open_avif(data: bytes, image_format: str) -> Image.Image:
    from PIL import AvifImagePlugin  # noqa: PLC0415  # as above

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return _open_by_pillow(data, image_format)


READERS: dict[str, Callable[[bytes, str], Image.Image]] = {
    "JPEG": _open_jpeg,
    "HEIF": _open_heif,
    "AVIF": _open_avif,
}


def _format_of(data: bytes) -> str | None:
    for signature, image_format in SIGNATURES.items():
        if data.startswith(signature):
            return image_format
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    own = brands(data)
    return next((image_format for image_format, names in BRANDS.items() if names & own), None)


def brands(data: bytes) -> set[bytes]:
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 16 + 4 * MOST_BRANDS)
    return {data[8:12]} | {data[start : start + 4] for start in range(16, end, 4)}


def _refusal(data: bytes) -> UnsupportedImageType | UnreadableImage:
    for signature, name in REFUSED_PICTURES.items():
        if data.startswith(signature):
            return unsupported(name)
    for signature, name in REFUSED_FILES.items():
        if data.startswith(signature):
            return not_a_picture(name)
    if data[4:8] == b"ftyp":
        return unsupported("camera's raw") if b"crx " in brands(data) else not_a_picture("a video")
    if markup := MARKUP.match(data[:MARKUP_BYTES]):
        is_svg = b"<svg" in data[:MARKUP_BYTES].lower()
        page = "a page of HTML" if markup["first"].lower() != b"?xml" else "XML"
        return unsupported("SVG") if is_svg else not_a_picture(page)
    return _refusal_by_pillow(data)


def _refusal_by_pillow(data: bytes) -> UnsupportedImageType | UnreadableImage:
    """It knows the names of many more, by their headers."""
    try:
        return unsupported(str(Image.open(io.BytesIO(data)).format))
    except Exception:  # whatever is wrong with it, it is none that is accepted
        return not_a_picture()


def unsupported(name: str) -> UnsupportedImageType:
    return UnsupportedImageType.in_field("image", f"is a {name} file; send a {PICTURE_FORMATS_IN_WORDS} file")


def not_a_picture(what: str = "") -> UnreadableImage:
    said = f"is {what}, not a picture" if what else "is not a picture"
    return UnreadableImage.in_field("image", f"{said}; send a {PICTURE_FORMATS_IN_WORDS} file")

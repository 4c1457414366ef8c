"""What is accepted as a picture: its format, its size in bytes and pixels, and that it is whole."""

import hashlib

from data_models import PICTURE_FORMATS
from tuwen.errors import ImageTooLarge
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.decoding import Decoded, Header, decode, read_header
from tuwen.pictures.formats import format_of
from tuwen.pictures.thumbnails import make_thumbnail
from tuwen.settings import Settings


def require_size(data: bytes, settings: Settings) -> None:
    """Before anything looks into it. Raises ImageTooLarge."""
    if len(data) > settings.upload_max_bytes:
        raise ImageTooLarge.in_field(
            "image", f"has {len(data):,} bytes, the limit is {settings.upload_max_bytes:,}; send a smaller picture"
        )


def require_pixels(header: Header, settings: Settings) -> None:
    """By its header alone. Raises ImageTooLarge."""
    pixels = header.width * header.height
    if pixels > settings.image_max_pixels:
        raise ImageTooLarge.in_field(
            "image",
            f"has {header.width} × {header.height} = {pixels:,} pixels, the limit is {settings.image_max_pixels:,}",
        )


def check_image(data: bytes, settings: Settings) -> CheckedImage:
    """Decode the picture once, whole. Raises ImageTooLarge, UnsupportedImageType or UnreadableImage."""
    require_size(data, settings)
    require_pixels(read_header(data), settings)
    return as_checked(data, decode(data))


def as_checked(data: bytes, decoded: Decoded) -> CheckedImage:
    return CheckedImage(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        extension=PICTURE_FORMATS[format_of(data)].extensions[0],
        width=decoded.width,
        height=decoded.height,
        thumbnail=make_thumbnail(decoded.image),
        is_generated=decoded.is_generated,
    )

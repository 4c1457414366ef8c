"""What is accepted as a picture: its format, its size in bytes and pixels, and that it is whole."""

import hashlib

from data_models import PICTURE_FORMATS
from tuwen.errors import ImageTooLarge, InvalidInput
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.cleaning import Said, cleaned
from tuwen.pictures.decoding import Decoded, Header, decode, read_header
from tuwen.pictures.formats import format_of
from tuwen.pictures.pieces import require_few_pieces
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
    return as_checked(data, settings, decode(data))


def is_stored_as(sha256: str, data: bytes, settings: Settings) -> bool:
    """Whether this file is that stored picture: as it came, or as it is cleaned. Makes no pixels."""
    if hashlib.sha256(data).hexdigest() == sha256:
        return True
    try:
        image_format = format_of(data)
        require_few_pieces(data, image_format)  # nobody has read it yet, and whoever asks has one thread for this
        clean = cleaned(data, image_format) if settings.image_metadata == "remove" else data
    except InvalidInput:
        return False  # of which its reader says why
    return clean is not data and hashlib.sha256(clean).hexdigest() == sha256


def as_checked(data: bytes, settings: Settings, decoded: Decoded, *, is_ours: bool = False) -> CheckedImage:
    """As it is stored. What is ours was drawn here: nobody's, and stored already."""
    image_format, received = format_of(data), hashlib.sha256(data).hexdigest()
    clean = data
    if settings.image_metadata == "remove" and not is_ours:
        clean = cleaned(data, image_format, Said(decoded.orientation, decoded.is_generated))
    return CheckedImage(
        data=clean,
        sha256=received if clean is data else hashlib.sha256(clean).hexdigest(),
        received_sha256=received,
        extension=PICTURE_FORMATS[image_format].extensions[0],
        width=decoded.width,
        height=decoded.height,
        thumbnail=make_thumbnail(decoded.image),
        is_generated=decoded.is_generated,
    )

"""What is accepted as a picture: its format, its size in bytes and pixels, and that it is whole."""

import hashlib

from PIL import Image

from data_models import PICTURE_FORMATS
from tuwen.errors import ImageTooLarge, UnsupportedImageType
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.decoding import LIES_ON_ITS_SIDE, cut_down, load_image, open_image, orientation
from tuwen.pictures.provenance import says_generated
from tuwen.pictures.thumbnails import make_thumbnail
from tuwen.settings import Settings


def open_within_limits(data: bytes, settings: Settings) -> Image.Image:
    """By its header alone. Raises ImageTooLarge, UnsupportedImageType or UnreadableImage."""
    if len(data) > settings.upload_max_bytes:
        raise ImageTooLarge.in_field(
            "image", f"has {len(data):,} bytes, the limit is {settings.upload_max_bytes:,}; send a smaller picture"
        )
    image = open_image(data)
    if image.format not in PICTURE_FORMATS:
        accepted = ", ".join(PICTURE_FORMATS)
        raise UnsupportedImageType.in_field("image", f"is a {image.format} file; send one of {accepted}")
    pixels = image.width * image.height
    if pixels > settings.image_max_pixels:
        raise ImageTooLarge.in_field(
            "image",
            f"has {image.width} × {image.height} = {pixels:,} pixels, the limit is {settings.image_max_pixels:,}",
        )
    return image


def check_image(data: bytes, settings: Settings) -> CheckedImage:
    """Decode the picture once, whole. Raises ImageTooLarge, UnsupportedImageType or UnreadableImage."""
    image = open_within_limits(data, settings)
    assert image.format is not None, "it is one of PICTURE_FORMATS"
    width, height = image.size
    load_image(image)
    if orientation(image) in LIES_ON_ITS_SIDE:
        width, height = height, width
    return CheckedImage(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        extension=PICTURE_FORMATS[image.format].extensions[0],
        width=width,
        height=height,
        thumbnail=make_thumbnail(cut_down(image)),
        is_generated=says_generated(image),
    )

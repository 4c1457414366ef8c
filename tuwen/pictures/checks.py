"""What is accepted as a picture: its format, its size in bytes and pixels, and that it is whole."""

import hashlib

from PIL import Image, ImageOps

from data_models import PICTURE_FORMATS
from tuwen.errors import ImageTooLarge, UnsupportedImageType
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.decoding import load_image, open_image
from tuwen.pictures.provenance import says_generated
from tuwen.settings import Settings


def check_image(data: bytes, settings: Settings) -> CheckedImage:
    """Decode the picture once, whole. Raises ImageTooLarge, UnsupportedImageType or UnreadableImage."""
    if len(data) > settings.upload_max_bytes:
        raise ImageTooLarge.in_field(
            "image", f"has {len(data):,} bytes, the limit is {settings.upload_max_bytes:,}; send a smaller picture"
        )
    image = open_image(data)
    if image.format not in PICTURE_FORMATS:
        accepted = ", ".join(PICTURE_FORMATS)
        raise UnsupportedImageType.in_field("image", f"is a {image.format} file; send one of {accepted}")
    _require_pixels_within_limit(image, settings)
    load_image(image)
    width, height = ImageOps.exif_transpose(image).size
    sha256 = hashlib.sha256(data).hexdigest()
    extension = PICTURE_FORMATS[image.format].extensions[0]
    return CheckedImage(data, sha256, extension, width, height, says_generated(image))


def _require_pixels_within_limit(image: Image.Image, settings: Settings) -> None:
    pixels = image.width * image.height
    if pixels > settings.image_max_pixels:
        raise ImageTooLarge.in_field(
            "image",
            f"has {image.width} × {image.height} = {pixels:,} pixels, the limit is {settings.image_max_pixels:,}",
        )

"""The small picture that lists and cards show."""

import io
from pathlib import PurePosixPath

from PIL import ImageOps

from tuwen.pictures.decoding import decode_image

THUMBNAIL_SIDE = 320


def thumbnail_path(image_path: str) -> str:
    """Inside the store."""
    return f"thumbnails/{PurePosixPath(image_path).with_suffix('.webp')}"


def make_thumbnail(data: bytes) -> bytes:
    """WebP, upright, at most THUMBNAIL_SIDE pixels on its longer side."""
    image = ImageOps.exif_transpose(decode_image(data))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()

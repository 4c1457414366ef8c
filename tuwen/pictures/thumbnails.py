"""The small picture that lists and cards show."""

import io
from pathlib import PurePosixPath

from PIL import Image

THUMBNAIL_SIDE = 320


def thumbnail_path(image_path: str) -> str:
    """Inside the store."""
    return f"thumbnails/{PurePosixPath(image_path).with_suffix('.webp')}"


def make_thumbnail(image: Image.Image) -> bytes:
    """WebP, at most THUMBNAIL_SIDE pixels on its longer side, of a decoded picture."""
    thumbnail = image.copy()
    thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()

"""The small picture that lists and cards show."""

import io

from PIL import Image

THUMBNAIL_SIDE = 320


def thumbnail_path(image_path: str) -> str:
    """Inside the store. Ten of them stand in each answer: no `pathlib`, which takes as long as a tenth of a search."""
    return f"thumbnails/{image_path.rsplit('.', 1)[0]}.webp"


def make_thumbnail(image: Image.Image) -> bytes:
    """WebP, at most THUMBNAIL_SIDE pixels on its longer side, of a decoded picture."""
    thumbnail = image.copy()
    thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()

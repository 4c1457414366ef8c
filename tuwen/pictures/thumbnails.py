"""What is shown for a picture: the small one of lists and cards, and one for formats that not every browser shows."""

import io

from PIL import Image

from data_models import PICTURE_FORMATS

THUMBNAIL_SIDE = 320
SHOWN_SIDE = 2048
WEBP_METHOD = 2  # of 0 (quick) to 6: half the time of Pillow's own 4, and files 4 % larger
FOR_BROWSERS = "shown"
NOT_SHOWN_BY_ALL = {each.extensions[0] for each in PICTURE_FORMATS.values() if not each.browsers_show}


def thumbnail_path(image_path: str) -> str:
    """Inside the store. Ten of them stand in each answer: no `pathlib`, which takes as long as a tenth of a search."""
    return f"thumbnails/{image_path.rsplit('.', 1)[0]}.webp"


def shown_path(image_path: str) -> str:
    """What every browser shows: the picture itself, or what is made of it when it is first asked for."""
    stem, _, extension = image_path.rpartition(".")
    return f"{FOR_BROWSERS}/{stem}.webp" if extension in NOT_SHOWN_BY_ALL else image_path


def derived_paths(image_path: str) -> list[str]:
    """What can be made of it again, and goes where it goes."""
    shown = shown_path(image_path)
    return [thumbnail_path(image_path), *([shown] if shown != image_path else [])]


def paths_that_go_with(image_path: str) -> list[str]:
    """The same, and what earlier versions made for browsers of pictures that need none."""
    stem = image_path.rpartition(".")[0]
    return [thumbnail_path(image_path), f"{FOR_BROWSERS}/{stem}.webp"]


def make_thumbnail(image: Image.Image) -> bytes:
    """WebP, at most THUMBNAIL_SIDE pixels on its longer side, of a decoded picture."""
    thumbnail = image.copy()
    thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return as_webp(thumbnail)


def as_webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85, method=WEBP_METHOD)
    return buffer.getvalue()

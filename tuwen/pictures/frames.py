"""Which picture of an animation counts: the first that is not blank."""

import logging

import numpy as np
from PIL import Image

logger = logging.getLogger(__name__)

ANIMATIONS = {"GIF", "PNG", "WEBP", "AVIF"}
# Looked through for one that is not blank: as many as these, and no more pixels in all.
MOST_FRAMES, MOST_PIXELS = 100, 200_000_000
ONE_COLOUR = 8  # between the least and the most of a channel; what a lossy encoder makes of a plain area
BAND_ROWS = 256


def go_to_first_seen(image: Image.Image) -> None:
    """From the first frame, which is loaded, to a later one if that is blank; back to it where all that follow are,
    or are broken.
    """
    if image.format not in ANIMATIONS or not is_animated(image) or not _is_blank(image):
        return
    frames = min(MOST_FRAMES, max(2, MOST_PIXELS // (image.width * image.height)))
    try:
        for number in range(1, frames):
            image.seek(number)
            image.load()
            if not _is_blank(image):
                return
    except MemoryError:
        raise
    except Exception as error:  # as Pillow's readers: the first picture was whole
        logger.debug("An animation ends at a frame that can't be read: %r", error)
    image.seek(0)
    image.load()


def is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except MemoryError:
        raise
    except Exception:  # a GIF looks for its second frame, which may be broken
        return False


def _is_blank(image: Image.Image) -> bool:
    mode = "RGBA" if image.has_transparency_data else "RGB"
    lows, highs = np.full(len(mode), 255), np.zeros(len(mode))
    for top in range(0, image.height, BAND_ROWS):
        band = image.crop((0, top, image.width, min(top + BAND_ROWS, image.height))).convert(mode)
        values = np.asarray(band)
        lows, highs = np.minimum(lows, values.min((0, 1))), np.maximum(highs, values.max((0, 1)))
    if mode == "RGBA":
        if highs[3] <= ONE_COLOUR:  # nothing of it can be seen
            return True
        if highs[3] - lows[3] > ONE_COLOUR:  # a shape
            return False
    return bool((highs - lows)[:3].max() <= ONE_COLOUR)

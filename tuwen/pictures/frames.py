"""Which picture of an animation counts: the first that is not blank."""

import logging

import numpy as np
from PIL import Image

logger = logging.getLogger(__name__)

ANIMATIONS = {"GIF", "PNG", "WEBP", "AVIF"}
# Looked through for one that is not blank: as many further frames as these, and no more pixels in all, the first frame
# once more among them, where none is found. A few hundred bytes may be frames of any size.
MOST_FURTHER_FRAMES, MOST_FURTHER_PIXELS = 8, 20_000_000
ONE_COLOUR = 8  # between the least and the most of a channel; what a lossy encoder makes of a plain area
BAND_ROWS = 256


def go_to_first_seen(image: Image.Image) -> None:
    """From the first frame, which is loaded, to a later one if that is blank; back to it where all that are looked at
    are, or are broken.
    """
    further = further_frames(image)
    if not further or not _is_blank(image):
        return
    try:
        for number in range(1, 1 + further):
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


def further_frames(image: Image.Image) -> int:
    """How many are looked at where the first is blank; none of one that is too large to look at any."""
    if image.format not in ANIMATIONS or not is_animated(image):
        return 0
    return max(0, min(MOST_FURTHER_FRAMES, MOST_FURTHER_PIXELS // (image.width * image.height) - 1))


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

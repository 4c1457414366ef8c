"""The training pictures: cut out and framed once into one file of 128 pixels a side, and varied from there.

A framed picture is uint8 [128, 128, 4], red, green, blue and opacity, so that colour and ground can be changed apart.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.features import PictureSet

logger = logging.getLogger(__name__)

SIDE = 128
MARGIN = 0.05  # of the side, left free around the thing
GROUND_TOLERANCE, OPAQUE_DIFFERENCE = 4, 20  # of 255, to the ground's colour; WebP's noise stays below the first
MIN_SHARE = 0.25  # of a thing's area that its main colour has; a smaller one is not recoloured alone
CHROMA_WIDTH, GREY_WEIGHT = 0.15, 0.2
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """How a framed picture is varied: its colour (red, green, blue of 255, or as it is), mirrored, smaller, moved.

    `shift` is a part of the room that `scale` (at most 1) leaves, 0 to 1 to the right and down.
    """

    rgb: tuple[int, int, int] | None = None
    mirrored: bool = False
    scale: float = 1.0
    shift: tuple[float, float] = (0.5, 0.5)


def frame_pictures(sets: Sequence[PictureSet], file: Path) -> Bytes:
    """All pictures of the sets, in order, [n, 128, 128, 4]; mapped from `file`, which is made once."""
    keys = [f"{pictures.source}:{picture.key}" for pictures in sets for picture in pictures.pictures]
    keys_file = file.with_suffix(".json")
    if not (file.exists() and keys_file.exists() and json.loads(keys_file.read_text()) == keys):
        logger.info("framing %d pictures", len(keys))
        file.parent.mkdir(parents=True, exist_ok=True)
        keys_file.unlink(missing_ok=True)
        framed = np.lib.format.open_memmap(file, "w+", np.uint8, (len(keys), SIDE, SIDE, 4))
        thumbnails = (pictures.thumbnail(index) for pictures in sets for index in range(len(pictures.pictures)))
        for row, thumbnail in enumerate(thumbnails):
            framed[row] = frame(thumbnail)
        framed.flush()
        keys_file.write_text(json.dumps(keys))  # last: its presence says that the pictures are whole
    mapped: Bytes = np.load(file, mmap_mode="r")
    return mapped


def frame(thumbnail: Image.Image) -> Bytes:
    """Cut an RGBA picture out of its ground and centre it: uint8 [128, 128, 4]."""
    cut = cut_out(thumbnail)
    box = cut.getchannel("A").getbbox()
    if box:
        cut = cut.crop(box)
    side = round(max(cut.size) / (1 - 2 * MARGIN))
    canvas = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    canvas.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def cut_out(thumbnail: Image.Image) -> Image.Image:
    """A picture without opacity of its own gets one from its difference to the even ground of its first pixel."""
    pixels = np.asarray(thumbnail).copy()
    if pixels[..., 3].min() == 255:  # noqa: PLR2004  # opaque
        difference = np.abs(pixels[..., :3].astype(np.int16) - pixels[0, 0, :3]).max(2)
        ramp = (difference - GROUND_TOLERANCE) / (OPAQUE_DIFFERENCE - GROUND_TOLERANCE)
        pixels[..., 3] = np.clip(ramp * 255, 0, 255)
    return Image.fromarray(pixels)


def draw(framed: Bytes, look: Look) -> Bytes:
    """The varied picture on white, uint8 [128, 128, 3]."""
    if look.rgb is not None:
        framed = recolour(framed, look.rgb)
    if look.mirrored:
        framed = framed[:, ::-1]
    image = Image.fromarray(np.ascontiguousarray(framed))
    inner = round(SIDE * look.scale)
    if inner < SIDE:
        image = image.resize((inner, inner), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    left, top = (round((SIDE - inner) * part) for part in look.shift)
    canvas.paste(image, (left, top), image.getchannel("A"))
    return np.asarray(canvas)


def recolour(framed: Bytes, rgb: tuple[int, int, int]) -> Bytes:
    """Give the thing's main colour, or all of it where none prevails, another one and keep light and shade."""
    colours = framed[..., :3].astype(np.float32) / np.float32(255)
    inside = framed[..., 3] > 127  # noqa: PLR2004  # half opaque
    if not inside.any():
        return framed
    part = _main_colour(colours, inside)
    brightness = colours @ BRIGHTNESS
    chosen = inside & (part > 0.5)  # noqa: PLR2004
    full = max(float(np.percentile(brightness[chosen if chosen.any() else inside], 85)), 0.08)
    target = np.array(rgb, np.float32) / 255
    shade = np.clip(brightness / full, 0, 1.3)[..., None]
    # A pale colour has to stay pale in the shade, and black must not swallow the form.
    floor = 0.45 * float(target @ BRIGHTNESS)
    painted = target * (floor + (1 - floor) * np.minimum(shade, 1))
    painted += (1 - painted) * np.maximum(shade - 1, 0)
    mixed = colours + part[..., None] * (painted - colours)
    return np.concatenate([np.clip(mixed * 255 + 0.5, 0, 255).astype(np.uint8), framed[..., 3:]], axis=2)


def _main_colour(colours: Floats, inside: NDArray[np.bool_]) -> Floats:
    """How much each pixel belongs to the colour that most of the thing has, 0 to 1, [height, width].

    Bright colours count for more than grey: a red motorcycle is red, however much of it is tyres and metal.
    """
    red, green, blue = (colours[..., channel] for channel in range(3))
    chroma = np.stack([red - green, (red + green) / 2 - blue], axis=2)
    own = chroma[inside]
    weights = GREY_WEIGHT + np.abs(own).max(1)
    cells = np.floor((own + 1) / CHROMA_WIDTH).astype(np.int64)
    counts = np.zeros(cells.max(0) + 3)  # a rim of one cell, for the sums over neighbours
    np.add.at(counts, (cells[:, 0] + 1, cells[:, 1] + 1), weights)
    sums = np.lib.stride_tricks.sliding_window_view(counts, (3, 3)).sum((2, 3))
    near = np.abs(cells - np.array(np.unravel_index(sums.argmax(), sums.shape))).max(1) <= 1
    centre = np.average(own[near], axis=0, weights=weights[near])
    part: Floats = np.exp(-np.square((chroma - centre) / CHROMA_WIDTH).sum(2)).astype(np.float32)
    return part if part[inside].mean() >= MIN_SHARE else np.ones_like(part)

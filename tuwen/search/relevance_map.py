"""What in a picture fits a query: how much less near the picture is with a part of it hidden.

Works with every encoder, whatever is in it (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks",
2014, section 4.2). A part is two by two cells, so that each cell counts in up to four; one alone hides too little. What
hides it is the colour of the picture's edge, which most products stand on: blurred, their colours would still be there.
"""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_models import RelevanceMap
from tuwen.encoders.base import Vector
from tuwen.encoders.picture import prepare_picture

CELLS = 7
PARTS = CELLS - 1
MAPPED_VIEWS = 1 + PARTS**2
SIDE = 224  # pixels of the longer side, of what is encoded and of the map
LEAST_FALL = 0.02  # of a cosine, below which a cell is not full red: what hardly matters does not look as if it did
OPACITY = 0.75
RED = (230, 30, 30)

Cells = NDArray[np.float64]  # [CELLS, CELLS]


class Views(NamedTuple):
    picture: Image.Image
    """RGB, SIDE pixels on its longer side."""
    views: Sequence[Image.Image]
    """The picture itself, then with each part hidden, by rows."""


def views_of(image: Image.Image) -> Views:
    picture = prepare_picture(image, pad_to_square=False)
    scale = SIDE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    ground = _colour_of_edge(picture)
    views = [picture]
    for row in range(PARTS):
        for column in range(PARTS):
            view = picture.copy()
            view.paste(ground, _box(picture, row, column))
            views.append(view)
    return Views(picture, views)


def relevance_map_of(image_id: str, picture: Image.Image, query: Vector, vectors: Sequence[Vector]) -> RelevanceMap:
    """`vectors`: of all views, in their order."""
    whole, *parts = (float(np.dot(query, vector)) for vector in vectors)
    cells = _cells(whole - np.array(parts).reshape(PARTS, PARTS))
    drawn = io.BytesIO()
    _drawn(picture, cells).save(drawn, "PNG")
    return RelevanceMap(
        image_id=image_id,
        score=whole,
        cells=[[round(float(fall), 4) for fall in row] for row in cells],
        png_base64=base64.b64encode(drawn.getvalue()).decode("ascii"),
    )


def _colour_of_edge(picture: Image.Image) -> tuple[int, ...]:
    pixels = np.asarray(picture)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(each) for each in np.median(edge, axis=0))


def _box(picture: Image.Image, row: int, column: int) -> tuple[int, int, int, int]:
    width, height = picture.width / CELLS, picture.height / CELLS
    left, top = round(column * width), round(row * height)
    return left, top, max(left + 1, round((column + 2) * width)), max(top + 1, round((row + 2) * height))


def _cells(falls: NDArray[np.float64]) -> Cells:
    """`falls`: [PARTS, PARTS], of the parts; a cell's is the mean of those that hide it."""
    total, count = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for row in (0, 1):
        for column in (0, 1):
            total[row : row + PARTS, column : column + PARTS] += falls
            count[row : row + PARTS, column : column + PARTS] += 1
    mean: Cells = total / count
    return mean


def _drawn(picture: Image.Image, cells: Cells) -> Image.Image:
    shares = np.clip(cells / max(float(cells.max()), LEAST_FALL), 0, 1) * OPACITY * 255
    mask = Image.fromarray(shares.astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    grey = picture.convert("L").convert("RGB")
    return Image.composite(Image.new("RGB", picture.size, RED), grey, mask)

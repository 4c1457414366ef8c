"""From a prepared picture to what a network takes: the steps of transformers' PIL image processors, without them.

Importing these loads torch, which takes seconds and hundreds of megabytes; `export.py` checks that both agree.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from tuwen.encoders.picture import prepare_picture


class PixelRecipe(BaseModel, frozen=True):
    """Either `side`, the shorter one's length, or `size` (height, width), which changes the proportions."""

    pad_to_square: bool
    side: int | None = None
    size: tuple[int, int] | None = None
    resample: int
    crop: tuple[int, int] | None = None
    """Height and width, from the middle."""
    scale: tuple[float, float, float]
    shift: tuple[float, float, float]
    """A channel's value 0…255 times its scale, plus its shift."""

    def pixels(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[n, 3, height, width]"""
        return np.stack([self._channels(prepare_picture(each, pad_to_square=self.pad_to_square)) for each in images])

    def _channels(self, image: Image.Image) -> NDArray[np.float32]:
        image = image.resize(self._resized(image), resample=self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        values = np.asarray(image, np.float32) * np.asarray(self.scale, np.float32) + np.asarray(self.shift, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    def _resized(self, image: Image.Image) -> tuple[int, int]:
        if self.size is not None:
            return self.size[1], self.size[0]
        assert self.side is not None
        short, long = sorted(image.size)
        longer = int(self.side * long / short)
        return (self.side, longer) if image.width <= image.height else (longer, self.side)

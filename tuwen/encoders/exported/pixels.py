"""From a prepared picture to what a network takes: the steps of transformers' PIL image processors, without them.

Importing these loads torch, which takes seconds and hundreds of megabytes; `export.py` checks that both agree.
"""

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

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """[height, width, 3]"""
        image = prepare_picture(image, pad_to_square=self.pad_to_square)
        image = image.resize(self._resized(image), resample=self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.array(image)

    def channels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[3, height, width], scaled: what the network was made for. `PictureNetwork` has it done in the network."""
        values = pixels.astype(np.float32) * np.asarray(self.scale, np.float32) + np.asarray(self.shift, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """Of all pictures; None where each has its own."""
        return self.crop or self.size or ((self.side, self.side) if self.pad_to_square and self.side else None)

    def _resized(self, image: Image.Image) -> tuple[int, int]:
        if self.size is not None:
            return self.size[1], self.size[0]
        assert self.side is not None
        short, long = sorted(image.size)
        longer = int(self.side * long / short)
        return (self.side, longer) if image.width <= image.height else (longer, self.side)

"""Whatever a picture's numbers mean, as 8-bit sRGB: colour profiles, more than 8 bits a channel, and transparency.

All but the scaling of grey works on what is cut down already. Plain sRGB comes out as it went in, to the bit.
"""

import io
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from tuwen.pictures.metadata import LARGEST_PROFILE

# By the profile's own name of its colours: the mode of the pixels that it is for. Grey is looked at as one channel.
PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
GREY_MODES = ("1", "L", "LA", "La")
# A profile that moves no colour by more than this is sRGB under another name, and moves none.
SAME_COLOUR = 3
GRID = np.linspace(0, 255, 9).astype(np.uint8)
KEPT_TRANSFORMS = 16

# What holds more than 8 bits is mostly filled, from 0 to the most that so many bits hold.
BITS = (8, 10, 12, 16, 24, 31)
WHITE, GREY = (255, 255, 255), (192, 192, 192)
# Below this mean distance from white, of 255, white shows next to nothing. A white product with soft shadows has more,
# and its vector is nearer to that of a photo on white if it stays on it; of greys this one keeps products apart best.
LEAST_CONTRAST = 6


def is_grey_of_many_bits(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


class GreyScale:
    """From a grey picture's own range to 8 bits, learnt from all of its bands, and applied to each."""

    def __init__(self, bands: Iterable[Image.Image], *, white_is_zero: bool) -> None:
        lows, highs = zip(*(_finite_range(np.asarray(band)) for band in bands), strict=True)
        self._low, self._high = _meant_range(min(lows), max(highs))
        self._inverted = white_is_zero

    def __call__(self, band: Image.Image) -> Image.Image:
        values = np.nan_to_num(np.asarray(band).astype(np.float32), nan=self._low, posinf=self._high, neginf=self._low)
        share = np.clip((values - self._low) / (self._high - self._low), 0, 1)
        if self._inverted:
            share = 1 - share
        return Image.fromarray((share * 255 + 0.5).astype(np.uint8))


def _finite_range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _meant_range(low: float, high: float) -> tuple[float, float]:
    if low >= 0:
        if 0 < high <= 1:
            return 0.0, 1.0
        for bits in BITS:
            if high < 1 << bits:
                return 0.0, float((1 << bits) - 1)
    return low, max(high, low + 1)


def keeps_its_mode(image: Image.Image, profile: bytes | None) -> bool:
    """Whether it has to be cut down in the colours that it came in, since only its profile knows what they are."""
    if image.mode == "LAB":
        return True
    return image.mode == "CMYK" and _transform(profile, "CMYK") is not None


def to_srgb(image: Image.Image, profile: bytes | None, *, was_grey: bool) -> Image.Image:
    """RGB, or RGBA as it was. A profile that is broken, or for other colours than these, says nothing."""
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_transform()) or image
    if image.mode == "CMYK":
        transform = _transform(profile, "CMYK")
        return (ImageCms.applyTransform(image, transform) if transform else None) or image.convert("RGB")
    mode = "L" if was_grey else "RGB"
    transform = _transform(profile, mode)
    if transform is None:
        return image
    colours = ImageCms.applyTransform(image.getchannel("R") if was_grey else image.convert("RGB"), transform)
    assert colours is not None, "it was not asked for in place"
    if image.mode == "RGBA":
        colours.putalpha(image.getchannel("A"))
    return colours


def profile_of(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and 0 < len(profile) <= LARGEST_PROFILE else None


@lru_cache(KEPT_TRANSFORMS)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB, or None where there is nothing to do, or no telling what."""
    if profile is None:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if PROFILE_MODES.get(source.profile.xcolor_space.strip()) != mode:
            return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,  # what sRGB has stays as it is
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError, AttributeError):
        return None
    return transform if mode == "CMYK" or _moves_colours(transform, mode) else None


@lru_cache(1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _moves_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    grid = np.stack(np.meshgrid(GRID, GRID, GRID), axis=-1).reshape(1, -1, 3)
    image = Image.fromarray(np.ascontiguousarray(grid))
    if mode == "L":
        image = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    moved = ImageCms.applyTransform(image, transform)
    before, after = (np.asarray(each.convert("RGB")).astype(int) for each in (image, moved or image))
    return bool(np.abs(before - after).max() > SAME_COLOUR)


def on_a_ground(image: Image.Image) -> Image.Image:
    """RGB of a picture with transparency: on white, as a shop's pictures are, unless all of it is about as light."""
    ground = Image.new("RGBA", image.size, (*_ground(image), 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _ground(image: Image.Image) -> tuple[int, int, int]:
    grey, alpha = (np.asarray(each).astype(np.float32) for each in (image.convert("L"), image.getchannel("A")))
    visible = alpha.sum()
    if visible == 0:
        return WHITE
    contrast = float(((255 - grey) * alpha).sum() / visible)
    return GREY if contrast < LEAST_CONTRAST else WHITE

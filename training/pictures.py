"""Thumbnails within bounds, and augmented views of them; the plain view is made by the service's `prepare_picture`.

A thumbnail is RGBA with its longer side at most 288 pixels; a view of it is RGB and square, for the image processor.
"""

import random
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

THUMBNAIL_SIDE = 288
MAX_PIXELS = 25_000_000  # openclipart holds pictures of up to 600 megapixels
WHITE = (255, 255, 255)


class PictureTooLargeError(ValueError):
    """The picture's header announces more than `MAX_PIXELS`."""


def _on_background(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    box = image.getchannel("A").getbbox()
    if box:
        image = image.crop(box)
    canvas = Image.new("RGB", image.size, colour)
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def _pad_to_square(image: Image.Image, colour: tuple[int, int, int], margin: float = 0.0) -> Image.Image:
    side = round(max(image.size) * (1 + 2 * margin))
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def make_thumbnail(source: Path | bytes) -> Image.Image:
    """Decode a picture file, refusing too large ones by their header."""
    with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
        if image.width * image.height > MAX_PIXELS:
            raise PictureTooLargeError(f"{image.width} x {image.height} pixels")
        image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        thumbnail = ImageOps.exif_transpose(image).convert("RGBA")
    thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return thumbnail


def augment(thumbnail: Image.Image, seed: str) -> Image.Image:
    """A random RGB square view: background, margin, mirror, rotation, crop, blur and colour vary with the seed."""
    rng = random.Random(seed)
    colour = WHITE if _happens(rng, 0.5) else _random_background(rng)
    image = _on_background(thumbnail, colour)
    if _happens(rng, 0.5):
        image = ImageOps.mirror(image)
    if _happens(rng, 0.5):
        angle = rng.uniform(-12, 12)
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=_corner(image, colour))
    image = _pad_to_square(image, _corner(image, colour), margin=rng.uniform(0, 0.15))
    if _happens(rng, 0.6):
        image = _random_crop(image, rng)
    if _happens(rng, 0.2):
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if _happens(rng, 0.4):
            image = enhancer(image).enhance(rng.uniform(0.7, 1.3))
    return image


def _happens(rng: random.Random, probability: float) -> bool:
    return rng.random() < probability


def _corner(image: Image.Image, fallback: tuple[int, int, int]) -> tuple[int, int, int]:
    """The picture's own ground, where all its corners are the same; else the fallback."""
    right, bottom = image.width - 1, image.height - 1
    corners = {image.getpixel(point) for point in ((0, 0), (right, 0), (0, bottom), (right, bottom))}
    colour = corners.pop()
    return (colour[0], colour[1], colour[2]) if not corners and isinstance(colour, tuple) else fallback


def _random_background(rng: random.Random) -> tuple[int, int, int]:
    level = rng.randint(120, 250)
    red, green, blue = (min(255, max(0, level + rng.randint(-25, 25))) for _ in range(3))
    return red, green, blue


def _random_crop(image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = (round(image.width * rng.uniform(0.78, 1.0)) for _ in range(2))
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height)).resize(image.size, Image.Resampling.BICUBIC)

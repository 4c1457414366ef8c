"""Whether two pictures are one: saved anew, scaled, cropped a little, or with a watermark.

A picture is kept as a sketch of 32 × 32 pixels. By a hash of that others are found, by the sketches themselves they are
compared, laid upon each other as well as they fit: a crop moves every part of a picture, and a hash of it tells no crop
from another picture. Figures: `python -m benchmarks.duplicates`.
"""

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tuwen.pictures.likeness import LEAST_STEP

Pixels = NDArray[np.float32]

SIDE = 32
SKETCH_METHOD = 2
FIELDS = 8
LEAST_DEVIATION = 0.02  # so much of a sketch is no plain area; of less nothing is said
GREY = np.array([0.299, 0.587, 0.114], np.float32)
# A hash of the lowest frequencies (pHash: Zauner, "Implementation and benchmarking of perceptual image hash functions",
# 2010), and so many bits of it in each band: of two pictures that are one, one band is mostly the same.
FREQUENCIES, BANDS, BAND_BITS = 8, 4, 15
# How a picture may have been cropped: from where to where along each side, in parts of it. What lies outside is taken
# to be as its border.
CROPS = (
    (0, 1),
    (0.05, 1),
    (0, 0.95),
    (0.025, 0.975),
    (0.05, 0.95),
    (-0.05, 1),
    (0, 1.05),
    (-0.03, 1.03),
    (-0.05, 1.05),
)
# Of laying one upon another (Lucas and Kanade, 1981): steps, the furthest that a border moves, and at which difference
# in grey a pixel counts half, so that a watermark draws nothing to itself.
STEPS, FURTHEST, HALF_AT = 4, 0.22, 10.0
# A difference counts up to so much, since a watermark is a large one in few places; and so much does the picture.
MOST_APART, MOST_DEVIATION, LEAST_TEXTURE = 25.0, 60.0, 60.0
MOST_COLOUR_APART = 0.4
ALIKE = 0.975
"""From this similarity on two pictures are one. Chosen on one half of the demo catalogue, measured on the other."""


def sketch_of(thumbnail: bytes) -> bytes | None:
    """A picture of SIDE × SIDE, as WebP, of a thumbnail that we made; None where there is next to nothing in it. Takes
    two milliseconds."""
    with Image.open(io.BytesIO(thumbnail), formats=["WEBP"]) as image:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.float32)
    deviates = np.abs(pixels - np.median(pixels, axis=(0, 1))).max(axis=-1) > LEAST_STEP
    if deviates.mean() < LEAST_DEVIATION:
        return None
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", lossless=True, method=SKETCH_METHOD)  # 800 bytes; a lossy one has half of the colours
    return buffer.getvalue()


def bands_of(sketch: bytes) -> tuple[int, ...]:
    """By which it is found: BANDS numbers of BAND_BITS bits."""
    return _bands(_hashes(_grey(_pixels([sketch]))))[0]


def bands_to_look_for(sketch: bytes) -> NDArray[np.int64]:
    """Those of the picture and of what it may have been cropped to, or of: [n, BANDS]."""
    grey = _grey(_pixels([sketch]))[0]
    cropped = np.stack([down @ grey @ across.T for down in _crops() for across in _crops()])
    return np.unique(np.array(_bands(_hashes(cropped)), np.int64), axis=0)


def fields_of(sketch: bytes) -> bytes:
    """The mean colours of FIELDS × FIELDS parts of it, by which candidates are put in order without a look at them."""
    parts = _pixels([sketch])[0].reshape(FIELDS, SIDE // FIELDS, FIELDS, SIDE // FIELDS, 3).mean(axis=(1, 3))
    return bytes(parts.round().astype(np.uint8).tobytes())


def fields_apart(fields: bytes, others: Sequence[bytes]) -> Pixels:
    """In grey levels, on average."""
    theirs = np.frombuffer(b"".join(others), np.uint8).reshape(len(others), -1).astype(np.float32)
    apart: Pixels = np.abs(theirs - np.frombuffer(fields, np.uint8)).mean(axis=1)
    return apart


def similarities(sketch: bytes, others: Sequence[bytes]) -> list[float]:
    """Of each, from 0 to 1. About half a millisecond each."""
    if not others:
        return []
    own, theirs = _blurred(_pixels([sketch])), _blurred(_pixels(others))
    places = _laid_upon(_grey(own)[0], _grey(theirs))
    return [round(float(each), 4) for each in _alike(own[0], theirs, places)]


def _pixels(sketches: Sequence[bytes]) -> Pixels:
    pictures = []
    for sketch in sketches:
        with Image.open(io.BytesIO(sketch), formats=["WEBP"]) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    return np.stack(pictures).astype(np.float32)


def _grey(pixels: Pixels) -> Pixels:
    grey: Pixels = pixels @ GREY
    return grey


def _blurred(pixels: Pixels) -> Pixels:
    """By a quarter of each neighbour: where a border falls between two pixels, each scaling puts it elsewhere."""
    for axis in (1, 2):
        before = np.concatenate([pixels.take([0], axis), pixels.take(range(SIDE - 1), axis)], axis)
        behind = np.concatenate([pixels.take(range(1, SIDE), axis), pixels.take([-1], axis)], axis)
        pixels = (before + 2 * pixels + behind) / 4
    return pixels


@cache
def _cosines() -> Pixels:
    frequency, position = np.arange(FREQUENCIES)[:, None], np.arange(SIDE)[None]
    cosines: Pixels = np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIDE)).astype(np.float32)
    return cosines


@cache
def _crops() -> tuple[Pixels, ...]:
    pixels = np.arange(SIDE)
    positions = [SIDE * (start + (pixels + 0.5) / SIDE * (end - start)) - 0.5 for start, end in CROPS]
    return tuple(
        np.maximum(0, 1 - np.abs(each.clip(0, SIDE - 1)[:, None] - pixels[None])).astype(np.float32)
        for each in positions
    )


def _hashes(grey: Pixels) -> NDArray[np.bool_]:
    """[n, SIDE, SIDE] → [n, 63]: which of the lowest frequencies is above the median of all, without the mean grey."""
    waves = (_cosines() @ grey @ _cosines().T).reshape(len(grey), -1)[:, 1:]
    above: NDArray[np.bool_] = waves > np.median(waves, axis=-1, keepdims=True)
    return above


def _bands(hashes: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    bits = hashes[:, : BANDS * BAND_BITS].reshape(len(hashes), BANDS, BAND_BITS)
    return [tuple(map(int, each)) for each in bits @ (1 << np.arange(BAND_BITS))]


_FROM_MIDDLE: Pixels = ((np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1).astype(np.float32)


def _shifted(places: Pixels) -> tuple[Pixels, NDArray[np.bool_]]:
    """Along one side, of each place [n, 2] (how much wider, and how far to the right): which pixels make each pixel
    [n, SIDE, SIDE], and which lie inside."""
    position = _FROM_MIDDLE[None] * (1 + places[:, :1]) + places[:, 1:]
    pixel = ((position + 1) / 2 * SIDE - 0.5).clip(0, SIDE - 1)
    shares: Pixels = np.maximum(0, 1 - np.abs(pixel[:, :, None] - np.arange(SIDE, dtype=np.float32)))
    return shares, (position > -1) & (position < 1)


def _laid_upon(own: Pixels, theirs: Pixels) -> Pixels:
    """Where each of theirs fits own best: [n, 4], down and across."""
    places = np.zeros((len(theirs), 4), np.float32)
    for _ in range(STEPS):
        (down, is_in_down), (across, is_in_across) = _shifted(places[:, :2]), _shifted(places[:, 2:])
        there = down @ theirs @ across.transpose(0, 2, 1)
        apart = own[None] - there
        weights = (is_in_down[:, :, None] & is_in_across[:, None, :]) / (1 + np.abs(apart) / HALF_AT)
        slope_down, slope_across = (np.gradient(there, axis=axis) * (SIDE / 2) for axis in (1, 2))
        slopes = [slope_down * _FROM_MIDDLE[None, :, None], slope_down]
        slopes += [slope_across * _FROM_MIDDLE[None, None, :], slope_across]
        all_slopes = np.stack(slopes, axis=1).reshape(len(theirs), 4, -1)
        weighted = all_slopes * weights.reshape(len(theirs), 1, -1)
        curve = weighted @ all_slopes.transpose(0, 2, 1)
        damping = np.trace(curve, axis1=1, axis2=2)[:, None, None] * 0.002 + 1000
        curve = curve + np.eye(4, dtype=np.float32) * damping
        step = np.linalg.solve(curve, weighted @ apart.reshape(len(theirs), -1, 1))[..., 0]
        places = (places + step).clip(-FURTHEST, FURTHEST).astype(np.float32)
    return places


def _alike(own: Pixels, theirs: Pixels, places: Pixels) -> Pixels:
    """How their slopes agree where they lie upon each other (a correlation); 0 where their colours differ too much,
    which slopes hardly show."""
    (down, is_in_down), (across, is_in_across) = _shifted(places[:, :2]), _shifted(places[:, 2:])
    there = np.einsum("nyi,nijc,nxj->nyxc", down, theirs, across, optimize=True)
    is_in = is_in_down[:, :, None] & is_in_across[:, None, :]
    product, lengths = np.zeros(len(there)), np.zeros((2, len(there)))
    for axis in (0, 1):
        mine, its = np.diff(own, axis=axis)[None, : SIDE - 1, : SIDE - 1], np.diff(there, axis=axis + 1)
        its, counts = its[:, : SIDE - 1, : SIDE - 1], is_in[:, :-1, :-1, None]
        product += (mine * its * counts).sum(axis=(1, 2, 3))
        lengths += [(mine**2 * counts).sum(axis=(1, 2, 3)), (its**2 * counts).sum(axis=(1, 2, 3))]
    agreeing = product / np.maximum(np.sqrt(lengths[0] * lengths[1]), 1)
    return np.where(_colour_apart(own, there, is_in) > MOST_COLOUR_APART, 0, agreeing.clip(0, 1)).astype(np.float32)


def _colour_apart(own: Pixels, there: Pixels, is_in: NDArray[np.bool_]) -> Pixels:
    """By how much of what is in both pictures they differ."""
    plain = np.median(own, axis=(0, 1))
    apart = np.minimum(np.abs(own[None] - there).mean(axis=-1), MOST_APART) * is_in
    texture = (np.abs(own - plain).mean(axis=-1)[None] + np.abs(there - plain).mean(axis=-1)) / 2 * is_in
    in_them = np.maximum(np.minimum(texture, MOST_DEVIATION).sum(axis=(1, 2)), LEAST_TEXTURE)
    share: Pixels = apart.sum(axis=(1, 2)) / in_them
    return share

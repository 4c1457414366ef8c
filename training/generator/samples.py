"""What is trained on: every picture with its looks and captions, and how often each is drawn.

Pictures come from the demo catalogue's products, seen from the sides that are not evaluation data, and from emoji.
Most draws show a product as the catalogue does, so that a prompt without a word on it means that side; the captions of
the other sides name them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.render import TRAIN_VIEWS
from training import collect, fetch, sources
from training.alignment import Caption
from training.corpus import CATALOGUE_PICTURES, THINGS, TITLES
from training.features import PictureSet, make_thumbnails
from training.generator.captions import COLOURS, Colour, name_side, own_captions, recoloured_captions
from training.generator.pictures import Look
from training.sources import Picture

PACKAGES = (fetch.EMOJI_NAMES, fetch.NOTO, fetch.FLUENT_FLAT, fetch.FLUENT_3D, fetch.TWITTER)
OWN_SHARE, RECOLOURED_SHARE, OTHER_SIDES_SHARE, EMOJI_SHARE = 0.66, 0.22, 0.07, 0.05
OWN_LOOKS, RECOLOURED_LOOKS = 2, 4
MAIN_VIEW = "product-catalogue"
SIDES = {
    "az0_el12": ("正面", "front view"),
    "az50_el35": ("俯视", "seen from above"),
    "az-70_el15": ("侧面", "side view"),
}
NOT_RECOLOURED = {"人物模特", "动物", "食品饮料", "道路标识"}
SMALLEST_SCALE = 0.9
RGB_JITTER = 14  # of 255


@dataclass(frozen=True)
class Sample:
    """A look of the framed picture in a row, its captions, and its weight among all samples."""

    row: int
    look: Look
    captions: tuple[Caption, ...]
    weight: float


def picture_sets(packages: Mapping[str, Path], renders: Path, data: Path) -> list[PictureSet]:
    """Thumbnails of the catalogue's pictures, the products' other sides and emoji that show things, made once.

    `renders` holds the products seen from `TRAIN_VIEWS`, as `demo.render_products` lays them out.
    """
    products = collect.read_products(TITLES)
    files = {MAIN_VIEW: {p.sku: CATALOGUE_PICTURES / f"{p.sku}.webp" for p in products}}
    for view in TRAIN_VIEWS:
        name = view.file_name.removesuffix(".png")
        files[f"product-{name}"] = {p.sku: renders / p.sku / view.file_name for p in products}
    made = []
    for source, by_sku in files.items():
        pictures = [Picture(source, sku, file.read_bytes, (), ()) for sku, file in by_sku.items()]
        made.append(make_thumbnails(source, pictures, data))
    emoji = sources.read_emoji_names(packages[fetch.EMOJI_NAMES.name])
    things = {key: name for key, name in emoji.items() if name.group in THINGS}
    return made + [make_thumbnails(source, found, data) for source, found in _emoji_sets(packages, things)]


def _emoji_sets(
    packages: Mapping[str, Path], emoji: dict[str, sources.EmojiName]
) -> Iterator[tuple[str, Iterator[Picture]]]:
    twitter, fluent_3d = packages[fetch.TWITTER.name], packages[fetch.FLUENT_3D.name]
    yield "noto", sources.iconify_pictures("noto", packages[fetch.NOTO.name], emoji)
    yield "fluent-flat", sources.iconify_pictures("fluent-flat", packages[fetch.FLUENT_FLAT.name], emoji)
    yield "twitter", sources.emoji_file_pictures("twitter", twitter / "package/img/twitter/64", emoji)
    yield "fluent-3d", sources.emoji_file_pictures("fluent-3d", fluent_3d / "package/assets", emoji)


def make_samples(sets: Sequence[PictureSet]) -> list[Sample]:
    """Looks and captions of all pictures; the rows are those of `frame_pictures`. The same at every call."""
    products = {product.sku: product for product in collect.read_products(TITLES)}
    own, recoloured, other_sides, emoji = [], [], [], []
    row = -1
    for pictures in sets:
        for picture in pictures.pictures:
            row += 1
            rng = np.random.default_rng(_seed(f"{pictures.source}:{picture.key}"))
            if not pictures.source.startswith("product-"):
                emoji.append(Sample(row, _look(rng, mirrored=_by_chance(rng)), collect.picture_captions(picture), 1.0))
                continue
            product = products[picture.key]
            captions = own_captions(product)
            if pictures.source != MAIN_VIEW:
                side = SIDES[pictures.source.removeprefix("product-")]
                look = _look(rng, mirrored=_by_chance(rng))
                other_sides.append(Sample(row, look, name_side(captions, side), 1.0))
                continue
            own += [Sample(row, _look(rng), captions, 1.0) for _ in range(OWN_LOOKS)]
            if product.category_zh not in NOT_RECOLOURED:
                colours = [COLOURS[index] for index in rng.choice(len(COLOURS), RECOLOURED_LOOKS, replace=False)]
                recoloured += [
                    Sample(row, _look(rng, colour), named, 1.0)
                    for colour in colours
                    if (named := recoloured_captions(product, colour))
                ]
    groups = (
        (own, OWN_SHARE),
        (recoloured, RECOLOURED_SHARE),
        (other_sides, OTHER_SIDES_SHARE),
        (emoji, EMOJI_SHARE),
    )
    return [sample for group, share in groups for sample in _weighted(group, share)]


def _weighted(group: Sequence[Sample], share: float) -> Iterator[Sample]:
    total = sum(sample.weight for sample in group)
    for sample in group:
        yield Sample(sample.row, sample.look, sample.captions, sample.weight / total * share)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _by_chance(rng: np.random.Generator) -> bool:
    return bool(rng.integers(2))


def _look(rng: np.random.Generator, colour: Colour | None = None, *, mirrored: bool = False) -> Look:
    rgb = None
    if colour is not None:
        jittered = np.clip(np.array(colour.rgb) + rng.integers(-RGB_JITTER, RGB_JITTER + 1, 3), 0, 255)
        rgb = (int(jittered[0]), int(jittered[1]), int(jittered[2]))
    right, down = rng.random(2)
    return Look(rgb, mirrored, float(rng.uniform(SMALLEST_SCALE, 1)), (float(right), float(down)))


def probabilities(weights: Sequence[float]) -> NDArray[np.float64]:
    """Weights scaled to a sum of one."""
    scaled: NDArray[np.float64] = np.array(weights, np.float64) / sum(weights)
    return scaled

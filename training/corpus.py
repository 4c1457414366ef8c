"""What is trained on: features and captions of all sources, and what a held-out run keeps apart."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.furniture_package import open_libraries
from demo.render import TRAIN_VIEWS
from training import collect, fetch, sources
from training.alignment import CaptionedPicture
from training.features import PictureSet, make_thumbnails, view_features
from training.names import read_lexicon
from training.sources import EmojiName, Picture
from training.vision import PictureEncoder

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parent.parent
TITLES = REPOSITORY / "demo" / "titles.csv"
CATALOGUE = REPOSITORY / "demo" / "catalogue.jsonl"
CATALOGUE_PICTURES = REPOSITORY / "demo" / "images"
GENERAL_VIEWS, CATALOGUE_VIEWS = (0,), (0, 1)  # 0 is the plain view, others are augmented
HELD_OUT_SOURCE = "fluent-3d"
HELD_OUT_EMOJI, HELD_OUT_FURNITURE = 0.35, 0.2
THINGS = {3, 4, 5, 6, 7}  # emojibase's groups of animals, food, places, activities, objects


@dataclass(frozen=True)
class HeldOutPicture:
    """The features, float16 [1280], of a picture that training never sees, and its texts by kind."""

    features: NDArray[np.float16]
    texts: Mapping[str, str]


@dataclass
class Corpus:
    """Pictures to train on; pictures held out; pairs of texts that mean the same."""

    pictures: list[CaptionedPicture] = field(default_factory=list)
    held_out: dict[str, list[HeldOutPicture]] = field(
        default_factory=lambda: {"photographs": [], "general": [], "furniture": []}
    )
    parallel: list[tuple[str, str]] = field(default_factory=list)


def build_corpus(
    packages: Mapping[str, Path], renders: Path, encoder: PictureEncoder, data: Path, *, hold_out: bool
) -> Corpus:
    """Thumbnails, features and captions of every source; what is cached below `data` is not made again.

    `renders` holds the products seen from `TRAIN_VIEWS`, as `demo.render_products` lays them out.
    """
    corpus = Corpus()
    emoji = sources.read_emoji_names(packages[fetch.EMOJI_NAMES.name])
    held_emoji = _held_out_emoji(emoji) if hold_out else set()
    for source, pictures in _emoji_sets(packages, emoji):
        pictures_set = make_thumbnails(source, pictures, data)
        _add_emoji(corpus, pictures_set, _features(pictures_set, GENERAL_VIEWS, encoder, data), held_emoji, hold_out)
    corpus.parallel += [(n.names_zh[0], n.names_en[0]) for key, n in emoji.items() if key not in held_emoji]
    clipart = sources.openclipart_pictures(
        packages[fetch.OPENCLIPART_PNG.name], packages[fetch.OPENCLIPART_SVG.name], read_lexicon()
    )
    clipart_set = make_thumbnails("openclipart", clipart, data)
    for picture, views in zip(clipart_set.pictures, _features(clipart_set, GENERAL_VIEWS, encoder, data), strict=True):
        captions = collect.picture_captions(picture)
        corpus.pictures.append(CaptionedPicture(f"openclipart:{picture.key}", views, captions))
    _add_products(corpus, packages[fetch.FURNITURE.name], renders, encoder, data, hold_out)
    if hold_out:
        _add_stamps(corpus, packages[fetch.STAMPS.name], encoder, data)
    return corpus


def _emoji_sets(packages: Mapping[str, Path], emoji: dict[str, EmojiName]) -> Iterable[tuple[str, Iterable[Picture]]]:
    twitter, fluent_3d = packages[fetch.TWITTER.name], packages[fetch.FLUENT_3D.name]
    yield "noto", sources.iconify_pictures("noto", packages[fetch.NOTO.name], emoji)
    yield "fluent-flat", sources.iconify_pictures("fluent-flat", packages[fetch.FLUENT_FLAT.name], emoji)
    yield "twitter", sources.emoji_file_pictures("twitter", twitter / "package/img/twitter/64", emoji)
    yield HELD_OUT_SOURCE, sources.emoji_file_pictures(HELD_OUT_SOURCE, fluent_3d / "package/assets", emoji)


def _features(pictures: PictureSet, views: Iterable[int], encoder: PictureEncoder, data: Path) -> NDArray[np.float16]:
    """[pictures, views, 1280]."""
    return np.stack([view_features(pictures, view, encoder, data) for view in views], axis=1)


def _held_out_emoji(emoji: dict[str, EmojiName]) -> set[str]:
    """Keys of things (no faces, people, symbols, flags) whose names appear in no training picture's label."""
    keys = sorted(emoji)
    numbers = collect.components([(emoji[key].names_en[0], emoji[key].names_zh[0]) for key in keys])
    things = [number for number, key in zip(numbers, keys, strict=True) if emoji[key].group in THINGS]
    held = collect.held_out_components(things, HELD_OUT_EMOJI, seed=0)
    return {key for number, key in zip(numbers, keys, strict=True) if number in held}


def _add_emoji(
    corpus: Corpus, pictures: PictureSet, features: NDArray[np.float16], held_out: set[str], hold_out: bool
) -> None:
    for picture, views in zip(pictures.pictures, features, strict=True):
        if picture.key not in held_out:
            if not hold_out or pictures.source != HELD_OUT_SOURCE:
                captions = collect.picture_captions(picture)
                corpus.pictures.append(CaptionedPicture(f"emoji:{picture.key}", views, captions))
        elif pictures.source == HELD_OUT_SOURCE:
            texts = {"Chinese name": picture.names_zh[0], "English name": picture.names_en[0]}
            corpus.held_out["general"].append(HeldOutPicture(views[0], texts))


def _add_stamps(corpus: Corpus, package: Path, encoder: PictureEncoder, data: Path) -> None:
    """A source that no run trains on; what its pictures are called may be named in training."""
    stamps = make_thumbnails("stamps", sources.stamp_pictures(package), data)
    for picture, views in zip(stamps.pictures, _features(stamps, GENERAL_VIEWS, encoder, data), strict=True):
        texts = {"Chinese name": picture.names_zh[0], "English name": picture.names_en[0]}
        corpus.held_out["photographs"].append(HeldOutPicture(views[0], texts))


def _add_products(
    corpus: Corpus, furniture: Path, renders: Path, encoder: PictureEncoder, data: Path, hold_out: bool
) -> None:
    products = collect.read_products(TITLES)
    views = _product_views(products, furniture, renders, encoder, data)
    numbers = collect.components([(product.name_en, product.name_zh) for product in products])
    held = collect.held_out_components(numbers, HELD_OUT_FURNITURE, seed=1) if hold_out else set()
    for product, number in zip(products, numbers, strict=True):
        if number in held:
            texts = {"Chinese title": product.title_zh, "English title": product.title_en}
            texts |= {"Chinese name": product.name_zh, "English name": product.name_en}
            corpus.held_out["furniture"].append(HeldOutPicture(views[product.sku][0], texts))
        else:
            captions = collect.product_captions(product)
            concept = f"product:{product.sku}"
            corpus.pictures.append(CaptionedPicture(concept, np.stack(views[product.sku]), captions, instance=True))
            corpus.parallel.append((product.title_zh, product.title_en))


def _product_views(
    products: list[collect.Product], furniture: Path, renders: Path, encoder: PictureEncoder, data: Path
) -> dict[str, list[NDArray[np.float16]]]:
    """By sku: the catalogue's picture first, an augmented view of it, the package's icon, renders from other sides."""
    views: dict[str, list[NDArray[np.float16]]] = {product.sku: [] for product in products}
    readers = {"catalogue": {p.sku: (CATALOGUE_PICTURES / f"{p.sku}.webp").read_bytes for p in products}}
    readers["icon"] = _icon_readers(furniture)
    for view in TRAIN_VIEWS:
        name = view.file_name.removesuffix(".png")
        readers[name] = {p.sku: (renders / p.sku / view.file_name).read_bytes for p in products}
    for name, by_sku in readers.items():
        pictures = [Picture(name, product.sku, by_sku[product.sku], (), ()) for product in products]
        pictures_set = make_thumbnails(f"product-{name}", pictures, data)
        stacked = _features(pictures_set, CATALOGUE_VIEWS if name == "catalogue" else GENERAL_VIEWS, encoder, data)
        for picture, rows in zip(pictures_set.pictures, stacked, strict=True):
            views[picture.key] += list(rows)
    return views


def _icon_readers(furniture: Path) -> dict[str, Callable[[], bytes]]:
    return {
        product.sku: partial(library.read, product.icon)
        for library in open_libraries(furniture)
        for product in library.products()
    }

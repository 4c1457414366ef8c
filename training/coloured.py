"""The demo's products painted in several colours, with captions that say so: what tells colours apart."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from clients.catalogue_import import read_catalogue
from training.alignment import CaptionedPicture
from training.collect import Product
from training.features import make_thumbnails, view_features
from training.generator.captions import COLOURS, Colour, own_captions, recoloured_captions
from training.generator.pictures import cut_out, recolour
from training.generator.samples import NOT_RECOLOURED, RGB_JITTER
from training.sources import Picture
from training.vision import PictureEncoder

COLOURS_OF_A_PRODUCT = 4


def coloured_products(
    products: Sequence[Product], catalogue: Path, encoder: PictureEncoder, data: Path
) -> list[CaptionedPicture]:
    """The products in several colours; what is cached below `data` is not made again."""
    items = {item.sku: item for item in read_catalogue(catalogue)}
    kept = [p for p in products if p.category_zh not in NOT_RECOLOURED]
    looks = {f"{p.sku}-{colour.names_en[0]}": (p, colour) for p in kept for colour in _colours(p)}
    pictures = [
        Picture("product-coloured", key, partial(_paint, items[p.sku].image, colour, key), (), ())
        for key, (p, colour) in looks.items()
    ]
    stored = make_thumbnails("product-coloured", pictures, data)
    features = view_features(stored, 0, encoder, data)
    painted = []
    for picture, row in zip(stored.pictures, features, strict=True):
        product, colour = looks[picture.key]
        captions = recoloured_captions(product, colour)
        if captions:
            painted.append(CaptionedPicture(f"product:{picture.key}", row[None], captions, looks=product.sku))
    return painted


def add_looks(
    pictures: list[CaptionedPicture], products: Sequence[Product], painted: Sequence[CaptionedPicture]
) -> None:
    """Put the painted ones of trained products among the pictures, in place, and give the product's own its colour."""
    rows = {picture.concept: row for row, picture in enumerate(pictures)}
    by_sku = {product.sku: product for product in products}
    used = [picture for picture in painted if f"product:{picture.looks}" in rows]
    for sku in dict.fromkeys(picture.looks for picture in used):
        row = rows[f"product:{sku}"]
        captions = {c.text: c for c in (*own_captions(by_sku[sku]), *pictures[row].captions)}
        pictures[row] = replace(pictures[row], captions=tuple(captions.values()))
    pictures += used


def _colours(product: Product) -> list[Colour]:
    return random.Random(product.sku).sample(COLOURS, COLOURS_OF_A_PRODUCT)


def _paint(file: Path, colour: Colour, seed: str) -> bytes:
    chance = random.Random(seed)
    with Image.open(file) as image:
        cut = np.asarray(cut_out(image.convert("RGBA")))
    red, green, blue = (min(255, max(0, part + chance.randint(-RGB_JITTER, RGB_JITTER))) for part in colour.rgb)
    written = BytesIO()
    Image.fromarray(recolour(cut, (red, green, blue))).save(written, "PNG", compress_level=1)
    return written.getvalue()

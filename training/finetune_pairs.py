"""Pairs of a title and a picture that CLIP is tuned on: of a catalogue file, or of a running service."""

import io
import logging
import random
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import httpx
from PIL import Image, ImageOps

from clients.catalogue_import import CatalogueError, answer_of, iterate_products, open_client, read_catalogue
from tuwen.texts import lexical_text, normalise_text

logger = logging.getLogger(__name__)

PARTS = 10  # one to report on, one to choose by, and the others to learn from
FETCHES_AT_ONCE = 4
# A cut of the picture and its mirror image, which show the same product.
SMALLEST_CUT, MIRRORED = 0.8, 0.5


@dataclass(frozen=True)
class Pair:
    title: str
    """As it is encoded."""
    picture: Path


class Split(NamedTuple):
    """By title, so that no title stands on two sides; the same in every run."""

    to_learn: list[Pair]
    to_choose: list[Pair]
    to_report: list[Pair]


def read_pairs(source: str, api_key: str, folder: Path) -> list[Pair]:
    """`source`: a file as `demo/catalogue.jsonl`, or the address of a service, whose pictures are kept in `folder`.

    Raises CatalogueError.
    """
    if source.startswith(("http://", "https://")):
        folder.mkdir(parents=True, exist_ok=True)
        with open_client(source, api_key) as client, ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            named = [pair for product in iterate_products(client) for pair in _pictures_of(product)]
            logger.info("%d pictures of %s", len(named), source)
            pairs = list(pool.map(lambda pair: Pair(pair[0], _fetched(client, pair[1], folder)), named))
    else:
        pairs = [Pair(normalise_text(item.title), item.image) for item in read_catalogue(Path(source))]
    if not pairs:
        raise CatalogueError(f"{source} has no products.")
    return pairs


def _pictures_of(product: dict[str, object]) -> Iterator[tuple[str, str]]:
    images = product["images"]
    assert isinstance(images, list), "as the API says"
    for image in images:
        yield normalise_text(str(product["title"])), str(image["image_url"])


def _fetched(client: httpx.Client, path: str, folder: Path) -> Path:
    """Pictures never change, so one that is there is the same."""
    file = folder / quote(path.removeprefix("/"), safe="")
    if not file.exists():
        response = client.get(path)
        if not response.is_success:
            answer_of(response)
        part = file.with_name(f"{file.name}.part")
        part.write_bytes(response.content)
        part.replace(file)
    return file


def split(pairs: Sequence[Pair]) -> Split:
    parts: list[list[Pair]] = [[] for _ in range(PARTS)]
    for pair in pairs:
        parts[zlib.crc32(lexical_text(pair.title).encode()) % PARTS].append(pair)
    to_report, to_choose, *others = parts
    return Split([pair for part in others for pair in part], to_choose, to_report)


def batch_of(step: int, pairs: Sequence[Pair], size: int, seed: int) -> list[Pair]:
    """Each pair once in an epoch, in an order that the epoch's number alone decides; the last few of one are left."""
    per_epoch = max(1, len(pairs) // size)
    epoch, place = divmod(step, per_epoch)
    order = random.Random(seed * 1_000_003 + epoch).sample(range(len(pairs)), len(pairs))
    return [pairs[number] for number in order[place * size : (place + 1) * size]]


def augmented(image: Image.Image, chance: random.Random) -> Image.Image:
    share = chance.uniform(SMALLEST_CUT, 1)
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = (round(chance.random() * (side - cut)) for side, cut in zip(image.size, (width, height), strict=True))
    cut = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(cut) if chance.random() < MIRRORED else cut


def opened(picture: Path) -> Image.Image:
    """Raises CatalogueError."""
    try:
        with Image.open(io.BytesIO(picture.read_bytes())) as image:
            image.load()
            return image
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise CatalogueError(f"{picture} can't be read as a picture: {error}") from error

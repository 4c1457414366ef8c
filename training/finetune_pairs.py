"""Pairs of a title and a picture that CLIP is tuned on: of a catalogue file, or of a running service."""

import hashlib
import json
import logging
import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import httpx
from PIL import Image, ImageOps

from clients.catalogue_import import CatalogueError, answer_of, iterate_products, open_client, read_catalogue
from training.loop import OtherRunError
from tuwen.errors import InvalidInput
from tuwen.pictures.decoding import decode_image
from tuwen.texts import lexical_text, normalise_text

logger = logging.getLogger(__name__)

PARTS = 10  # one to report on, one to choose by, and the others to learn from
FETCHES_AT_ONCE = DECODED_AT_ONCE = 4
MOST_NAMED = 10  # of the pictures that are left out, in the log; the list has all
# A cut of the picture and its mirror image, which show the same product.
SMALLEST_CUT, MIRRORED = 0.8, 0.5


@dataclass(frozen=True)
class Pair:
    title: str
    """As it is encoded."""
    picture: Path
    pixels: str
    """Their digest: what products have in common that show one picture."""


class Split(NamedTuple):
    """No title and no picture stands on two sides; the same in every run."""

    to_learn: list[Pair]
    to_choose: list[Pair]
    to_report: list[Pair]


def read_pairs(source: str, api_key: str, run: Path) -> list[Pair]:
    """`source`: a file as `demo/catalogue.jsonl`, or the address of a service, whose pictures are kept in `run`.

    What can't be read as a picture is left out. The list is kept in `run`, too: a run that goes on has the same pairs,
    whatever became of the catalogue. Raises CatalogueError, OtherRunError.
    """
    kept = run / "pairs.json"
    if kept.exists():
        return _kept_pairs(kept, source)
    is_service = source.startswith(("http://", "https://"))
    named = _of_service(source, api_key, run / "pictures") if is_service else _of_file(Path(source))
    pictures = list(dict.fromkeys(picture for _, picture in named))
    with ThreadPoolExecutor(DECODED_AT_ONCE) as pool:
        pixels = dict(zip(pictures, pool.map(_pixels_of, pictures), strict=True))
    pairs = [Pair(title, picture, found) for title, picture in named if (found := pixels[picture])]
    left_out = [str(picture) for picture in pictures if not pixels[picture]]
    if left_out:
        said = ", ".join(left_out[:MOST_NAMED])
        logger.warning("%d pictures can't be read, and are left out; the first: %s", len(left_out), said)
    if not pairs:
        raise CatalogueError(f"{source} has no product with a picture that can be read.")
    lines = [(pair.title, str(pair.picture), pair.pixels) for pair in pairs]
    run.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps({"source": source, "left_out": left_out, "pairs": lines}), encoding="utf-8")
    part.replace(kept)
    return pairs


def _kept_pairs(kept: Path, source: str) -> list[Pair]:
    listed = json.loads(kept.read_text("utf-8"))
    if listed["source"] != source:
        raise OtherRunError(f"{kept} was read from {listed['source']}; remove {kept.parent} to train anew")
    logger.info("%d pairs, as listed in %s; remove its folder to read them anew", len(listed["pairs"]), kept)
    return [Pair(title, Path(picture), pixels) for title, picture, pixels in listed["pairs"]]


def _of_file(file: Path) -> list[tuple[str, Path]]:
    return [(normalise_text(item.title), item.image.absolute()) for item in read_catalogue(file)]


def _of_service(address: str, api_key: str, folder: Path) -> list[tuple[str, Path]]:
    folder.mkdir(parents=True, exist_ok=True)
    with open_client(address, api_key) as client, ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        named = [pair for product in iterate_products(client) for pair in _pictures_of(product)]
        urls = list(dict.fromkeys(url for _, url in named))
        logger.info("%d pictures of %s", len(urls), address)
        files = dict(zip(urls, pool.map(lambda url: _fetched(client, url, folder), urls), strict=True))
    return [(title, files[url]) for title, url in named]


def _pictures_of(product: dict[str, object]) -> Iterator[tuple[str, str]]:
    images = product["images"]
    assert isinstance(images, list), "as the API says"
    for image in images:
        yield normalise_text(str(product["title"])), str(image["image_url"])


def _fetched(client: httpx.Client, url: str, folder: Path) -> Path:
    """Pictures never change, so one that is there is the same. One that was deleted meanwhile is no file."""
    there = httpx.URL(url)
    # The client sends its key wherever it is told to ask.
    if there.is_absolute_url and (there.scheme, there.netloc) != (client.base_url.scheme, client.base_url.netloc):
        raise CatalogueError(f"{client.base_url} has a picture at another address, {url}, which is not asked.")
    file = folder.absolute() / quote(url.removeprefix("/"), safe="")
    if not file.exists():
        response = client.get(url)
        if response.status_code == httpx.codes.NOT_FOUND:
            return file
        if not response.is_success:
            answer_of(response)
        part = file.with_name(f"{file.name}.part")
        part.write_bytes(response.content)
        part.replace(file)
    return file


def _pixels_of(picture: Path) -> str:
    """Empty where they can't be read."""
    try:
        image = opened(picture)
    except CatalogueError:
        return ""
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest()


def split(pairs: Sequence[Pair]) -> Split:
    parts: list[list[Pair]] = [[] for _ in range(PARTS)]
    for alike in groups(pairs):
        name = min(lexical_text(pair.title) for pair in alike)
        # A group as large as a part, such as by a picture that stands for none, would be all of what is reported.
        number = zlib.crc32(name.encode()) % PARTS if len(alike) * PARTS <= len(pairs) else -1
        parts[number] += alike
    to_report, to_choose, *others = parts
    return Split([pair for part in others for pair in part], to_choose, to_report)


def groups(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Those that have a title or a picture in common, be it over others in between."""
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def top(name: tuple[str, str]) -> tuple[str, str]:
        while above.setdefault(name, name) != name:
            above[name] = name = above[above[name]]
        return name

    for pair in pairs:
        above[top(("picture", pair.pixels))] = top(("title", lexical_text(pair.title)))
    found = defaultdict(list)
    for pair in pairs:
        found[top(("picture", pair.pixels))].append(pair)
    return list(found.values())


def digest_of(pairs: Sequence[Pair]) -> str:
    """Of what is learnt from, in its order."""
    return hashlib.sha256(repr([(pair.title, pair.pixels) for pair in pairs]).encode()).hexdigest()


def batch_of(step: int, pairs: Sequence[Pair], size: int, seed: int) -> list[Pair]:
    """Each pair once in an epoch, in an order that the epoch's number alone decides; the last few of one are left."""
    per_epoch = max(1, len(pairs) // size)
    epoch, place = divmod(step, per_epoch)
    order = _order(len(pairs), seed * 1_000_003 + epoch)
    return [pairs[number] for number in order[place * size : (place + 1) * size]]


@lru_cache(maxsize=1)  # a tenth of a second for 100,000 pairs, which each step of an epoch needs
def _order(count: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(count), count)


def augmented(image: Image.Image, chance: random.Random) -> Image.Image:
    share = chance.uniform(SMALLEST_CUT, 1)
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = (round(chance.random() * (side - cut)) for side, cut in zip(image.size, (width, height), strict=True))
    cut = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(cut) if chance.random() < MIRRORED else cut


def opened(picture: Path) -> Image.Image:
    """RGB, as the service decodes it. Raises CatalogueError."""
    try:
        return decode_image(picture.read_bytes(), trim=True)
    except (OSError, InvalidInput) as error:
        raise CatalogueError(f"{picture} can't be read as a picture: {error}") from error

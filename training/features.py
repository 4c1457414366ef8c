"""Cached stages on pictures: thumbnails on disk, then picture features of several views.

View 0 is the picture as the service prepares it; the others are augmented. Each array is made once.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.pictures import augment, make_thumbnail
from training.sources import Picture
from training.vision import PictureEncoder, extract_features
from tuwen.encoders.picture import prepare_picture

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureSet:
    """Pictures of one source whose thumbnails are on disk, in a fixed order."""

    source: str
    pictures: tuple[Picture, ...]
    folder: Path

    def thumbnail(self, index: int) -> Image.Image:
        """RGBA, at most 288 pixels a side."""
        with Image.open(self.folder / f"{self.pictures[index].key}.png") as image:
            return image.convert("RGBA")


def make_thumbnails(source: str, pictures: Iterable[Picture], cache_dir: Path) -> PictureSet:
    """Store a thumbnail of each picture that can be decoded; the others are logged and left out."""
    folder = cache_dir / "thumbnails" / source
    folder.mkdir(parents=True, exist_ok=True)
    unreadable_file = cache_dir / "thumbnails" / f"{source}.unreadable.json"
    unreadable = set(json.loads(unreadable_file.read_text())) if unreadable_file.exists() else set()
    kept = []
    for picture in pictures:
        path = folder / f"{picture.key}.png"
        if picture.key in unreadable:
            continue
        if not path.exists():
            try:
                make_thumbnail(picture.read()).save(path, compress_level=1)
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                logger.warning("%s %s left out: %s", source, picture.key, error)
                unreadable.add(picture.key)
                continue
        kept.append(picture)
    unreadable_file.write_text(json.dumps(sorted(unreadable)))
    return PictureSet(source, tuple(kept), folder)


def view_features(pictures: PictureSet, view: int, encoder: PictureEncoder, cache_dir: Path) -> NDArray[np.float16]:
    """Features, float16 [n, 1280], of one view of all pictures of a source."""
    path = cache_dir / "features" / f"{pictures.source}-{view}.npy"
    keys = [picture.key for picture in pictures.pictures]
    keys_path = path.with_suffix(".json")
    if path.exists() and json.loads(keys_path.read_text()) == keys:
        stored: NDArray[np.float16] = np.load(path)
        return stored
    started = time.monotonic()
    features = extract_features(encoder, _views(pictures, view))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, features)
    keys_path.write_text(json.dumps(keys))
    logger.info("%s: view %d of %d pictures in %.0f s", pictures.source, view, len(keys), time.monotonic() - started)
    return features


def _views(pictures: PictureSet, view: int) -> Iterator[Image.Image]:
    def make(index: int) -> Image.Image:
        thumbnail = pictures.thumbnail(index)
        return (
            augment(thumbnail, f"{pictures.pictures[index].key}:{view}")
            if view
            else prepare_picture(thumbnail, pad_to_square=True)
        )

    with ThreadPoolExecutor(1) as pool:  # decodes the next pictures while the model runs
        for start in range(0, len(pictures.pictures), 64):
            yield from pool.map(make, range(start, min(start + 64, len(pictures.pictures))))

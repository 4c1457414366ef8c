"""Makes an export in int8 of one in half precision, by NNCF. A process of its own, started by `cache.py`:

python -m tuwen.encoders.exported.quantize {clip|sentence} MODEL HALF_FOLDER FOLDER
"""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nncf
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tuwen.cores import available_cores
from tuwen.encoders.base import unit_rows
from tuwen.encoders.exported.cache import load_export, make_export
from tuwen.encoders.exported.encoders import (
    IMAGE_NETWORK,
    MANIFEST,
    REFERENCE,
    TEXT_NETWORK,
    ExportedClip,
    ExportedSentence,
    Manifest,
    read_manifest,
)
from tuwen.encoders.exported.network import Network, PictureNetwork, read_network, save_network
from tuwen.encoders.exported.texts import Texts
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.self_test import LONG_TEXT, SHORT_TEXT, clip_probes, least_cosine
from tuwen.settings import PROJECT_ROOT

CATALOGUE = PROJECT_ROOT / "demo" / "catalogue.jsonl"
# Of the demo products, evenly spread: those that the ranges are taken from, and between them those that judge.
PICTURES, TITLES = 48, 128
# The least of all that judge.
GOOD_ENOUGH = 0.99

Encode = Callable[[Path], NDArray[np.float32]]


def quantize_clip(half: Path, folder: Path) -> None:
    manifest = _copied(half, folder)
    recipe = manifest.pixels
    assert recipe is not None, "a clip's"
    shown, judged = ([recipe.pixels(picture) for picture in pictures] for pictures in _pictures())
    not_int8 = _quantize(
        folder / IMAGE_NETWORK,
        [recipe.channels(pixels)[None] for pixels in shown],
        lambda path: PictureNetwork(path, recipe, available_cores())([pixels[None] for pixels in judged]),
    )
    _note(folder, manifest, not_int8 | _quantize_texts(folder, manifest))
    np.savez(folder / REFERENCE, vectors=clip_probes(ExportedClip(folder, available_cores())))


def quantize_sentence(half: Path, folder: Path) -> None:
    manifest = _copied(half, folder)
    _note(folder, manifest, _quantize_texts(folder, manifest))
    encoder = ExportedSentence(folder, Prompts(), available_cores())
    np.savez(folder / REFERENCE, vectors=encoder.encode_documents([SHORT_TEXT, LONG_TEXT]))


def _copied(half: Path, folder: Path) -> Manifest:
    shutil.copytree(half, folder, dirs_exist_ok=True)
    return read_manifest(folder)


def _quantize_texts(folder: Path, manifest: Manifest) -> dict[str, float]:
    texts = Texts(folder, manifest.tokens)
    shown, judged = _titles()
    arrays: list[tuple[NDArray[Any], ...]] = []

    def note(*given: NDArray[Any]) -> NDArray[np.float32]:
        arrays.append(given)
        return np.zeros((len(given[0]), 1), np.float32)

    for title in shown:
        texts.encode([title], note)
    return _quantize(folder / TEXT_NETWORK, arrays, lambda path: texts.encode(judged, Network(path, available_cores())))


def _quantize(path: Path, shown: Sequence[Any], encode: Encode) -> dict[str, float]:
    """The network in int8 in its own place, or the cosine that it would have had. Raises whatever NNCF raises."""
    wanted = unit_rows(encode(path))
    quantized = nncf.quantize(
        read_network(path), nncf.Dataset(shown), subset_size=len(shown), model_type=nncf.ModelType.TRANSFORMER
    )
    int8 = path.parent / "int8" / path.name
    int8.parent.mkdir()
    save_network(quantized, int8)
    cosine = least_cosine(unit_rows(encode(int8)), wanted)
    print(f"{path.name} in int8: least cosine {cosine:.4f}", file=sys.stderr)
    if is_good := cosine >= GOOD_ENOUGH:
        for file in int8.parent.iterdir():
            file.replace(path.parent / file.name)
    shutil.rmtree(int8.parent)
    return {} if is_good else {path.name: round(cosine, 4)}


def _products() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CATALOGUE.read_text(encoding="utf-8").splitlines()]


def _titles() -> tuple[list[str], list[str]]:
    return _in_turns([product["title"] for product in _products()], TITLES)


def _pictures() -> tuple[list[Image.Image], list[Image.Image]]:
    shown, judged = _in_turns([product["image"] for product in _products()], PICTURES)
    return _opened(shown), _opened(judged)


def _opened(paths: Sequence[str]) -> list[Image.Image]:
    return [Image.open(CATALOGUE.parent / path).convert("RGB") for path in paths]


def _in_turns(all_of_them: Sequence[str], count: int) -> tuple[list[str], list[str]]:
    step = len(all_of_them) / (2 * count)
    chosen = [all_of_them[int(number * step)] for number in range(2 * count)]
    return chosen[::2], chosen[1::2]


def _note(folder: Path, manifest: Manifest, not_int8: dict[str, float]) -> None:
    whole = manifest.model_copy(update={"not_int8": not_int8})
    (folder / MANIFEST).write_text(whole.model_dump_json(indent=1), encoding="utf-8")


def main(kind: str, model: Path, half: Path, target: Path) -> None:
    # Made first where it is not there, or can't be read.
    if kind == "clip":
        load_export("clip", model, half, partial(ExportedClip, threads=1))
        make_export(target, partial(quantize_clip, half))
    else:
        load_export("sentence", model, half, partial(ExportedSentence, prompts=Prompts(), threads=1))
        make_export(target, partial(quantize_sentence, half))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))

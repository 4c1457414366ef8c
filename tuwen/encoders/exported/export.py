"""Converts an encoder into a folder that needs no torch any more. A process of its own, started by `cache.py`:

python -m tuwen.encoders.exported.export {clip|sentence} MODEL FOLDER
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from tuwen.cores import available_cores
from tuwen.encoders.base import Embeddings, unit_rows
from tuwen.encoders.exported.cache import make_export
from tuwen.encoders.exported.encoders import (
    IMAGE_NETWORK,
    MANIFEST,
    REFERENCE,
    TEXT_NETWORK,
    Manifest,
)
from tuwen.encoders.exported.network import Network, PictureNetwork, with_precise_beginning, write_network
from tuwen.encoders.exported.pixels import PixelRecipe
from tuwen.encoders.exported.texts import ARRAYS, TOKENIZER_FILE, Texts, TokenRecipe
from tuwen.encoders.fg_clip import open_clip
from tuwen.encoders.picture import prepare_picture
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.self_test import LONG_TEXT, PICTURE, SHORT_TEXT, clip_probes, least_cosine
from tuwen.encoders.transformers_clip import TransformersClip

# By the one picture and the texts at hand; AS_GOOD must hold for all others.
WELL_ABOVE = 0.9995
SHARES_IN_FLOAT32 = (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
EXAMPLES = [SHORT_TEXT, LONG_TEXT]  # of two lengths, so that the tracer sees padding


class ImageTower(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.get_image_features(pixel_values=pixel_values).pooler_output
        return features


class TextTower(torch.nn.Module):
    def __init__(self, model: Any, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        features = self.model.get_text_features(**dict(zip(self.inputs, tensors, strict=True)))
        pooled: torch.Tensor = features.pooler_output
        return pooled


class SentenceTower(torch.nn.Module):
    """All modules of a sentence-transformers model, one after the other."""

    def __init__(self, model: Any, inputs: Sequence[str]) -> None:
        super().__init__()
        self.steps = torch.nn.ModuleList(model)
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        features: dict[str, Any] = dict(zip(self.inputs, tensors, strict=True))
        for step in self.steps:
            features = step(features)
        embedding: torch.Tensor = features["sentence_embedding"]
        return embedding


class MeanOfTokens(torch.nn.Module):
    """StaticEmbedding's EmbeddingBag, over padded rows; what may follow it is a Normalize, as everywhere here."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(weight.shape[0], weight.shape[1], _weight=weight.float())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.unsqueeze(-1).float()
        total: torch.Tensor = (self.embedding(input_ids) * mask).sum(1)
        return total / mask.sum(1).clamp(min=1)


@torch.no_grad()
def export_clip(model: Path, folder: Path) -> None:
    clip = open_clip(model, "cpu")
    recipe = pixel_recipe(clip)
    tokens = clip.tokenize(EXAMPLES)
    names = _known(tokens)
    _save_tokenizer(clip.tokenizer, folder)
    pixels, texts = recipe.pixels(PICTURE), Texts(folder, TokenRecipe(inputs=names))
    write_network(
        ImageTower(clip.model), [torch.from_numpy(np.stack([recipe.channels(pixels)] * 2))], folder / IMAGE_NETWORK
    )
    encode = partial(_encode_pixels, recipe, pixels)
    _make_precise(folder / IMAGE_NETWORK, encode, clip.encode_images([PICTURE]))
    write_network(TextTower(clip.model, names), [tokens[name] for name in names], folder / TEXT_NETWORK)
    _make_precise(folder / TEXT_NETWORK, partial(_encode_examples, texts), clip.encode_texts(EXAMPLES))
    _write(folder, Manifest(dim=clip.dim, tokens=TokenRecipe(inputs=names), pixels=recipe), clip_probes(clip))


@torch.no_grad()
def export_sentence(model: Path, folder: Path) -> None:
    from tuwen.encoders.sentence import SentenceEncoder  # noqa: PLC0415  # sentence-transformers takes seconds

    encoder = SentenceEncoder(model, "cpu", Prompts())
    steps: list[Any] = list(encoder.model)
    if any(not getattr(step, "include_prompt", True) for step in steps):
        raise ValueError("it leaves the prompt out of its mean")
    first = type(steps[0]).__name__
    tokens = encoder.model.preprocess(EXAMPLES)  # which also tells the tokenizer how long a text may be
    if first == "StaticEmbedding" and {type(step).__name__ for step in steps[1:]} <= {"Normalize"}:
        names: tuple[str, ...] = ("input_ids", "attention_mask")
        example = [torch.ones(2, 5, dtype=torch.long)] * 2
        write_network(MeanOfTokens(steps[0].embedding.weight.detach()), example, folder / TEXT_NETWORK)
        steps[0].tokenizer.save(str(folder / TOKENIZER_FILE))
    elif first == "Transformer":
        names = _known({name: value for name, value in tokens.items() if isinstance(value, torch.Tensor)})
        write_network(SentenceTower(steps, names), [tokens[name] for name in names], folder / TEXT_NETWORK)
        _save_tokenizer(encoder.model.tokenizer, folder)
    else:
        raise ValueError(f"it begins with a module of its own kind, {first}")
    recipe = TokenRecipe(inputs=names, special_tokens=first == "Transformer")
    texts = Texts(folder, recipe)
    _make_precise(folder / TEXT_NETWORK, partial(_encode_examples, texts), encoder.encode_documents(EXAMPLES))
    _write(folder, Manifest(dim=encoder.dim, tokens=recipe), encoder.encode_documents(EXAMPLES))


def _encode_pixels(recipe: PixelRecipe, pixels: NDArray[np.uint8], network: Path) -> NDArray[np.float32]:
    return PictureNetwork(network, recipe, available_cores())([pixels[None]])


def _encode_examples(texts: Texts, network: Path) -> NDArray[np.float32]:
    return texts.encode(EXAMPLES, Network(network, available_cores()))


def _make_precise(path: Path, encode: Callable[[Path], NDArray[np.float32]], wanted: Embeddings) -> None:
    """As much of the network in float32 as its vectors need on this processor. Raises ValueError if all of it fails."""
    written = path.read_text(encoding="utf-8")
    for share in SHARES_IN_FLOAT32:
        path.write_text(with_precise_beginning(written, share), encoding="utf-8")
        try:
            cosine = least_cosine(unit_rows(encode(path)), wanted)
        except RuntimeError as error:  # OpenVINO does not take every border between the two
            print(f"{path.name} with {share:.0%} in float32: {error}", file=sys.stderr)
            continue
        print(f"{path.name} with {share:.0%} in float32: cosine {cosine:.5f}", file=sys.stderr)
        if cosine >= WELL_ABOVE:
            return
    raise ValueError("no precision gives it the vectors of torch")


def pixel_recipe(clip: TransformersClip) -> PixelRecipe:
    """The picture processor's steps. Raises ValueError for one that takes others."""
    processor = clip.image_processor
    size, crop = processor.size, processor.crop_size if getattr(processor, "do_center_crop", False) else None
    try:
        mean, std = np.asarray(processor.image_mean, np.float64), np.asarray(processor.image_std, np.float64)
        recipe = PixelRecipe(
            pad_to_square=clip.pad_to_square,
            side=size.shortest_edge,
            size=None if size.shortest_edge else (size.height, size.width),
            resample=int(processor.resample),
            crop=(crop.height, crop.width) if crop else None,
            scale=(processor.rescale_factor / std).tolist(),
            shift=(-mean / std).tolist(),
        )
    except (AttributeError, TypeError) as error:
        raise ValueError(f"its picture processor, {type(processor).__name__}, takes other steps ({error})") from error
    for picture in (_colours(96, 64), _colours(301, 700), _colours(33, 32)):
        prepared = prepare_picture(picture, pad_to_square=clip.pad_to_square)
        theirs = processor(images=[prepared], return_tensors="np")
        ours = recipe.channels(recipe.pixels(picture))[None]
        if set(theirs) != {"pixel_values"} or not _same(theirs["pixel_values"], ours):
            raise ValueError(f"its picture processor, {type(processor).__name__}, takes other steps")
    return recipe


def _same(theirs: Any, ours: Any) -> bool:
    return theirs.shape == ours.shape and bool(np.allclose(theirs, ours, atol=1e-4))


def _colours(width: int, height: int) -> Image.Image:
    """Something else at each place."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows * 7 % 256, columns * 5 % 256, rows * columns % 256], -1).astype(np.uint8))


def _known(tokens: Any) -> tuple[str, ...]:
    if unknown := set(tokens) - set(ARRAYS):
        raise ValueError(f"it takes more than tokens: {', '.join(sorted(unknown))}")
    return tuple(tokens)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """With the truncation and the padding of its last call."""
    try:
        backend: Tokenizer = tokenizer.backend_tokenizer
    except AttributeError as error:
        raise ValueError(f"its tokenizer, {type(tokenizer).__name__}, is none of the tokenizers library") from error
    backend.save(str(folder / TOKENIZER_FILE))


def _write(folder: Path, manifest: Manifest, probes: Any) -> None:
    np.savez(folder / REFERENCE, vectors=probes)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")


EXPORTERS = {"clip": export_clip, "sentence": export_sentence}


if __name__ == "__main__":
    make_export(Path(sys.argv[3]), partial(EXPORTERS[sys.argv[1]], Path(sys.argv[2])))

"""Encoders of an export's folder: numpy, Pillow, tokenizers and OpenVINO. No torch, which takes seconds to load."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from pydantic import BaseModel

from tuwen.encoders.base import Embeddings, ImageTextEncoder, PreparedPicture, unit_rows
from tuwen.encoders.exported.network import Network, PictureNetwork
from tuwen.encoders.exported.pixels import PixelRecipe
from tuwen.encoders.exported.texts import Texts, TokenRecipe
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.self_test import AS_GOOD, least_cosine

MANIFEST = "export.json"
IMAGE_NETWORK = "image.xml"
TEXT_NETWORK = "text.xml"
REFERENCE = "reference.npz"
PIXELS = "pixels"


class Manifest(BaseModel, frozen=True):
    dim: int
    tokens: TokenRecipe
    pixels: PixelRecipe | None = None
    """None for a sentence model."""
    not_int8: dict[str, float] = {}
    """Of an export in int8: the networks that are not, and the cosine that they would have had."""


def read_manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


class ExportedClip(ImageTextEncoder):
    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self.manifest = manifest = read_manifest(folder)
        if manifest.pixels is None:
            raise ValueError(f"{folder} takes no pictures")
        self.dim = manifest.dim
        self._pixels = manifest.pixels
        self._texts = Texts(folder, manifest.tokens)
        self._image_network = PictureNetwork(folder / IMAGE_NETWORK, manifest.pixels, threads)
        self._text_network = Network(folder / TEXT_NETWORK, threads)
        self.indexes_apart = threads > 1

    def prepare(self, image: Image.Image) -> PreparedPicture:
        return {PIXELS: self._pixels.pixels(image)[None]}

    def encode_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        return unit_rows(self._image_network([picture[PIXELS] for picture in pictures]))

    def index_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        return unit_rows(self._image_network.of_index([picture[PIXELS] for picture in pictures]))

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return unit_rows(self._texts.encode(texts, self._text_network))

    def index_texts(self, texts: Sequence[str]) -> Embeddings:
        return unit_rows(self._texts.encode(texts, self._index_network if self.indexes_apart else self._text_network))

    @cached_property
    def _index_network(self) -> Network:
        """The weights once more, so only where something is indexed."""
        return Network(self._folder / TEXT_NETWORK, threads=1)

    def on_one_thread(self) -> Self:
        return type(self)(self._folder, threads=1)


class ExportedSentence:
    is_remote = False

    def __init__(self, folder: Path, prompts: Prompts, threads: int) -> None:
        self._folder = folder
        self.manifest = manifest = read_manifest(folder)
        self.dim = manifest.dim
        self._prompts = prompts
        self._texts = Texts(folder, manifest.tokens)
        self._network = Network(folder / TEXT_NETWORK, threads)
        self.indexes_apart = threads > 1

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        return self.encode(texts, self._prompts.query)

    def encode_documents(self, texts: Sequence[str]) -> Embeddings:
        network = self._index_network if self.indexes_apart else self._network
        return self._encode(texts, self._prompts.document, network)

    def encode(self, texts: Sequence[str], prompt: str) -> Embeddings:
        return self._encode(texts, prompt, self._network)

    def _encode(self, texts: Sequence[str], prompt: str, network: Network) -> Embeddings:
        return unit_rows(self._texts.encode([prompt + text for text in texts], network))

    @cached_property
    def _index_network(self) -> Network:
        """As a CLIP's."""
        return Network(self._folder / TEXT_NETWORK, threads=1)

    def on_one_thread(self) -> Self:
        return type(self)(self._folder, self._prompts, threads=1)


def require_as_good_as_converted(folder: Path, probes: Embeddings) -> None:
    """Raises ValueError where this processor's vectors are others than those of torch in float32; in int8: than those
    of the processor that converted it.
    """
    with np.load(folder / REFERENCE, allow_pickle=False) as file:
        cosine = least_cosine(file["vectors"], probes)
    if not cosine >= AS_GOOD:
        raise ValueError(f"its vectors are not those that it was converted for (cosine {cosine:.4f})")

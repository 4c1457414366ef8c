"""Encoders of an export's folder: numpy, Pillow, tokenizers and OpenVINO. No torch, which takes seconds to load."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel

from tuwen.encoders.base import Embeddings, unit_rows
from tuwen.encoders.exported.network import Network
from tuwen.encoders.exported.pixels import PixelRecipe
from tuwen.encoders.exported.texts import Texts, TokenRecipe
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.self_test import AS_GOOD, least_cosine

MANIFEST = "export.json"
IMAGE_NETWORK = "image.xml"
TEXT_NETWORK = "text.xml"
REFERENCE = "reference.npz"


class Manifest(BaseModel, frozen=True):
    dim: int
    tokens: TokenRecipe
    pixels: PixelRecipe | None = None
    """None for a sentence model."""


def read_manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


class ExportedClip:
    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest.pixels is None:
            raise ValueError(f"{folder} takes no pictures")
        self.dim = manifest.dim
        self._pixels = manifest.pixels
        self._texts = Texts(folder, manifest.tokens)
        self._image_network = Network(folder / IMAGE_NETWORK)
        self._text_network = Network(folder / TEXT_NETWORK)

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        return unit_rows(self._image_network(self._pixels.pixels(images)))

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return unit_rows(self._texts.encode(texts, self._text_network))


class ExportedSentence:
    def __init__(self, folder: Path, prompts: Prompts) -> None:
        manifest = read_manifest(folder)
        self.dim = manifest.dim
        self._prompts = prompts
        self._texts = Texts(folder, manifest.tokens)
        self._network = Network(folder / TEXT_NETWORK)

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        return self.encode(texts, self._prompts.query)

    def encode_documents(self, texts: Sequence[str]) -> Embeddings:
        return self.encode(texts, self._prompts.document)

    def encode(self, texts: Sequence[str], prompt: str) -> Embeddings:
        return unit_rows(self._texts.encode([prompt + text for text in texts], self._network))


def require_as_good_as_torch(folder: Path, probes: Embeddings) -> None:
    """Raises ValueError where this processor's vectors are others than those of torch in float32."""
    with np.load(folder / REFERENCE, allow_pickle=False) as file:
        cosine = least_cosine(file["vectors"], probes)
    if not cosine >= AS_GOOD:
        raise ValueError(f"its vectors are not those of torch (cosine {cosine:.4f})")

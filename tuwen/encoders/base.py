"""What every encoder promises, whatever model it is, wherever it runs. Loads no model's library: anyone may know it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Embeddings: TypeAlias = NDArray[np.float32]  # [n, dim], rows of length 1
Vector: TypeAlias = NDArray[np.float32]  # [dim], length 1


class TextEncoder(Protocol):
    """Titles into one space, to be compared with each other."""

    dim: int

    def encode_texts(self, texts: Sequence[str]) -> Embeddings: ...


class ImageTextEncoder(TextEncoder, Protocol):
    """Pictures and texts into one space."""

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings: ...


@dataclass(frozen=True)
class Encoders:
    """The two models in use. Not thread-safe: `service.py` gives each call to one thread."""

    clip: ImageTextEncoder
    text: TextEncoder
    name: str
    fingerprint: str
    """64 hex digits over the weights and configurations; vectors of different fingerprints never share a collection."""


def unit_rows(features: NDArray[np.floating]) -> Embeddings:
    """Each row divided by its length, so that a dot product is the cosine; a row of zeros stays."""
    rows = features.astype(np.float32, copy=False)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Embeddings = rows / np.maximum(lengths, 1e-12)  # as torch.nn.functional.normalize
    return unit

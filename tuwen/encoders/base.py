"""What every encoder promises, whatever model it is, wherever it runs. Loads no model's library: anyone may know it."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Embeddings: TypeAlias = NDArray[np.float32]  # [n, dim], rows of length 1
Vector: TypeAlias = NDArray[np.float32]  # [dim], length 1
PreparedPicture: TypeAlias = Mapping[str, NDArray[Any]]  # arrays [1, …] by the names of the network's inputs

Precision: TypeAlias = Literal["int8"]


# Chinese-CLIP has 512 positions but was trained on 52 (`context_length` in cn_clip/clip/utils.py, Apache-2.0).
CHINESE_CLIP_CONTEXT = 52


class TextEncoder(Protocol):
    """Titles, and what is asked of them, into one space. Many models want a prompt in front of the one or the other."""

    dim: int
    indexes_apart: bool
    """As an ImageTextEncoder's, of `encode_documents`."""
    is_remote: bool
    """As an ImageTextEncoder's."""

    def encode_queries(self, texts: Sequence[str]) -> Embeddings: ...

    def encode_documents(self, texts: Sequence[str]) -> Embeddings: ...

    def on_one_thread(self) -> Self:
        """The same one, computing on the thread of its caller alone if that thread asks for it. Blocks."""
        ...


class ImageTextEncoder(Protocol):
    """Pictures and texts into one space. A text is what it is, asked or kept."""

    dim: int
    indexes_apart: bool = False
    """Whether texts of the index have a network of their own: for one thread, the caller's, with its priority, and
    beside a call of `encode_texts`."""
    is_remote: bool = False
    """Whether another machine computes, which may be away while all else is well."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings: ...

    def index_texts(self, texts: Sequence[str]) -> Embeddings:
        """The same vectors, for the index, which searches shall not have to wait for."""
        return self.encode_texts(texts)

    def prepare(self, image: Image.Image) -> PreparedPicture:
        """A picture as the network takes it. On any thread, several at once, and beside all else."""
        ...

    def encode_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings: ...

    def index_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        """As `index_texts`."""
        return self.encode_prepared(pictures)

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        return self.encode_prepared([self.prepare(image) for image in images])

    def on_one_thread(self) -> Self:
        """As a TextEncoder's."""
        ...


@dataclass(frozen=True)
class ModelNames:
    """As the settings name them; a hub's model with the revision that was found, `owner/name@revision`."""

    clip: str
    text: str
    query_prompt: str | None = None
    document_prompt: str | None = None
    """As the settings give them; None: the model's own."""
    precision: Precision | None = None
    """None: float32, or a half precision whose vectors are as good."""

    @cached_property
    def short(self) -> str:
        """Of an endpoint its model's name alone: every caller reads this."""
        return " + ".join(Path(name.partition("#")[2] or name).name for name in (self.clip, self.text))


@dataclass(frozen=True)
class KnownIndex:
    """What the database says of an index that there is."""

    fingerprint: str
    models: ModelNames | None
    """None where version 0.2.0 made it."""


@dataclass(frozen=True)
class Encoders:
    """Two models of three networks, none of which is thread-safe: `service.py` holds its lock for each call."""

    clip: ImageTextEncoder
    text: TextEncoder
    models: ModelNames
    fingerprint: str
    """64 hex digits over the weights and configurations; vectors of different fingerprints never share a collection."""
    picture_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    clip_text_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    text_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    index_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Of texts, where the index has networks of its own for them."""

    @property
    def name(self) -> str:
        return self.models.short

    def on_one_thread(self) -> Self:
        """For a thread that stands behind all others: see `device.run_behind_all_others`. Blocks."""
        return replace(self, clip=self.clip.on_one_thread(), text=self.text.on_one_thread())


def unit_rows(features: NDArray[np.floating]) -> Embeddings:
    """Each row divided by its length, so that a dot product is the cosine; a row of zeros stays."""
    rows = features.astype(np.float32, copy=False)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Embeddings = rows / np.maximum(lengths, 1e-12)  # as torch.nn.functional.normalize
    return unit

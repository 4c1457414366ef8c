"""The first numbers of each vector, for models that were trained so that these alone mean the same (Matryoshka)."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from tuwen.encoders.base import Embeddings, TextEncoder, unit_rows

NAME = re.compile(r"(?P<model>.+)\?dimensions=(?P<dimensions>[1-9][0-9]{0,4})")
LEAST_DIMENSIONS = 2  # Milvus's least


class SizedName(NamedTuple):
    """What a setting names: a model, and how many numbers of its vectors are wanted."""

    model: str
    dimensions: int | None = None
    """None: all that it gives."""

    def __str__(self) -> str:
        return self.model if self.dimensions is None else f"{self.model}?dimensions={self.dimensions}"


def sized_name(name: str) -> SizedName:
    """`owner/name?dimensions=512`; a name that ends otherwise is the model's own."""
    match = NAME.fullmatch(name)
    return SizedName(match["model"], int(match["dimensions"])) if match else SizedName(name)


class Shortened:
    """A text encoder whose vectors are cut off, and brought to length 1 again. A remote one cuts them itself."""

    is_remote = False

    def __init__(self, encoder: TextEncoder, dimensions: int) -> None:
        """Raises ValueError for more than there are."""
        if not LEAST_DIMENSIONS <= dimensions <= encoder.dim:
            raise ValueError(
                f"its vectors have {encoder.dim} dimensions, and {dimensions} are asked for "
                f"({LEAST_DIMENSIONS} to {encoder.dim} can be had)"
            )
        self._encoder = encoder
        self.dim = dimensions
        self.indexes_apart = encoder.indexes_apart

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        return unit_rows(self._encoder.encode_queries(texts)[:, : self.dim])

    def encode_documents(self, texts: Sequence[str]) -> Embeddings:
        return unit_rows(self._encoder.encode_documents(texts)[:, : self.dim])

    def on_one_thread(self) -> Self:
        return type(self)(self._encoder.on_one_thread(), self.dim)

"""From texts to the token arrays that a network takes, in batches of similar lengths. The only user of tokenizers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from tokenizers import Encoding, Tokenizer

from tuwen.encoders.base import Embeddings

TOKENIZER_FILE = "tokenizer.json"
# Arrays of an encoding by the names that transformers gives them.
ARRAYS: dict[str, Callable[[Encoding], list[int]]] = {
    "input_ids": lambda encoding: encoding.ids,
    "attention_mask": lambda encoding: encoding.attention_mask,
    "token_type_ids": lambda encoding: encoding.type_ids,
}
# A text goes with those that are at most this much longer, or short themselves: padding costs as much as text.
LONGER_AT_MOST = 1.5
SHORT = 16


class TokenRecipe(BaseModel, frozen=True):
    inputs: tuple[str, ...]
    """The network's, in order; names of ARRAYS."""
    special_tokens: bool = True


class Texts:
    """`tokenizer.json` says how long a text may be, and how it is padded."""

    def __init__(self, folder: Path, recipe: TokenRecipe) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._recipe = recipe
        padding = self._tokenizer.padding or {}
        self._pad_left = padding.get("direction") == "left"
        self._padding = {"input_ids": padding.get("pad_id", 0), "token_type_ids": padding.get("pad_type_id", 0)}
        if padding.get("length") is None:
            self._tokenizer.no_padding()  # else to the longest of all that are given, not of its batch

    def encode(self, texts: Sequence[str], network: Callable[..., NDArray[np.float32]]) -> Embeddings:
        """In the order of the texts; `network` gets batches of similar lengths."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=self._recipe.special_tokens)
        rows: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(encodings)
        for batch in _of_similar_lengths([len(encoding.ids) for encoding in encodings]):
            vectors = network(*self._arrays([encodings[position] for position in batch]))
            for position, vector in zip(batch, vectors, strict=True):
                rows[position] = vector
        return np.stack(rows)

    def _arrays(self, encodings: Sequence[Encoding]) -> Iterator[NDArray[np.int64]]:
        longest = max(1, *(len(encoding.ids) for encoding in encodings))  # a text may have no tokens at all
        for name in self._recipe.inputs:
            array = np.full((len(encodings), longest), self._padding.get(name, 0), np.int64)
            for row, encoding in zip(array, encodings, strict=True):
                values = ARRAYS[name](encoding)
                start = longest - len(values) if self._pad_left else 0
                row[start : start + len(values)] = values
            yield array


def _of_similar_lengths(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions, from the shortest to the longest."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[position] > max(SHORT, LONGER_AT_MOST * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch

"""Texts in batches of no more tokens than a model should take at once, for code that pads what it is given."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tuwen.encoders.base import Embeddings

# Padding counted. 32 texts of BERT's 512 tokens, 300 titles of Chinese-CLIP's 52: a GPU is busy, and its memory is not
# at the mercy of one long text among many short ones.
MOST_TOKENS = 16_384
SPECIAL_TOKENS = 2


def in_token_batches(
    encode: Callable[[Sequence[str]], Embeddings],
    texts: Sequence[str],
    *,
    longest: int,
    most_tokens: int = MOST_TOKENS,
) -> Embeddings:
    """In the order of the texts. `encode` gets those of similar lengths together; `longest`: tokens of one text.

    A character counts as a token: so it is in Chinese, and other texts have fewer. Tokenizing everything twice would
    be exact, and cost more than it saves.
    """
    batches = list(_batches([min(len(text) + SPECIAL_TOKENS, longest) for text in texts], most_tokens))
    if len(batches) <= 1:
        return encode(texts)
    embeddings = np.concatenate([encode([texts[position] for position in batch]) for batch in batches])
    in_order: Embeddings = embeddings[np.argsort(np.concatenate(batches))]
    return in_order


def _batches(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Positions, the longest first: memory that is too small shows at the first batch."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and lengths[batch[0]] * (len(batch) + 1) > most_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch

"""Texts go in batches of so many tokens, and their vectors come back in the order of the texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tuwen.encoders.base import Embeddings
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.sentence import SentenceEncoder
from tuwen.encoders.token_batches import in_token_batches
from tuwen.encoders.transformers_clip import TransformersClip

TEXTS = ["红" * 40, "蓝色木椅", "a", "绿" * 30, "现代简约", "白" * 20]


@pytest.mark.parametrize("most_tokens", [1, 12, 50, 1000])
def test_no_batch_has_more_padded_tokens_unless_one_text_has(most_tokens: int) -> None:
    batches: list[Sequence[str]] = []

    def encode(texts: Sequence[str]) -> Embeddings:
        batches.append(texts)
        return np.array([[len(text)] for text in texts], np.float32)

    rows = in_token_batches(encode, TEXTS, longest=32, most_tokens=most_tokens)
    assert rows[:, 0].tolist() == [len(text) for text in TEXTS]
    padded = [len(batch) * min(32, max(len(text) for text in batch) + 2) for batch in batches]
    assert all(tokens <= most_tokens or len(batch) == 1 for tokens, batch in zip(padded, batches, strict=True))
    assert len(batches) == {1: 6, 12: 5, 50: 4, 1000: 1}[most_tokens]


def test_encoders_give_the_same_vectors_however_few_tokens_go_together(tiny_models: dict[str, str]) -> None:
    clip = TransformersClip(Path(tiny_models["CLIP_MODEL"]), "cpu")
    sentence = SentenceEncoder(Path(tiny_models["TEXT_MODEL"]), "cpu", Prompts())
    for encoder, encode in ((clip, clip.encode_texts), (sentence, sentence.encode_documents)):
        together = encode(TEXTS)
        encoder.most_tokens = 16
        assert np.allclose(encode(TEXTS), together, atol=1e-5)

"""Each encoder is tried before anything relies on it: a model that runs may still give vectors that mean nothing."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image

from tuwen.encoders.base import Embeddings, ImageTextEncoder, TextEncoder

SHORT_TEXT = "红色沙发"
LONG_TEXT = "现代简约客厅三人位布艺沙发 modern three-seat fabric sofa " * 8
# Half black, half white: a plain picture might hide what a model does to places.
PICTURE = Image.new("RGB", (96, 64), "white")
PICTURE.paste("black", (0, 0, 48, 64))
# Rounding moves it by 1e-6 in float32. A model that looks at padding was seen at 0.77.
SAME = 0.9999
SAME_IN_HALF = 0.999
# What half a precision may move a vector by, so that it may stand in one collection with those of float32.
AS_GOOD = 0.999

EncodeTexts: TypeAlias = Callable[[Sequence[str]], Embeddings]


def clip_probes(encoder: ImageTextEncoder) -> Embeddings:
    """What two forms of one model are compared by."""
    return np.concatenate([encoder.encode_images([PICTURE]), encoder.encode_texts([SHORT_TEXT, LONG_TEXT])])


def least_cosine(rows: Embeddings, others: Embeddings) -> float:
    """Row by row; NaN where one is not finite."""
    return float((rows * others).sum(axis=1).min())


def require_sound_clip(encoder: ImageTextEncoder, same: float = SAME) -> None:
    """Raises ValueError saying what is wrong, or whatever the model raises."""
    alone, together = encoder.encode_images([PICTURE]), encoder.encode_images([PICTURE, PICTURE])
    _require_unit_rows(alone, 1, encoder.dim, "picture")
    _require_unit_rows(together, 2, encoder.dim, "picture")
    cosine = least_cosine(alone, together)
    if not cosine > same:
        raise ValueError(f"beside another one, a picture gets another vector than alone (cosine {cosine:.4f})")
    _require_sound_texts(encoder.encode_texts, encoder.dim, same)


def require_sound_text(encoder: TextEncoder, same: float = SAME) -> None:
    """Raises ValueError saying what is wrong, or whatever the model raises."""
    _require_sound_texts(encoder.encode_queries, encoder.dim, same)
    _require_sound_texts(encoder.encode_documents, encoder.dim, same)


def _require_sound_texts(encode: EncodeTexts, dim: int, same: float) -> None:
    alone = encode([SHORT_TEXT])
    together = encode([SHORT_TEXT, LONG_TEXT])
    _require_unit_rows(alone, 1, dim, "text")
    _require_unit_rows(together, 2, dim, "text")
    cosine = float(alone[0] @ together[0])
    if cosine <= same:
        raise ValueError(f"beside a longer text, a text gets another vector than alone (cosine {cosine:.4f})")


def _require_unit_rows(rows: Embeddings, count: int, dim: int, kind: str) -> None:
    if rows.shape != (count, dim):
        raise ValueError(f"{count} of kind {kind} give vectors of shape {rows.shape}, not {(count, dim)}")
    if not np.isfinite(rows).all():
        raise ValueError(f"a {kind} gives a vector that is not finite")
    if not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3):
        raise ValueError(f"a {kind} gives a vector without a direction")

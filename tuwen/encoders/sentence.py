"""Any sentence-transformers folder (BGE and its kin)."""

from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

from tuwen.encoders.base import Embeddings, unit_rows


class SentenceEncoder:
    def __init__(self, folder: Path, device: str) -> None:
        self._model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self.dim = self.encode_texts(["a"]).shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        embeddings = self._model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
        return unit_rows(embeddings.float().cpu().numpy())

"""Any sentence-transformers folder (BGE and its kin)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from sentence_transformers import SentenceTransformer

from tuwen.encoders.base import Embeddings, unit_rows
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.token_batches import MOST_TOKENS, in_token_batches

# Where a model says nothing of it.
LONGEST = 512


class SentenceEncoder:
    most_tokens = MOST_TOKENS
    indexes_apart = is_remote = False

    def __init__(self, folder: Path, device: str, prompts: Prompts, dtype: str = "float32") -> None:
        self.model = SentenceTransformer(
            str(folder), device=device, local_files_only=True, model_kwargs={"dtype": dtype}
        )
        self._prompts = prompts
        self.dim = self.encode_documents(["a"]).shape[1]

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        return self._encode(texts, self._prompts.query)

    def encode_documents(self, texts: Sequence[str]) -> Embeddings:
        return self._encode(texts, self._prompts.document)

    def on_one_thread(self) -> Self:
        return self  # torch asks the thread that calls it

    def _encode(self, texts: Sequence[str], prompt: str) -> Embeddings:
        def encode(batch: Sequence[str]) -> Embeddings:
            # An empty prompt, unlike none, keeps the model's default prompt away.
            embeddings = self.model.encode(
                list(batch), prompt=prompt, batch_size=len(batch), convert_to_tensor=True, show_progress_bar=False
            )
            return unit_rows(embeddings.float().cpu().numpy())

        longest = self.model.max_seq_length or LONGEST
        return in_token_batches(encode, texts, longest=longest, most_tokens=self.most_tokens)

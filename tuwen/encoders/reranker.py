"""Cross-encoders: how well each title fits a query, both read together. Of this machine, or behind an endpoint."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from tuwen.encoders.device import choose_device, limit_torch
from tuwen.encoders.endpoint import NUMBERS, Endpoint
from tuwen.encoders.endpoint_name import EndpointName
from tuwen.errors import ModelsUnavailable, ModelUnavailable
from tuwen.settings import Settings

KIND = "ForSequenceClassification"
AT_ONCE = 10  # titles; between two such calls it sees whether anybody waits still
# A cross-encoder of a title and a query needs no more; published ones take 512 and 8,192.
MOST_TOKENS = 512
QUERY, TITLES = "红色沙发", ("红色布艺沙发", "现代简约 实木 书柜 " * 8)
SAME = 1e-3


class Reranker(Protocol):
    is_remote: bool

    def scores(self, query: str, titles: Sequence[str], given_up: threading.Event) -> list[float]:
        """One for each, the higher the better. Blocks. Raises ModelsUnavailable, once `given_up` is set, too."""
        ...


class LocalReranker:
    """A folder of transformers' sequence classification with one label (bge-reranker and its kin). Not thread-safe."""

    is_remote = False

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Loaded, and tried once. Raises ModelUnavailable."""
        from sentence_transformers import CrossEncoder  # noqa: PLC0415  # takes seconds

        try:
            _require_kind(folder)
            device = choose_device(settings.model_device)
            limit_torch(settings.model_threads)
            dtype = "float16" if device.startswith("cuda") else "float32"
            self._model: Any = CrossEncoder(
                str(folder),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                max_length=MOST_TOKENS,
                model_kwargs={"dtype": dtype},
            )
            _require_sound(self)
        except ModelUnavailable:
            raise
        except Exception as error:  # the libraries raise errors of their own for damaged files, and MemoryError
            raise ModelUnavailable(f"RERANKER_MODEL: the model in {folder} can't be used: {error}") from error

    def scores(self, query: str, titles: Sequence[str], given_up: threading.Event) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(titles), AT_ONCE):
            if given_up.is_set():
                raise ModelsUnavailable("The reranker was not waited for any more.")
            pairs = [(query, title) for title in titles[start : start + AT_ONCE]]
            try:
                scores += self._model.predict(pairs, batch_size=AT_ONCE, show_progress_bar=False).tolist()
            except Exception as error:  # libraries raise whatever they like
                raise ModelsUnavailable(f"The reranker fails: {error!r}") from error
        return scores


class RemoteReranker:
    """What `/rerank` answers, as Jina, Cohere, vLLM and Infinity have it; or as TEI does."""

    is_remote = True

    def __init__(self, name: EndpointName, settings: Settings) -> None:
        # Nobody waits for longer than for the reranker: past that it counts as silent.
        is_shorter = settings.reranker_timeout_s < settings.endpoint_timeout_s
        deadline: Literal["endpoint_timeout_s", "reranker_timeout_s"] = (
            "reranker_timeout_s" if is_shorter else "endpoint_timeout_s"
        )
        self._endpoint = Endpoint(name, settings, "RERANKER_MODEL", "rerank", deadline)
        self._speaks_tei = settings.reranker_endpoint_style == "tei"
        self._batch_size = settings.endpoint_batch_size

    def scores(self, query: str, titles: Sequence[str], given_up: threading.Event) -> list[float]:
        if given_up.is_set():
            raise ModelsUnavailable("The reranker was not waited for any more.")
        batches = [list(titles[start : start + self._batch_size]) for start in range(0, len(titles), self._batch_size)]
        try:
            answers = self._endpoint.ask([self._asked(query, batch) for batch in batches], patient=False)
        except ValueError as error:  # it refuses the request
            raise ModelsUnavailable(str(error)) from error
        read = (self._read(answer, len(batch)) for answer, batch in zip(answers, batches, strict=True))
        return [score for scores in read for score in scores]

    def _asked(self, query: str, titles: list[str]) -> dict[str, Any]:
        if self._speaks_tei:  # which refuses a pair that is too long, unless it may cut it off
            return {"query": query, "texts": titles, "truncate": True}
        return {"query": query, "documents": titles, "return_documents": False}

    def _read(self, answer: Any, count: int) -> list[float]:
        try:
            rows, name = (answer, "score") if self._speaks_tei else (answer["results"], "relevance_score")
            found = {row["index"]: row[name] for row in rows}
            scores = np.array([found[number] for number in range(count)])
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ModelsUnavailable(f"RERANKER_MODEL: the endpoint has no score for each of {count} titles.") from error
        if len(found) != count or scores.shape != (count,) or scores.dtype.kind not in NUMBERS:
            raise ModelsUnavailable(f"RERANKER_MODEL: the endpoint has no score for each of {count} titles.")
        return list(map(float, scores))


def _require_kind(folder: Path) -> None:
    """An encoder without a head would be given one of random weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds, labels = config.get("architectures") or [], config.get("id2label") or {}
    if not any(kind.endswith(KIND) for kind in kinds) or len(labels) != 1:
        raise ModelUnavailable(
            f"RERANKER_MODEL: the model in {folder} is no cross-encoder with one score ({', '.join(kinds)}, "
            f"{len(labels) or 2} labels); bge-reranker-v2-m3 is one."
        )


def _require_sound(reranker: LocalReranker) -> None:
    """As each encoder is tried. Raises ValueError."""
    together = reranker.scores(QUERY, TITLES, threading.Event())
    alone = reranker.scores(QUERY, TITLES[:1], threading.Event())
    if not np.isfinite(together).all():
        raise ValueError("it gives a score that is not finite")
    if abs(together[0] - alone[0]) > SAME:
        raise ValueError(f"beside a longer title, a title gets another score than alone ({together[0]}, {alone[0]})")

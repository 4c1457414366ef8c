"""Of a search that asks for it: how likely each hit is what was asked for, and whether any of them is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_models import SearchHit, SearchRequest
from tuwen.background import WorkPool
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.search.hits import ProductHit
from tuwen.search.lexical import LexicalSearch
from tuwen.search.relevance import ByMode, Calibrations, relevance_of, require
from tuwen.search.signals import SignalReader
from tuwen.vectors.registry import ServedIndex
from vector_db import VectorDB, VectorField


class Judged(NamedTuple):
    hits: list[SearchHit]
    no_match: bool | None


class Judge:
    def __init__(self, database: Database, vector_db: VectorDB, words: LexicalSearch, threads: WorkPool) -> None:
        self._threads = threads
        self._calibrations = Calibrations(database)
        self._signals = SignalReader(vector_db, words, threads)

    async def require_calibrated(self, request: SearchRequest, index: ServedIndex) -> None:
        """Raises InvalidInput where there is nothing that `min_score` could be compared with."""
        if request.min_score is not None:
            require(await self._calibrations_of(index), request.mode)

    async def judge(
        self,
        request: SearchRequest,
        database: Database,
        index: ServedIndex,
        vectors: Mapping[VectorField, Vector],
        text: str | None,
        found: Sequence[ProductHit],
        hits: Sequence[SearchHit],
    ) -> Judged:
        """`found`: what `hits` were made of. Raises DatabaseUnavailable, VectorDBUnavailable or VectorsRejected."""
        # One was fitted on texts and pictures as they come: of what is mixed of several, or stored, it says nothing.
        is_one_query = not request.terms and request.product_id is None
        calibration = (await self._calibrations_of(index)).get(request.mode) if is_one_query else None
        signals = await self._signals.read(database, index, vectors, text, found, are_fused=request.is_fused)
        for hit, its in zip(hits, signals, strict=True):
            hit.signals = its
            hit.relevance = relevance_of(its, calibration.weights) if calibration is not None else None
        is_whole = all(vector.size for vector in vectors.values())  # else a model is away, and `missing` says which
        if request.min_score is None or not is_whole:
            return Judged(list(hits), None)
        clearing = [hit for hit in hits if hit.relevance is not None and hit.relevance >= request.min_score]
        no_match = not clearing if request.offset == 0 else None
        return Judged(list(hits) if request.keep_below else clearing, no_match)

    async def _calibrations_of(self, index: ServedIndex) -> ByMode:
        known = self._calibrations.known(index)
        return await self._threads.run(self._calibrations.of, index) if known is None else known

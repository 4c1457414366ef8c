"""Of a search that asks for it: how likely each hit is what was asked for, and whether any of them is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_models import ModeCalibration, SearchHit, SearchRequest
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
        calibration = await self._calibration_of(request, index)
        signals = await self._signals.read(database, index, vectors, text, found, are_fused=request.is_fused)
        for hit, its in zip(hits, signals, strict=True):
            hit.signals = its
            hit.relevance = relevance_of(its, calibration.weights) if calibration is not None else None
        is_whole = all(vector.size for vector in vectors.values())  # else a model is away, and `missing` says which
        if calibration is None or not is_whole:
            return Judged(list(hits), None)
        threshold = calibration.fitted_on.threshold if request.min_score is None else request.min_score
        no_match = (
            no_match_of([hit.relevance for hit in hits], threshold)
            if request.offset == 0 and threshold is not None
            else None
        )
        if request.min_score is None or request.keep_below:
            return Judged(list(hits), no_match)
        # Of what is still to be indexed nothing is known, which is no reason to leave it out.
        kept = [hit for hit in hits if hit.relevance is None or hit.relevance >= request.min_score]
        return Judged(kept, no_match)

    async def _calibration_of(self, request: SearchRequest, index: ServedIndex) -> ModeCalibration | None:
        """Raises InvalidInput where there is none for a `min_score`: another index may have taken over meanwhile."""
        if request.terms or request.product_id is not None:
            return None
        calibrations = await self._calibrations_of(index)
        if request.min_score is not None:
            require(calibrations, request.mode)
        return calibrations.get(request.mode)

    async def _calibrations_of(self, index: ServedIndex) -> ByMode:
        known = self._calibrations.known(index)
        return await self._threads.run(self._calibrations.of, index) if known is None else known


def no_match_of(relevance: Sequence[float | None], threshold: float) -> bool | None:
    """None where that is not known: of hits that are still to be indexed, one may be what was asked for."""
    known = [each for each in relevance if each is not None]
    if any(each >= threshold for each in known):
        return False
    return True if len(known) == len(relevance) else None

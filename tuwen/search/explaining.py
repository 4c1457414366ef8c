"""Of a search that asks why: which ways found each hit, how far in front, and what in its picture fits."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from data_models import Explanation, HitSignals, HitWay, ProductImage, RelevanceMap, SearchHit, SearchRequest
from tuwen.background import WorkPool
from tuwen.catalogue.representation import image_url
from tuwen.cores import stand_behind
from tuwen.encoders.base import Vector
from tuwen.encoders.service import EncodingService
from tuwen.errors import AppError, NotFound
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.store import ImageStore
from tuwen.search.encoding import at_once
from tuwen.search.nearest import Found
from tuwen.search.relevance_map import relevance_map_of, views_of
from vector_db import VectorField

logger = logging.getLogger(__name__)

MAPPED = 3  # pictures of an answer
VIEWS_AT_ONCE = 4  # about as many as one turn of the index takes: its own pictures wait behind no more
TIMEOUT_S, TURN_WAIT_S = 20.0, 2.0
LOG_EVERY_S = 60.0
WAYS: Mapping[VectorField, Literal["meaning", "pictures"]] = {
    "text_bge_vector": "meaning",
    "text_clip_vector": "meaning",
    "image_clip_vector": "pictures",
}


class _TooSlow(Exception):
    """With this model on this machine no map would come in time: the first views say so."""


class Explainer:
    """Looks at one answer's pictures at a time, on threads of its own: a picture store that hangs holds no search."""

    def __init__(self, images: ImageStore, decoder: PictureDecoder) -> None:
        self._images = images
        self._decoder = decoder
        self._threads = WorkPool("explaining", threads=2, max_waiting=2, prepare_thread=stand_behind)
        self._turn = asyncio.Semaphore(1)
        self._said_at = -LOG_EVERY_S

    async def explain(
        self,
        request: SearchRequest,
        vectors: Mapping[VectorField, Vector],
        encoding: EncodingService,
        found: Found,
        hits: Sequence[SearchHit],
    ) -> bool:
        """Gives each of `hits`, which were judged, its explanation. False: a map that it should have is missing."""
        ways = _ways_of(request, vectors, found, hits)
        explanations = [Explanation(ways=each) for each in ways]
        for hit, explanation in zip(hits, explanations, strict=True):
            hit.explanation = explanation
        query = vectors.get("image_clip_vector")
        if query is None or not hits:
            return True
        if not query.size:  # the model is away
            return False
        if encoding.encoders.clip.is_remote:  # each view is a call that somebody pays, and the index's lane
            return False
        try:
            async with asyncio.timeout(TURN_WAIT_S):
                await self._turn.acquire()
        except TimeoutError:
            return False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                made = [
                    await self._map(*each, query, encoding) for each in zip(hits[:MAPPED], explanations, strict=False)
                ]
        except (TimeoutError, _TooSlow):
            self._say(f"they do not come within {TIMEOUT_S:g} s")
            return False
        finally:
            self._turn.release()
        return all(made)

    async def _map(self, hit: SearchHit, explanation: Explanation, query: Vector, encoding: EncodingService) -> bool:
        """What can't be read or encoded costs its own map alone."""
        image = hit.image or hit.product.images[0]
        try:
            data = await self._threads.run(self._read, image)
            explanation.relevance_map = await self._drawn(image.image_id, data, query, encoding)
        except (AppError, MemoryError, OSError, RuntimeError, ValueError) as error:
            self._say(f"of picture {image.image_id}: {error!r}")
            return False
        return True

    def _read(self, image: ProductImage) -> bytes:
        """Its thumbnail has all that is looked at, and is read in no time."""
        path = image.thumbnail_url.removeprefix(image_url(""))
        try:
            return self._images.read(path)
        except NotFound:
            return self._images.original_of(path)

    async def _drawn(self, image_id: str, data: bytes, query: Vector, encoding: EncodingService) -> RelevanceMap:
        started = time.monotonic()
        picture, views = await self._decoder.stored_picture(data, views_of)
        vectors: list[Vector] = []
        for begin in range(0, len(views), VIEWS_AT_ONCE):
            some = views[begin : begin + VIEWS_AT_ONCE]
            prepared = await self._threads.run(lambda: [encoding.prepare(each) for each in some])  # noqa: B023
            vectors += await at_once(encoding.clip_images.bulk(each) for each in prepared)
            if (time.monotonic() - started) * len(views) / len(vectors) > TIMEOUT_S:
                raise _TooSlow
        return await self._threads.run(relevance_map_of, image_id, picture, query, vectors)

    def _say(self, why: str) -> None:
        """Once in a while: each search would say the same."""
        now = time.monotonic()
        if now - self._said_at >= LOG_EVERY_S:
            self._said_at = now
            logger.warning("Searches are explained without maps: %s", why)


def _ways_of(
    request: SearchRequest, vectors: Mapping[VectorField, Vector], found: Found, hits: Sequence[SearchHit]
) -> list[list[HitWay]]:
    if not request.is_fused:
        [way] = (WAYS[field] for field in vectors)
        ranks = {product_id: rank for rank, product_id in enumerate(found.candidates, start=1)}
        return [
            [HitWay(way=way, rank=ranks[hit.product.product_id], score=hit.score, share=1.0)]
            if hit.product.product_id in ranks
            else []
            for hit in hits
        ]
    ways: dict[int, list[HitWay]] = {hit.product.product_id: [] for hit in hits}
    signals = {hit.product.product_id: hit.signals or HitSignals() for hit in hits}
    for part in found.parts:
        if part.product_id in ways:
            its = signals[part.product_id]
            scores = {"meaning": its.title_cosine, "pictures": its.picture_cosine, "words": its.words}
            found_so = HitWay(way=part.way, rank=part.rank, score=scores[part.way], share=part.score)
            ways[part.product_id].append(found_so)
    return [ways[hit.product.product_id] for hit in hits]

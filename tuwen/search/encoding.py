"""Texts and pictures as vectors; a query's text is steered by what it names and does not want."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_models import SearchMode
from tuwen.budget import Budget
from tuwen.encoders.base import Vector
from tuwen.encoders.service import EncodingService
from tuwen.errors import ModelsUnavailable
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.download import PictureFetcher
from tuwen.search.query import Query
from tuwen.search.understanding import Understanding
from vector_db import VECTOR_FIELDS, VectorField

# Each may be as large as an upload, and stays in memory until its search has its vector.
DOWNLOADS_AT_ONCE, DOWNLOAD_WAIT_S = 8, 10.0
# Chosen on `evaluation/query_files/attributes_tuning.jsonl` and `negation_tuning.jsonl`: how far a query goes
# towards the kind that is asked for, whose attributes have a say of their own (`wishes.py`), and away from what is not
# wanted.
TOWARDS_KIND, AWAY = 0.5, -0.2
SHORTEST = 1e-12

Vectors = dict[VectorField, Vector]
# Of a fused search, whose model does not answer: nothing is looked up by it, and the answer says so.
NO_VECTOR: Vector = np.empty(0, np.float32)


class QueryEncoder:
    def __init__(self, decoder: PictureDecoder, fetcher: PictureFetcher) -> None:
        self._decoder = decoder
        self._fetcher = fetcher
        self._downloads = Budget("Memory for the picture of image_url", DOWNLOADS_AT_ONCE)

    async def vectors(
        self, query: Query, understood: Understanding, encoding: EncodingService, *, is_fused: bool = False
    ) -> Vectors:
        """By the fields that the query is looked up in, that of its meaning first. `is_fused`: words are looked for
        beside them, and a model that does not answer costs its field alone.
        """
        fields: list[VectorField] = [VECTOR_FIELDS[query.mode]]
        if query.mode is SearchMode.HYBRID:
            fields = ["text_bge_vector", "image_clip_vector"]
        if query.text is not None:
            return await _of_texts(query.text, fields, understood, encoding, is_fused)
        if query.vector is not None:
            return {fields[0]: query.vector}
        assert query.image is not None, "require_one_query saw to it"
        return {fields[0]: await self.image(query.image, encoding, is_stored=query.is_stored)}

    async def download(self, url: str, encoding: EncodingService) -> Vector:
        async with self._downloads.share(1, max_wait_s=DOWNLOAD_WAIT_S):
            return await self.image(await self._fetcher.fetch(url), encoding, is_stored=False)

    async def image(self, data: bytes, encoding: EncodingService, *, is_stored: bool) -> Vector:
        """CLIP's vector of an encoded picture, cached by its bytes."""
        sha256 = await self._decoder.sha256(data)
        cached = encoding.cached_image(sha256)
        if cached is not None:
            return cached
        picture = await self._decoder.query_picture(data, encoding.prepare, is_stored=is_stored)
        return await encoding.query_image(picture, sha256)


async def at_once(encoding: Iterable[Coroutine[Any, Any, Vector]]) -> list[Vector]:
    """Where one fails the others are given up: nobody waits for them, and what they hold is no longer counted."""
    # No TaskGroup: in Python 3.11 one that failed leaves its task marked as cancelled, and a deadline around it fails.
    tasks = [asyncio.ensure_future(each) for each in encoding]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        tasks.clear()  # one that failed has an error that holds this frame, and with it pictures (`WorkPool.run`)


async def _of_texts(
    text: str, fields: Sequence[VectorField], understood: Understanding, encoding: EncodingService, is_fused: bool
) -> Vectors:
    """All of a search's texts at once, so that the models take them as one batch."""
    steering = {understood.kind: TOWARDS_KIND, "、".join(understood.without): AWAY}
    shares = {other: share for other, share in steering.items() if other}
    encoded = await asyncio.gather(*(_steered(text, shares, field, encoding, is_fused) for field in fields))
    return dict(zip(fields, encoded, strict=True))


async def _steered(
    text: str, shares: Mapping[str, float], field: VectorField, encoding: EncodingService, is_fused: bool
) -> Vector:
    try:
        if not shares:
            return await encode_text(text, field, encoding)
        vector, *others = await asyncio.gather(*(encode_text(each, field, encoding) for each in (text, *shares)))
    except ModelsUnavailable:
        if is_fused:
            return NO_VECTOR
        raise
    for other, share in zip(others, shares.values(), strict=True):
        vector = mixed(vector, other, share)
    return vector


async def encode_text(text: str, field: VectorField, encoding: EncodingService) -> Vector:
    if field == "text_bge_vector":
        return await encoding.query_text(text)
    return await encoding.query_clip_text(text)


def mixed(vector: Vector, other: Vector, share: float) -> Vector:
    """Of length 1, as both are. `share`: of the other; below 0 it goes away from it."""
    between = (1 - share) * vector + share * other
    return (between / max(float(np.linalg.norm(between)), SHORTEST)).astype(vector.dtype)

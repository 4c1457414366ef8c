"""What tells of a hit whether it is what was asked for: how near its vectors are, and which of the words it has.

The score of a search of several ways is made of ranks, and says of nothing how good it is.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_models import HitSignals, Product
from tuwen.background import WorkPool
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.search.hits import ProductHit
from tuwen.search.lexical import LexicalSearch
from tuwen.vectors.binding import made_of
from tuwen.vectors.registry import LiveIndex
from vector_db import VectorDB, VectorField

NAMES: Mapping[VectorField, str] = {
    "text_bge_vector": "title_cosine",
    "text_clip_vector": "title_cosine",
    "image_clip_vector": "picture_cosine",
}

Cosines = Sequence[Mapping[str, float | None]]
"""Of each hit, by their names; None of what is still to be made."""


class SignalReader:
    def __init__(self, vector_db: VectorDB, words: LexicalSearch, threads: WorkPool) -> None:
        self._vector_db = vector_db
        self._words = words
        self._threads = threads

    async def read(
        self,
        database: Database,
        index: LiveIndex,
        vectors: Mapping[VectorField, Vector],
        text: str | None,
        hits: Sequence[ProductHit],
        *,
        are_fused: bool,
    ) -> list[HitSignals]:
        """`database`: of the shop that asks. `vectors`: the query's, empty of a model that is away. `text`: None of a
        picture. Milvus and the database are asked at once."""
        products = [hit.product for hit in hits]
        words: Sequence[float | None] = [None] * len(hits)
        if are_fused:
            known = {field: vector for field, vector in vectors.items() if vector.size}
            asking = self._threads.run(self._cosines, database, index, known, products)
            if text is not None:
                cosines, words = await asyncio.gather(asking, self._shares(database, text, products))
            else:
                cosines = await asking
        else:
            [field] = vectors
            cosines = [{NAMES[field]: hit.score} for hit in hits]
            if text is not None:
                words = await self._shares(database, text, products)
        return [HitSignals.model_validate({**each, "words": share}) for each, share in zip(cosines, words, strict=True)]

    async def _shares(self, database: Database, text: str, products: Sequence[Product]) -> Sequence[float | None]:
        return await self._threads.run(self._words.shares, database, text, products) if products else []

    def _cosines(
        self,
        database: Database,
        index: LiveIndex,
        vectors: Mapping[VectorField, Vector],
        products: Sequence[Product],
    ) -> Cosines:
        """With the vectors as they are stored: of what words found, no search has said how near it is. Blocks."""
        if not vectors or not products:
            return [{}] * len(products)
        with database.read() as session:
            made = made_of(session, index.vector_index_id, [product.product_id for product in products])
        rows = [each.row for of_product in made.values() for each in of_product]
        stored = self._vector_db.stored_vectors(index.collection, list(vectors), rows) if rows else {}
        found = []
        for product in products:
            own = {each.row.milvus_id: stored.get(each.row) for each in made.get(product.product_id, ())}
            main = [own.get(product.milvus_id or 0)]  # further pictures' rows have none of the title's vectors
            found.append(
                {
                    NAMES[field]: _nearest(vector, field, own.values() if field == "image_clip_vector" else main)
                    for field, vector in vectors.items()
                }
            )
        return found


def _nearest(vector: Vector, field: VectorField, rows: Iterable[Mapping[VectorField, Vector] | None]) -> float | None:
    """None where none of them is stored, which may be written a moment ago."""
    return max((float(np.dot(vector, row[field])) for row in rows if row is not None), default=None)

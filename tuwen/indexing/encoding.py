"""From products to rows for Milvus: what their bound row was made of and still is stays, all else is encoded.

A vector is taken over only from the row that is bound to this very product in this very index, and if the binding says
that it was made of the same picture, or of the same title.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orm_models import ProductRow
from tuwen.background import WorkPool
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.encoders.service import EncodingService
from tuwen.errors import AppError, DependencyUnavailable, ImageStoreUnavailable, PictureUnreadable, VectorsRejected
from tuwen.indexing.outcomes import Encoded, Failed, Patience, Unanswered, Unreadable
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.store import ImageStore
from tuwen.pulse import beat
from tuwen.vectors.binding import made_of, sha256_of
from tuwen.vectors.registry import ServedIndex
from vector_db import VectorDB, VectorField, VectorRow

logger = logging.getLogger(__name__)

# The longest step: one call of the largest model on two cores, or making a collection and loading it.
LONGEST_STEP_S = 180.0
OF_PICTURE: tuple[VectorField, ...] = ("image_clip_vector",)
OF_TITLE: tuple[VectorField, ...] = ("text_clip_vector", "text_bge_vector")
KeptVectors = Mapping[VectorField, Vector]
NOTHING: KeptVectors = {}


class VectorCount(NamedTuple):
    """How often, in this process: a picture's vector, or a title's two, encoded, or taken over."""

    of: str
    how: str


class ProductEncoder:
    """Whatever a batch's size, it reads no more pictures at once than `pictures_at_once`."""

    def __init__(
        self,
        database: Database,
        vector_db: VectorDB,
        images: ImageStore,
        decoder: PictureDecoder,
        threads: WorkPool,
        pictures_at_once: int,
        counts: Counter[VectorCount],
    ) -> None:
        self._database = database
        self._vector_db = vector_db
        self._images = images
        self._decoder = decoder
        self._threads = threads
        self._pictures = asyncio.Semaphore(pictures_at_once)
        self._patience = Patience()
        self._counts = counts

    async def encode(self, products: Sequence[ProductRow], index: ServedIndex) -> tuple[list[Encoded], list[Failed]]:
        """Raises DependencyUnavailable where all of them have to wait."""
        kept = await self._threads.run(self._kept_vectors, products, index)
        results = await asyncio.gather(
            *(self._encode_one(each, kept.get(each.product_id, NOTHING), index.encoding) for each in products),
            return_exceptions=True,
        )
        for result in results:  # all have ended by now
            if isinstance(result, BaseException):
                raise result
        if any(isinstance(result, Unreadable) for result in results):
            await self._threads.run(self._images.check)  # raises where the whole store is away: then all of them wait
        outcomes = self._patience.judge(result for result in results if not isinstance(result, BaseException))
        unreadable = [each for each in outcomes if type(each) is Unreadable]
        if unreadable:
            logger.warning("%d products wait for reconciliation: %s", len(unreadable), unreadable[0].reason)
        return [r for r in outcomes if isinstance(r, Encoded)], [r for r in outcomes if isinstance(r, Failed)]

    def _kept_vectors(self, products: Sequence[ProductRow], index: ServedIndex) -> dict[int, KeptVectors]:
        """By product, of those whose bound row has any. What Milvus does not give is encoded."""
        with self._database.read() as session:
            bindings = made_of(session, index.vector_index_id, [product.product_id for product in products])
        fields: dict[int, tuple[VectorField, ...]] = {}
        for product in products:
            if binding := bindings.get(product.product_id):
                of_picture = OF_PICTURE if binding.image_sha256 == product.image_sha256 else ()
                of_title = OF_TITLE if binding.title_sha256 == sha256_of(product.title) else ()
                fields[product.product_id] = of_picture + of_title
        rows = {bindings[product_id].row: product_id for product_id, names in fields.items() if names}
        try:
            stored = self._vector_db.stored_vectors(index.collection, OF_PICTURE + OF_TITLE, list(rows)) if rows else {}
        except VectorsRejected as error:
            logger.warning("Vectors that there are could not be read, and are made anew: %s", error.detail)
            return {}
        return {
            product_id: {name: stored[row][name] for name in fields[product_id]}
            for row, product_id in rows.items()
            if row in stored
        }

    async def _encode_one(self, product: ProductRow, kept: KeptVectors, encoding: EncodingService) -> Encoded | Failed:
        try:
            vectors = await self._with_picture(product, kept, encoding) | await self._with_title(
                product, kept, encoding
            )
        except PictureUnreadable as error:
            return Unreadable(product, error.detail)
        except ImageStoreUnavailable as error:
            beat(LONGEST_STEP_S)  # it may have waited out a deadline, as the next one will
            return Unanswered(product, error.detail)
        except DependencyUnavailable:
            raise
        except AppError as error:
            return Failed(product, error.detail)
        beat(LONGEST_STEP_S)
        row = VectorRow(
            product_id=product.product_id,
            row_token=0,  # set when it is inserted
            **vectors,
            image_path=product.image_path,
            title=product.title,
            category=product.category,
            attributes=product.attributes,
        )
        return Encoded(product, row)

    async def _with_picture(
        self, product: ProductRow, kept: KeptVectors, encoding: EncodingService
    ) -> dict[VectorField, Vector]:
        if "image_clip_vector" in kept:
            self._counts[VectorCount("picture", "kept")] += 1
            return {"image_clip_vector": kept["image_clip_vector"]}
        async with self._pictures:
            data = await self._threads.run(self._images.read, product.image_path)
            picture = await self._decoder.stored_picture(data, encoding.prepare)
            vector = await encoding.clip_images.bulk(picture)
        self._counts[VectorCount("picture", "encoded")] += 1
        return {"image_clip_vector": vector}

    async def _with_title(
        self, product: ProductRow, kept: KeptVectors, encoding: EncodingService
    ) -> dict[VectorField, Vector]:
        if all(name in kept for name in OF_TITLE):
            self._counts[VectorCount("title", "kept")] += 1
            return {name: kept[name] for name in OF_TITLE}
        clip_vector, text_vector = await asyncio.gather(
            encoding.clip_texts.bulk(product.title), encoding.text_documents.bulk(product.title)
        )
        self._counts[VectorCount("title", "encoded")] += 1
        return {"text_clip_vector": clip_vector, "text_bge_vector": text_vector}

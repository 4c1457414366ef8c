"""From products to rows for Milvus, one for each picture: what is encoded already is taken over, all else is encoded.

A vector is taken over only from a row that is bound to this very product in this very index, and if the binding says
that it was made of the same picture, wherever that stood, or of the same title.

The main picture's row has the title's vectors. A further one's has their opposites, which a search by title or for
titles meets last of all rows: it needs no filter, and further pictures take no places among its hits.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orm_models import MAIN, ProductRow
from tuwen.background import WorkPool
from tuwen.catalogue.pictures import Picture
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.encoders.service import EncodingService
from tuwen.errors import AppError, DependencyUnavailable, ImageStoreUnavailable, PictureUnreadable, VectorsRejected
from tuwen.indexing.outcomes import Encoded, Failed, Patience, Pictured, Unanswered, Unreadable, of_picture
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.store import ImageStore
from tuwen.pulse import beat
from tuwen.vectors.binding import made_of, sha256_of
from tuwen.vectors.registry import ServedIndex
from vector_db import RowKey, VectorDB, VectorField, VectorRow

logger = logging.getLogger(__name__)

# The longest step: one call of the largest model on two cores, or making a collection and loading it.
LONGEST_STEP_S = 180.0
OF_PICTURE: tuple[VectorField, ...] = ("image_clip_vector",)
OF_TITLE: tuple[VectorField, ...] = ("text_clip_vector", "text_bge_vector")


@dataclass(frozen=True)
class KeptVectors:
    """What a product's bound rows have of what it is made of now."""

    pictures: dict[str, Vector] = field(default_factory=dict)
    """By the picture's SHA-256."""
    title: dict[VectorField, Vector] = field(default_factory=dict)


NOTHING = KeptVectors()


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

    async def encode(self, products: Sequence[Pictured], index: ServedIndex) -> tuple[list[Encoded], list[Failed]]:
        """Raises DependencyUnavailable where all of them have to wait."""
        kept = await self._threads.run(self._kept_vectors, products, index)
        results = await asyncio.gather(
            *(self._encode_one(each, kept.get(each.product.product_id, NOTHING), index.encoding) for each in products),
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

    def _kept_vectors(self, products: Sequence[Pictured], index: ServedIndex) -> dict[int, KeptVectors]:
        """By product, of those whose bound rows have any. What Milvus does not give is encoded."""
        with self._database.read() as session:
            made = made_of(session, index.vector_index_id, [each.product.product_id for each in products])
        wanted: dict[RowKey, tuple[str | None, bool]] = {}
        """Which picture's vector a row has, and whether it has the title's."""
        for product, pictures in products:
            hashes, title_sha256 = {picture.image_sha256 for picture in pictures}, sha256_of(product.title)
            for row, image_sha256, of_title in made.get(product.product_id, ()):
                if image_sha256 in hashes or of_title == title_sha256:
                    wanted[row] = image_sha256 if image_sha256 in hashes else None, of_title == title_sha256
        try:
            stored = self._vector_db.stored_vectors(index.collection, OF_PICTURE + OF_TITLE, wanted) if wanted else {}
        except VectorsRejected as error:
            logger.warning("Vectors that there are could not be read, and are made anew: %s", error.detail)
            return {}
        kept: dict[int, KeptVectors] = {}
        for row, vectors in stored.items():
            image_sha256, has_title = wanted[row]
            of_product = kept.setdefault(row.product_id, KeptVectors())
            if image_sha256 is not None:
                of_product.pictures[image_sha256] = vectors["image_clip_vector"]
            if has_title:
                of_product.title.update({name: vectors[name] for name in OF_TITLE})
        return kept

    async def _encode_one(self, pictured: Pictured, kept: KeptVectors, encoding: EncodingService) -> Encoded | Failed:
        product, pictures = pictured
        vectors: list[Vector] = []
        title_vectors = asyncio.ensure_future(self._of_title(product, kept, encoding))  # with the batch's others
        try:
            for picture in pictures:
                vectors.append(await self._of_picture(picture, kept, encoding))
                beat(LONGEST_STEP_S)
            title = await title_vectors
        except PictureUnreadable as error:
            return Unreadable(product, _reason(pictures, vectors, error))
        except ImageStoreUnavailable as error:
            beat(LONGEST_STEP_S)  # it may have waited out a deadline, as the next one will
            return Unanswered(product, _reason(pictures, vectors, error))
        except DependencyUnavailable:
            raise
        except AppError as error:
            return Failed(product, _reason(pictures, vectors, error))
        finally:
            title_vectors.cancel()
            await asyncio.gather(title_vectors, return_exceptions=True)
        beat(LONGEST_STEP_S)
        opposites = {name: -vector for name, vector in title.items()}
        rows = [
            VectorRow(
                product_id=product.product_id,
                row_token=0,  # set when it is inserted
                image_clip_vector=vector,
                **(title if position == MAIN else opposites),  # type: ignore[arg-type]  # which names them both
                image_path=picture.image_path,
                title=product.title,
                category=product.category,
                attributes=product.attributes,
                shop_id=product.shop_id,
            )
            for position, (picture, vector) in enumerate(zip(pictures, vectors, strict=True), start=MAIN)
        ]
        return Encoded(product, pictures, rows)

    async def _of_picture(self, picture: Picture, kept: KeptVectors, encoding: EncodingService) -> Vector:
        if picture.image_sha256 in kept.pictures:
            self._counts[VectorCount("picture", "kept")] += 1
            return kept.pictures[picture.image_sha256]
        async with self._pictures:
            data = await self._threads.run(self._images.read, picture.image_path)
            prepared = await self._decoder.stored_picture(data, encoding.prepare)
            vector = await encoding.clip_images.bulk(prepared)
        self._counts[VectorCount("picture", "encoded")] += 1
        return vector

    async def _of_title(
        self, product: ProductRow, kept: KeptVectors, encoding: EncodingService
    ) -> Mapping[VectorField, Vector]:
        if kept.title:
            self._counts[VectorCount("title", "kept")] += 1
            return kept.title
        clip_vector, text_vector = await asyncio.gather(
            encoding.clip_texts.bulk(product.title), encoding.text_documents.bulk(product.title)
        )
        self._counts[VectorCount("title", "encoded")] += 1
        return {"text_clip_vector": clip_vector, "text_bge_vector": text_vector}


def _reason(pictures: Sequence[Picture], encoded: Sequence[Vector], error: AppError) -> str:
    """Where all pictures are encoded it is the title's, and names none."""
    return of_picture(MAIN + len(encoded), error.detail) if len(encoded) < len(pictures) else error.detail

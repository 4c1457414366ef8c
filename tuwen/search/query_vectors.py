"""What a request asks by: its text, picture, stored product or terms, brought to vectors."""

import asyncio
import copy
from typing import Self

from data_models import SearchMode, SearchRequest, SearchTerm
from tuwen.background import WorkPool
from tuwen.catalogue.queries import load_products
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import InvalidInput, NotFound
from tuwen.pictures.store import ImageStore
from tuwen.search.composed import SAYS_NOTHING, EncodedTerm, composed, is_text
from tuwen.search.encoding import QueryEncoder, Vectors, at_once, encode_text
from tuwen.search.query import SLICE_CHARACTERS, Query, decode_base64
from tuwen.search.understanding import Understanding
from tuwen.vectors.binding import row_at_version
from tuwen.vectors.registry import ServedIndex
from vector_db import VECTOR_FIELDS, VECTOR_FIELDS_OF_PRODUCT, VectorDB

DOWNLOADS_OF_A_QUERY = 2  # at once, so that one query's addresses leave room for others


class QueryVectors:
    def __init__(
        self, database: Database, vector_db: VectorDB, images: ImageStore, encoder: QueryEncoder, threads: WorkPool
    ) -> None:
        self._database = database
        self._vector_db = vector_db
        self._images = images
        self._encoder = encoder
        self._threads = threads

    def of_shop(self, database: Database) -> Self:
        """`database`: the shop's, by which no other's product is a query."""
        view = copy.copy(self)
        view._database = database
        return view

    async def of(
        self,
        request: SearchRequest,
        understood: Understanding,
        image: bytes | None,
        is_stored: bool,
        index: ServedIndex,
    ) -> tuple[Query, Vectors]:
        """Raises NotFound, InvalidInput, or what pictures and models do."""
        if request.terms:
            return await self._composed(request, understood, image, index)
        if request.image_url is not None:
            vector = await self._encoder.download(request.image_url, index.encoding)
            return Query(request.mode), {VECTOR_FIELDS[request.mode]: vector}
        if request.product_id is not None:
            query = await self._threads.run(self._of_product, request.mode, request.product_id, index, request.is_fused)
        elif not request.mode.query_is_image:
            query = Query(request.mode, text=understood.text)
        else:
            if request.image_base64 is not None:
                image = await self._decoded(request.image_base64)
            query = Query(request.mode, image=image, is_stored=is_stored)
        return query, await self._encoder.vectors(query, understood, index.encoding, is_fused=request.is_fused)

    async def _composed(
        self, request: SearchRequest, understood: Understanding, image: bytes | None, index: ServedIndex
    ) -> tuple[Query, Vectors]:
        """All at once, so that the models take what is alike as one batch. An upload is one more picture."""
        mode, encoding, field = request.mode, index.encoding, VECTOR_FIELDS[request.mode]
        terms = understood.terms or tuple(enumerate(request.terms))
        if image is None and all(term.weight < 0 for _, term in terms):  # 不要皮质, and nothing else, is looked for
            terms = tuple(enumerate(request.terms))
        kinds = [(term.weight, is_text(term, mode)) for _, term in terms]
        downloading = asyncio.Semaphore(DOWNLOADS_OF_A_QUERY)
        vectors = [self._of_term(number, term, mode, index, downloading) for number, term in terms]
        if image is not None:
            kinds.append((1.0, False))
            vectors.append(self._encoder.image(image, encoding, is_stored=False))
        mixes = any(of_text for _, of_text in kinds) and any(weight > 0 and not of_text for weight, of_text in kinds)
        if mixes:
            vectors.append(encode_text(SAYS_NOTHING, field, encoding))
        encoded = await at_once(vectors)
        says_nothing = encoded.pop() if mixes else None
        mixed = composed(
            [EncodedTerm(vector, *kind) for vector, kind in zip(encoded, kinds, strict=True)], says_nothing
        )
        named = frozenset(term.product_id for _, term in terms if term.product_id is not None)
        return Query(mode, without_product_ids=named), {field: mixed}

    async def _of_term(
        self, number: int, term: SearchTerm, mode: SearchMode, index: ServedIndex, downloading: asyncio.Semaphore
    ) -> Vector:
        """Errors name the term."""
        field, encoding = VECTOR_FIELDS[mode], index.encoding
        if term.text is not None:
            return await encode_text(term.text, field, encoding)
        if term.product_id is not None:
            query = await self._threads.run(self._of_product, mode, term.product_id, index, False)
            return (await self._encoder.vectors(query, Understanding(query.text or ""), encoding))[field]
        try:
            if term.image_url is not None:
                async with downloading:
                    return await self._encoder.download(term.image_url, encoding)
            assert term.image_base64 is not None, "a term is one of these"
            return await self._encoder.image(await self._decoded(term.image_base64), encoding, is_stored=False)
        except InvalidInput as error:
            name = "image_base64" if term.image_url is None else "image_url"
            raise type(error).in_field(f"terms.{number}.{name}", error.errors[0].message) from error

    async def _decoded(self, image_base64: str) -> bytes:
        if len(image_base64) > SLICE_CHARACTERS:
            return await self._threads.run(decode_base64, image_base64)
        return decode_base64(image_base64)

    def _of_product(self, mode: SearchMode, product_id: int, index: ServedIndex, by_words: bool) -> Query:
        """With its vector, unless that is still to be made, or its words are looked for."""
        without = frozenset({product_id})
        with self._database.read() as session:
            products = load_products(session, [product_id])
            if not products:
                raise NotFound(f"There is no product {product_id}.")
            if by_words:
                return Query(mode, text=products[0].title, without_product_ids=without)
            row = row_at_version(session, index.vector_index_id, product_id, products[0].content_version)
        if row is not None:
            field = VECTOR_FIELDS_OF_PRODUCT[mode]
            stored = self._vector_db.stored_vectors(index.collection, [field], [row])
            if row in stored:
                return Query(mode, vector=stored[row][field], without_product_ids=without)
        if mode.query_is_image:
            image = self._images.read(products[0].image_path)
            return Query(mode, image=image, is_stored=True, without_product_ids=without)
        return Query(mode, text=products[0].title, without_product_ids=without)

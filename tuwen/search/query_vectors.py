"""What a request asks by: its text, picture, stored product or terms, brought to vectors."""

import asyncio
import copy
from typing import Self

from data_models import SearchMode, SearchRequest, SearchTerm
from tuwen.background import WorkPool
from tuwen.catalogue.queries import load_products
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import NotFound
from tuwen.pictures.store import ImageStore
from tuwen.search.composed import SAYS_NOTHING, EncodedTerm, composed, is_text, mixes_kinds
from tuwen.search.encoding import QueryEncoder, Vectors, encode_text
from tuwen.search.query import SLICE_CHARACTERS, Query, decode_base64
from tuwen.search.understanding import Understanding
from tuwen.vectors.binding import row_at_version
from tuwen.vectors.registry import ServedIndex
from vector_db import VECTOR_FIELDS, VECTOR_FIELDS_OF_PRODUCT, VectorDB


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
            return await self._composed(request, image, index)
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

    async def _composed(self, request: SearchRequest, image: bytes | None, index: ServedIndex) -> tuple[Query, Vectors]:
        """All at once, so that the models take what is alike as one batch. An upload is one more picture."""
        terms, mode, encoding = request.terms, request.mode, index.encoding
        field, mixes = VECTOR_FIELDS[mode], mixes_kinds(terms, mode, has_upload=image is not None)
        vectors = [self._of_term(term, mode, index) for term in terms]
        if image is not None:
            vectors.append(self._encoder.image(image, encoding, is_stored=False))
        if mixes:
            vectors.append(encode_text(SAYS_NOTHING, field, encoding))
        encoded = await asyncio.gather(*vectors)
        kinds = [(term.weight, is_text(term, mode)) for term in terms] + [(1.0, False)] * (image is not None)
        of_terms = [EncodedTerm(vector, *kind) for vector, kind in zip(encoded, kinds, strict=False)]
        named = frozenset(term.product_id for term in terms if term.product_id is not None)
        mixed = composed(of_terms, encoded[-1] if mixes else None)
        return Query(mode, without_product_ids=named), {field: mixed}

    async def _of_term(self, term: SearchTerm, mode: SearchMode, index: ServedIndex) -> Vector:
        field = VECTOR_FIELDS[mode]
        if term.text is not None:
            return await encode_text(term.text, field, index.encoding)
        if term.image_url is not None:
            return await self._encoder.download(term.image_url, index.encoding)
        if term.image_base64 is not None:
            return await self._encoder.image(await self._decoded(term.image_base64), index.encoding, is_stored=False)
        assert term.product_id is not None, "a term is one of these"
        query = await self._threads.run(self._of_product, mode, term.product_id, index, False)
        return (await self._encoder.vectors(query, Understanding(query.text or ""), index.encoding))[field]

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

"""A query's way: encode → one Milvus call, over-fetching → one SELECT of the products that are bound → rank and cut."""

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from data_models import (
    IndexInfo,
    Product,
    SearchFilters,
    SearchHit,
    SearchMode,
    SearchRequest,
    SearchResponse,
    SearchTimings,
)
from errors import FieldError, InvalidInput, NotFound
from image_download import download_image
from image_store import check_image, decode_image, thumbnail_path
from orm_models import ProductRow, load_products, products_bound_to
from services import Services
from vector_db import MAX_SEARCH_LIMIT, Vector, VectorField, VectorHit, filter_expression
from vector_index import LiveIndex

VECTOR_FIELDS: Mapping[SearchMode, VectorField] = {
    SearchMode.IMAGE_TO_IMAGE: "image_clip_vector",
    SearchMode.TEXT_TO_TEXT: "text_bge_vector",
    SearchMode.IMAGE_TO_TEXT: "text_clip_vector",
    SearchMode.TEXT_TO_IMAGE: "image_clip_vector",
}
# Rows that no product binds (replaced a moment ago, or left by a crash) take places in Milvus's answer.
SPARE_HITS = 10


@dataclass(frozen=True)
class Query:
    """What is searched for, brought to a title or a picture's bytes."""

    mode: SearchMode
    text: str | None = None
    image: bytes | None = None
    without_product_id: int | None = None


class Stopwatch:
    """Milliseconds since the last lap, and in all."""

    def __init__(self) -> None:
        self._start = self._lap = time.perf_counter()

    def lap_ms(self) -> float:
        before, self._lap = self._lap, time.perf_counter()
        return round((self._lap - before) * 1000, 2)

    def total_ms(self) -> float:
        return round((time.perf_counter() - self._start) * 1000, 2)


class Searcher:
    def __init__(self, services: Services) -> None:
        self._database = services.database
        self._vector_db = services.vector_db
        self._encoding = services.encoding
        self._images = services.images
        self._registry = services.registry
        self._settings = services.settings

    async def search(self, request: SearchRequest, uploaded_image: bytes | None = None) -> SearchResponse:
        """Raises InvalidInput when the request does not hold the one query that its mode needs."""
        require_one_query(request, uploaded_image is not None)
        if request.offset > self._settings.search_max_offset:
            raise InvalidInput.in_field(
                "offset", f"is above {self._settings.search_max_offset}; refine the query instead"
            )
        watch = Stopwatch()
        index = self._registry.known
        if index is None:
            index = await asyncio.to_thread(self._registry.live)
        query = await self._resolve(request, uploaded_image)
        vector = await self._encode(query)
        encode_ms = watch.lap_ms()
        hits, vector_ms, metadata_ms = await asyncio.to_thread(self._find, index, vector, request, query, watch)
        return SearchResponse(
            mode=request.mode,
            hits=hits,
            took_ms=SearchTimings(encode=encode_ms, vector=vector_ms, metadata=metadata_ms, total=watch.total_ms()),
            index=IndexInfo(collection=index.collection, model=self._encoding.encoders.name),
        )

    async def _resolve(self, request: SearchRequest, uploaded_image: bytes | None) -> Query:
        if request.product_id is not None:
            return await asyncio.to_thread(self._query_of_product, request.mode, request.product_id)
        if not request.mode.query_is_image:
            return Query(request.mode, text=request.text)
        image = uploaded_image
        if request.image_base64 is not None:
            image = decode_base64(request.image_base64)
        elif request.image_url is not None:
            image = await download_image(request.image_url, self._settings)
        return Query(request.mode, image=image)

    def _query_of_product(self, mode: SearchMode, product_id: int) -> Query:
        with self._database.read() as session:
            products = load_products(session, [product_id])
        if not products:
            raise NotFound(f"There is no product {product_id}.")
        if mode.query_is_image:
            image = self._images.read(products[0].image_path)
            return Query(mode, image=image, without_product_id=product_id)
        return Query(mode, text=products[0].title, without_product_id=product_id)

    async def _encode(self, query: Query) -> Vector:
        if query.image is not None:
            return await self.encode_image(query.image)
        assert query.text is not None, "require_one_query saw to it"
        if query.mode is SearchMode.TEXT_TO_TEXT:
            return await self._encoding.query_text(query.text)
        return await self._encoding.query_clip_text(query.text)

    async def encode_image(self, data: bytes) -> Vector:
        """CLIP's vector of an encoded picture, cached by its bytes."""
        sha256 = hashlib.sha256(data).hexdigest()
        cached = self._encoding.cached_image(sha256)
        if cached is not None:
            return cached
        await asyncio.to_thread(check_image, data, self._settings)
        image = await asyncio.to_thread(decode_image, data)
        return await self._encoding.query_image(image, sha256)

    def _find(
        self, index: LiveIndex, vector: Vector, request: SearchRequest, query: Query, watch: Stopwatch
    ) -> tuple[list[SearchHit], float, float]:
        wanted = request.offset + request.top_k
        limit = wanted + SPARE_HITS
        vector_ms = metadata_ms = 0.0
        while True:
            found = self._vector_db.search(
                index.collection,
                VECTOR_FIELDS[request.mode],
                vector,
                limit=limit,
                filter_expression=_as_expression(request.filters),
            )
            vector_ms += watch.lap_ms()
            hits = self._bound_hits(index, found, query)
            metadata_ms += watch.lap_ms()
            if len(hits) >= wanted or len(found) < limit or limit == MAX_SEARCH_LIMIT:
                return hits[request.offset : wanted], vector_ms, metadata_ms
            limit = min(limit * 2, MAX_SEARCH_LIMIT)  # too many of them were unbound

    def _bound_hits(self, index: LiveIndex, found: list[VectorHit], query: Query) -> list[SearchHit]:
        with self._database.read() as session:
            products = products_bound_to(session, index.vector_index_id, [hit.milvus_id for hit in found])
        counting = [
            hit
            for hit in found
            if hit.milvus_id in products and products[hit.milvus_id].product_id != query.without_product_id
        ]
        return [
            SearchHit(rank=rank, score=hit.score, product=as_product(products[hit.milvus_id], hit.milvus_id))
            for rank, hit in enumerate(counting, start=1)
        ]


def require_one_query(request: SearchRequest, has_upload: bool) -> None:
    """A mode takes exactly one query, of its own kind."""
    given = {
        "text": request.text is not None,
        "image": has_upload,
        "image_base64": request.image_base64 is not None,
        "image_url": request.image_url is not None,
        "product_id": request.product_id is not None,
    }
    names = [name for name, is_given in given.items() if is_given]
    if request.mode.query_is_image:
        allowed = ["image", "image_base64", "image_url", "product_id"]
    else:
        allowed = ["text", "product_id"]
    if len(names) == 1 and names[0] in allowed:
        return
    need = f"mode {request.mode.value} needs exactly one of: {', '.join(allowed)}"
    said = f"this request has {' and '.join(names)}" if names else "this request has none of them"
    wrong = [name for name in names if name not in allowed] or names or [allowed[0]]
    raise InvalidInput(f"{need}; {said}.", [FieldError(name, need) for name in wrong])


def decode_base64(encoded: str) -> bytes:
    """Plain base64, or a data: URL as a browser's FileReader gives it."""
    if encoded.startswith("data:"):
        encoded = encoded.partition(",")[2]
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput.in_field("image_base64", f"is not base64: {error}") from error


def as_product(row: ProductRow, milvus_id: int | None) -> Product:
    columns = {name: getattr(row, name) for name in Product.model_fields if hasattr(row, name)}
    return Product(
        **columns,
        milvus_id=milvus_id,
        image_url=f"/images/{row.image_path}",
        thumbnail_url=f"/images/{thumbnail_path(row.image_path)}",
    )


def _as_expression(filters: SearchFilters) -> str:
    return filter_expression(
        categories=filters.category,
        price_min=filters.price_min,
        price_max=filters.price_max,
        attributes=filters.attributes,
    )

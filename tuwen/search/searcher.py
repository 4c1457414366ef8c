"""A query's way: its title or picture → encode → look up with those that wait beside it (`lookup.py`) → cut."""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from data_models import (
    IndexInfo,
    SearchFacets,
    SearchHit,
    SearchRequest,
    SearchResponse,
    SearchTimings,
    SearchWay,
)
from orm_models import utc_now
from tuwen.background import WorkPool
from tuwen.catalogue.boosts import Boosting
from tuwen.catalogue.facets import count_facets_among
from tuwen.catalogue.prices import Prices
from tuwen.catalogue.queries import group_sizes
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import InvalidInput
from tuwen.lexical.lexicon import Lexicon
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.download import PictureFetcher
from tuwen.pictures.store import ImageStore
from tuwen.search.encoding import QueryEncoder
from tuwen.search.explaining import WAYS, Explainer
from tuwen.search.hybrid import HybridQuery, HybridSearch
from tuwen.search.judging import Judge, Judged
from tuwen.search.lexical import LexicalSearch
from tuwen.search.lookup import Lookups
from tuwen.search.nearest import Found, Lookup
from tuwen.search.order import Showing
from tuwen.search.query import Query, require_one_query
from tuwen.search.query_vectors import QueryVectors
from tuwen.search.reranking import RERANKED, Reranking
from tuwen.search.understanding import Understanding, needs_reading, understand
from tuwen.search.wishes import Wishes
from tuwen.settings import Settings
from tuwen.vectors.registry import IndexRegistry, LiveIndex, ServedIndex
from vector_db import VectorDB, VectorField, filter_expression

SEARCH_THREADS = 8
RELEVANT = 1000  # a vector search has no end: so many of the nearest are counted, and put in another order


class Stopwatch:
    """Milliseconds since the last lap, and in all."""

    def __init__(self) -> None:
        self._start = self._lap = time.perf_counter()

    def lap_ms(self) -> float:
        before, self._lap = self._lap, time.perf_counter()
        return round((self._lap - before) * 1000, 2)

    def timings(
        self, encode: float, vector: float, metadata: float, rerank: float | None, explain: float | None
    ) -> SearchTimings:
        total = round((time.perf_counter() - self._start) * 1000, 2)
        return SearchTimings(
            encode=encode, vector=vector, metadata=metadata, rerank=rerank, explain=explain, total=total
        )


class Searcher:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        vector_db: VectorDB,
        images: ImageStore,
        decoder: PictureDecoder,
        fetcher: PictureFetcher,
        registry: IndexRegistry,
        reranking: Reranking,
    ) -> None:
        self._settings = settings
        self._database = database
        self._vector_db = vector_db
        self._images = images
        self.encoder = QueryEncoder(decoder, fetcher)
        self._registry = registry
        self._reranking = reranking
        self._shop_id: str | None = None
        self._threads = WorkPool("preparing-queries", threads=SEARCH_THREADS, max_waiting=settings.query_queue_size)
        self._query_vectors = QueryVectors(database, vector_db, images, self.encoder, self._threads)
        # Milvus Lite answers one call at a time; a server's next batch need not wait for this one.
        lanes, queue_size = 1 if settings.milvus_is_file else 4, settings.query_queue_size
        self._lookups = Lookups(database, vector_db, lanes=lanes, queue_size=queue_size)
        self._lexicon = Lexicon(settings.lexicon_file)
        words = LexicalSearch(database, self._lexicon)
        self._hybrid = HybridSearch(database, self._lookups, words, lanes=lanes, queue_size=queue_size)
        self._judge = Judge(database, vector_db, words, self._threads)
        self._explainer = Explainer(images, decoder)

    def of_shop(self, shop_id: str) -> Self:
        """It waits together with the others."""
        view = copy.copy(self)
        view._database, view._shop_id = self._database.of_shop(shop_id), shop_id
        view._query_vectors = self._query_vectors.of_shop(view._database)
        return view

    async def search(
        self, request: SearchRequest, image: bytes | None = None, *, is_stored: bool = False
    ) -> SearchResponse:
        """`image`: an upload, or a picture of ours. Raises InvalidInput without the one query that the mode needs."""
        require_one_query(request, image is not None)
        self._reranking.require_if(request.rerank)
        if request.offset > self._settings.search_max_offset:
            raise InvalidInput.in_field(
                "offset", f"is above {self._settings.search_max_offset}; refine the query instead"
            )
        watch, request = Stopwatch(), _as_of_now(request)
        index = await self._index_for(request)
        understood = await self._understood(request)
        query, vectors = await self._query_vectors.of(request, understood, image, is_stored, index)
        encode_ms = watch.lap_ms()
        found = await self._find(request, query, index, vectors, understood)
        metadata_ms = round(found.metadata_ms, 2)
        vector_ms = max(0.0, round(watch.lap_ms() - metadata_ms, 2))
        missing: list[SearchWay] = [WAYS[field] for field, vector in vectors.items() if not vector.size]
        if reranks(request):
            found = await self._reranked(understood.text, found, missing)
        rerank_ms = watch.lap_ms() if request.rerank else None
        judged, facets = await self._judged_and_counted(request, index, query, vectors, found)
        if request.is_judged or request.facets or request.group_by:
            metadata_ms = round(metadata_ms + watch.lap_ms(), 2)
        if request.explain and not await self._explainer.explain(request, vectors, index.encoding, found, judged.hits):
            missing.append("relevance_maps")
        explain_ms = watch.lap_ms() if request.explain else None
        return SearchResponse(
            mode=request.mode,
            hits=judged.hits,
            no_match=judged.no_match,
            facets=facets,
            as_of=request.as_of,
            understood=understood.as_answer,
            missing=missing,
            took_ms=watch.timings(encode_ms, vector_ms, metadata_ms, rerank_ms, explain_ms),
            index=IndexInfo(collection=index.collection, model=index.encoding.encoders.name),
        )

    async def _index_for(self, request: SearchRequest) -> ServedIndex:
        """The live one. Raises InvalidInput where it has no calibration for a `min_score`."""
        index = self._registry.known
        if index is None:
            index = await self._threads.run(self._registry.live)
        if request.is_judged:
            await self._judge.require_calibrated(request, index)
        return index

    async def _reranked(self, text: str, found: Found, missing: list[SearchWay]) -> Found:
        hits, is_done = await self._reranking.in_order(text, found.hits)
        if not is_done:
            missing.append("reranking")
        return replace(found, hits=hits)

    async def _understood(self, request: SearchRequest) -> Understanding:
        if needs_reading(request):
            return await self._threads.run(understand, request, self._lexicon)
        return Understanding(request.text or "")

    async def _find(
        self,
        request: SearchRequest,
        query: Query,
        index: LiveIndex,
        vectors: Mapping[VectorField, Vector],
        understood: Understanding,
    ) -> Found:
        lookups = [
            _as_lookup(request, query, index, field, vector, self._shop_id, understood.wishes)
            for field, vector in vectors.items()
        ]
        if request.is_fused:
            return await self._hybrid.find(HybridQuery(query.text or "", request.filters, lookups, understood.kind))
        return await self._lookups.find(lookups[0])

    async def _judged_and_counted(
        self,
        request: SearchRequest,
        index: ServedIndex,
        query: Query,
        vectors: Mapping[VectorField, Vector],
        found: Found,
    ) -> tuple[Judged, SearchFacets | None]:
        """As far as the request asks for it."""
        page = found.hits[request.offset :][: request.top_k]
        hits = [SearchHit(rank=rank, **hit._asdict()) for rank, hit in enumerate(page, start=request.offset + 1)]
        judged, facets = Judged(hits, None), None
        if request.is_judged:
            judged = await self._judge.judge(request, self._database, index, vectors, query.text, page, hits)
        if request.facets or request.group_by:
            facets = await self._threads.run(self._count, request, found, judged.hits)
        return judged, facets

    def _count(self, request: SearchRequest, found: Found, hits: Sequence[SearchHit]) -> SearchFacets | None:
        with self._database.read_at_length() as session:
            if request.group_by:
                sizes = group_sizes(session, [hit.product.product_id for hit in hits])
                for hit in hits:
                    hit.group_size = sizes.get(hit.product.product_id, 1)
            if not request.facets:
                return None
            counts = count_facets_among(session, found.candidates, request.facets)
        return SearchFacets(candidates=len(found.candidates), are_all=found.are_all, counts=counts)


def reranks(request: SearchRequest) -> bool:
    """Pages behind what is reranked are as they would be without."""
    return request.rerank and request.offset < RERANKED


def _as_of_now(request: SearchRequest) -> SearchRequest:
    """The first of folded pages leaves out what the next ones do."""
    if not request.fold or request.as_of is not None:
        return request
    return request.model_copy(update={"as_of": utc_now()})


def _candidates(request: SearchRequest) -> int:
    # By them a hit's rank is known, whatever lifts it; a fused search has the ranks of its ways.
    is_explained = request.explain and not request.is_fused
    return RELEVANT if request.facets or request.sort or request.boost or is_explained else 0


def _as_lookup(
    request: SearchRequest,
    query: Query,
    index: LiveIndex,
    field: VectorField,
    vector: Vector,
    shop_id: str | None,
    wishes: Wishes | None,
) -> Lookup:
    filters = request.filters
    expression = filter_expression(
        categories=filters.category,
        categories_not=filters.category_not,
        has_category=filters.has_category,
        attributes=filters.attributes,
        shop_id=shop_id,
    )
    prices = Prices(filters.price_min, filters.price_max, filters.has_price, tuple(filters.category))
    return Lookup(
        index,
        field,
        vector,
        expression,
        Showing(
            wanted=max(request.offset + request.top_k, RERANKED if reranks(request) else 0),
            candidates=_candidates(request),
            by_group=request.group_by is not None,
            folds=request.fold,
            sort=request.sort,
            boosting=Boosting.by(request.boost),
            wishes=wishes,
        ),
        without_product_ids=query.without_product_ids,
        prices=prices if filters.has_prices else None,
        exact=request.exact,
        shop_id=shop_id,
        as_of=request.as_of,
    )

"""What is searched for, and what was found so far. Nothing of Streamlit's."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

from data_models import (
    Facet,
    SearchFacets,
    SearchHit,
    SearchMode,
    SearchResponse,
    SearchSort,
    SearchTimings,
    Understood,
)
from web.client import ApiClient
from web.filters import NOTHING_CHOSEN, Chosen

DEFAULT_TOP_K = 20
CONNECTIONS = 4


@dataclass(frozen=True)
class Query:
    """What is searched for, and how: equal queries have equal answers."""

    mode: SearchMode
    text: str | None = None
    image: bytes | None = None
    product_id: int | None = None
    words: str = ""
    """Wanted beside the picture, or the product's."""
    top_k: int = DEFAULT_TOP_K
    chosen: Chosen = NOTHING_CHOSEN
    sort: SearchSort | None = None
    by_group: bool = False
    fold: bool = False

    @property
    def is_judged(self) -> bool:
        """Whether it may be said that nothing fits: of the nearest, and of what a text asks for."""
        return self.text is not None and self.sort is None


@dataclass
class Results:
    """The hits so far, over as many fetches as were asked for."""

    query: Query
    hits: list[SearchHit] = field(default_factory=list)
    took_ms: SearchTimings | None = None
    is_complete: bool = False
    facets: SearchFacets | None = None
    as_of: datetime | None = None
    """Of the first page, for the others."""
    understood: Understood | None = None
    nothing_fits: bool = False
    """None of the first page's hits, as far as the service can tell: without a calibration it can't."""

    def fetch(self, client: ApiClient, facets: Sequence[str]) -> None:
        response = self._fetch_page(client, facets, relevance=self.query.is_judged)
        self.nothing_fits = bool(response.no_match)
        assert response.facets is not None, "they were asked for"
        response.facets.counts.update(_without_their_own_filter(client, self.query))
        self.facets = response.facets

    def fetch_more(self, client: ApiClient) -> None:
        self._fetch_page(client, [])

    def _fetch_page(self, client: ApiClient, facets: Sequence[str], *, relevance: bool = False) -> SearchResponse:
        response = search(
            client,
            self.query,
            top_k=self.query.top_k,
            offset=len(self.hits),
            facets=facets,
            as_of=self.as_of,
            relevance=relevance,
        )
        self.as_of = response.as_of
        self.hits += response.hits
        self.took_ms = response.took_ms
        self.understood = response.understood
        self.is_complete = len(response.hits) < self.query.top_k
        return response


def search(
    client: ApiClient,
    query: Query,
    *,
    top_k: int,
    offset: int,
    facets: Sequence[str],
    as_of: datetime | None = None,
    relevance: bool = False,
    explain: bool = False,
) -> SearchResponse:
    return client.search(
        query.mode,
        text=query.text,
        image=query.image,
        product_id=query.product_id,
        words=query.words,
        top_k=top_k,
        offset=offset,
        filters=query.chosen.as_filters(),
        facets=facets,
        sort=query.sort,
        by_group=query.by_group,
        fold=query.fold,
        as_of=as_of,
        relevance=relevance,
        explain=explain,
    )


def _without_their_own_filter(client: ApiClient, query: Query) -> dict[str, Facet]:
    """Facets of which something is chosen, counted as if nothing were: so that what else there is can be added."""

    def count(name: str) -> Facet:
        wider = replace(query, chosen=query.chosen.without(name), sort=None, by_group=False, fold=False)
        found = search(client, wider, top_k=1, offset=0, facets=[name]).facets
        assert found is not None, "they were asked for"
        return found.counts[name]

    names = query.chosen.facets
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return dict(zip(names, pool.map(count, names), strict=True))

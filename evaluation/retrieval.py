"""A1 to A4 over a catalogue whose products a running service holds: how often the right product comes back.

Every figure is recall at k: the share of queries whose product is among the first k hits. A product with the very same
title counts as right wherever a title is asked or answered.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.table import Table

from clients.catalogue_import import CatalogueError, CatalogueItem, read_picture

SEARCHES_AT_ONCE = 4
TOP_K = 10


@dataclass(frozen=True)
class Trial:
    """One search and the skus and titles that it returned, best first."""

    measure: str
    item: CatalogueItem
    skus: Sequence[str]
    titles: Sequence[str]

    def found_within(self, k: int) -> bool:
        is_twin = self.measure in TITLE_MEASURES and self.item.title in self.titles[:k]
        return is_twin or self.item.sku in self.skus[:k]


@dataclass(frozen=True)
class Row:
    measure: str
    recall_at_1: float
    recall_at_10: float
    queries: int


OWN_PICTURE = "A1 own picture"
FURTHER_VIEW = "A1 further view"
OWN_TITLE = "A2 exact title"
PICTURE_TO_TITLE = "A3 picture → title"
VIEW_TO_TITLE = "A3 further view → title"
TITLE_TO_PICTURE = "A4 Chinese title → picture"
ENGLISH_TO_PICTURE = "A4 English title → picture"
MEASURES = (
    OWN_PICTURE,
    FURTHER_VIEW,
    OWN_TITLE,
    PICTURE_TO_TITLE,
    VIEW_TO_TITLE,
    TITLE_TO_PICTURE,
    ENGLISH_TO_PICTURE,
)
# A twin with the same title is as right an answer as the product itself.
TITLE_MEASURES = (OWN_TITLE, PICTURE_TO_TITLE, VIEW_TO_TITLE, TITLE_TO_PICTURE)


def evaluate_retrieval(
    client: httpx.Client, items: Sequence[CatalogueItem], views: Path, on_progress: Callable[[int], None]
) -> list[Row]:
    """Every search that the catalogue and the further views allow. Raises CatalogueError if one is refused."""
    trials: list[Trial] = []
    with ThreadPoolExecutor(SEARCHES_AT_ONCE) as pool:
        for done, of_item in enumerate(pool.map(lambda item: _trials(client, item, views), items), start=1):
            trials += of_item
            on_progress(done)
    return summarise(trials)


def summarise(trials: Iterable[Trial]) -> list[Row]:
    """A row for each measure that has any trial, in the order of MEASURES."""
    by_measure: dict[str, list[Trial]] = {}
    for trial in trials:
        by_measure.setdefault(trial.measure, []).append(trial)
    return [
        Row(measure, _recall(by_measure[measure], 1), _recall(by_measure[measure], TOP_K), len(by_measure[measure]))
        for measure in MEASURES
        if measure in by_measure
    ]


def render_table(rows: Iterable[Row]) -> Table:
    table = Table("", "first", f"in the top {TOP_K}", "queries")
    for row in rows:
        table.add_row(row.measure, f"{row.recall_at_1:.1%}", f"{row.recall_at_10:.1%}", str(row.queries))
    return table


def _recall(trials: Sequence[Trial], k: int) -> float:
    return Counter(trial.found_within(k) for trial in trials)[True] / len(trials)


def _trials(client: httpx.Client, item: CatalogueItem, views: Path) -> list[Trial]:
    own = read_picture(item)
    trials = [
        _search_by_image(client, OWN_PICTURE, item, "image_to_image", own),
        _search_by_image(client, PICTURE_TO_TITLE, item, "image_to_text", own),
        _search_by_text(client, OWN_TITLE, item, "text_to_text", item.title),
        _search_by_text(client, TITLE_TO_PICTURE, item, "text_to_image", item.title),
    ]
    if english := item.attributes.get("title_en"):
        trials.append(_search_by_text(client, ENGLISH_TO_PICTURE, item, "text_to_image", str(english)))
    for view in sorted(views.glob(f"{item.sku}_?.*")):
        picture = view.read_bytes()
        trials.append(_search_by_image(client, FURTHER_VIEW, item, "image_to_image", picture))
        trials.append(_search_by_image(client, VIEW_TO_TITLE, item, "image_to_text", picture))
    return trials


def _search_by_text(client: httpx.Client, measure: str, item: CatalogueItem, mode: str, text: str) -> Trial:
    return _as_trial(measure, item, client.post("/search", json={"mode": mode, "text": text, "top_k": TOP_K}))


def _search_by_image(client: httpx.Client, measure: str, item: CatalogueItem, mode: str, picture: bytes) -> Trial:
    fields = {"mode": mode, "top_k": str(TOP_K)}
    return _as_trial(measure, item, client.post("/search", data=fields, files={"image": ("query", picture)}))


def _as_trial(measure: str, item: CatalogueItem, response: httpx.Response) -> Trial:
    if not response.is_success:
        raise CatalogueError(f"The search for {item.sku} was refused: {response.status_code} {response.text[:300]}")
    products: list[dict[str, Any]] = [hit["product"] for hit in response.json()["hits"]]
    return Trial(measure, item, [product["sku"] for product in products], [product["title"] for product in products])

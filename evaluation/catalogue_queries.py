"""A1 to A4 of a catalogue that a service holds, without a query file: each product should be found by its own picture,
title, and further views. A product with the very same title is as right wherever a title is asked or answered.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from clients.catalogue_import import CatalogueItem
from evaluation.queries import Query

OWN_PICTURE = "A1 own picture"
FURTHER_VIEW = "A1 further view"
OWN_TITLE = "A2 exact title"
PICTURE_TO_TITLE = "A3 picture → title"
VIEW_TO_TITLE = "A3 further view → title"
TITLE_TO_PICTURE = "A4 Chinese title → picture"
ENGLISH_TO_PICTURE = "A4 English title → picture"


def queries_of(items: Sequence[CatalogueItem], of_all: Sequence[CatalogueItem], views: Path) -> list[Query]:
    """`of_all`: the catalogue that `items` are a sample of."""
    twins: dict[str, dict[str | int, int]] = defaultdict(dict)
    for item in of_all:
        twins[item.title][item.sku] = 1
    found = [query for item in items for query in _queries(item, twins[item.title], views)]
    return sorted(found, key=lambda query: query.category)


def _queries(item: CatalogueItem, twins: dict[str | int, int], views: Path) -> Iterator[Query]:
    itself: dict[str | int, int] = {item.sku: 1}

    def query(category: str, mode: str, relevant: dict[str | int, int], text: str) -> Query:
        return Query(f"{category}: {item.sku}", mode, relevant, text=text, category=category)

    def by_picture(category: str, mode: str, relevant: dict[str | int, int], picture: Path) -> Query:
        query_id = f"{category}: {picture.stem}" if picture != item.image else f"{category}: {item.sku}"
        return Query(query_id, mode, relevant, picture=picture.read_bytes, category=category)

    yield by_picture(OWN_PICTURE, "image_to_image", itself, item.image)
    yield by_picture(PICTURE_TO_TITLE, "image_to_text", twins, item.image)
    yield query(OWN_TITLE, "text_to_text", twins, item.title)
    yield query(TITLE_TO_PICTURE, "text_to_image", twins, item.title)
    if english := item.attributes.get("title_en"):
        yield query(ENGLISH_TO_PICTURE, "text_to_image", itself, str(english))
    for view in sorted(views.glob(f"{item.sku}_?.*")):
        yield by_picture(FURTHER_VIEW, "image_to_image", itself, view)
        yield by_picture(VIEW_TO_TITLE, "image_to_text", twins, view)

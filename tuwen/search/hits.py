"""What rows in Milvus are to a search: products, each by the picture that is nearest."""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

from data_models import Product, ProductImage
from orm_models import MAIN
from tuwen.catalogue.pictures import Picture, pictures_of
from tuwen.catalogue.queries import Group, groups_and_twins_of
from tuwen.catalogue.representation import as_product
from tuwen.database.engine import Database
from tuwen.vectors.bound_products import BoundColumns, counts_in, products_bound_to, products_with_binding
from vector_db import RowKey, VectorField

logger = logging.getLogger(__name__)

LOG_EVERY_S = 60.0


class ProductHit(NamedTuple):
    score: float
    product: Product
    image: ProductImage | None
    """The picture that matched, where it is still the product's."""
    boosted_score: float | None = None
    matched_words: Sequence[str] = ()
    """Of its title, where words were looked for."""
    rerank_score: float | None = None


class BoundRows(NamedTuple):
    """Whose rows, and how much of their products is wanted: all of it, or what candidates need."""

    vector_index_id: int
    as_candidates: bool
    shop_id: str | None
    """None: of all."""
    has_time: bool = False
    """Of candidates, too, when they were indexed."""

    @property
    def columns(self) -> BoundColumns:
        if not self.as_candidates:
            return "all"
        return "of candidates with time" if self.has_time else "of candidates"


@dataclass(eq=False)
class Bound:
    """What a row stands for."""

    row: RowKey
    columns: Any
    """As `products_bound_to` has them."""
    pictures: Sequence[Picture]
    """None of a candidate's."""

    @cached_property
    def product(self) -> Product:
        """Made for hits alone, which costs more than all else here. Raises what `as_product` does."""
        return as_product(self.columns, self.row.milvus_id, self.pictures)

    def counts_in(self, field: VectorField) -> bool:
        return counts_in(field, self.columns)

    def as_hit(self, score: float, field: VectorField) -> ProductHit:
        return ProductHit(score, self.product, self._image() if field == "image_clip_vector" else None)

    def _image(self) -> ProductImage | None:
        """By what the row was made of: pictures may stand in another order since."""
        matched, images = self.columns.row_image_sha256, self.product.images
        if matched is None and self.columns.image_position == MAIN:  # not known, or to be made anew
            return images[0]
        return next((image for image in images if image.image_id == matched), None)


class Nearest(NamedTuple):
    """A product by its nearest row."""

    product_id: int
    group: Group | None
    score: float
    bound: Bound
    hit: ProductHit | None = None
    """Of a candidate it is made once that is to be shown: a thousand of them took 80 ms, for ten on a page."""
    boosted_score: float | None = None
    twin_key: int | None = None

    def boosted(self, score: float) -> Self:
        return self._replace(boosted_score=score)


class HitMaker:
    """Makes products of rows, and leaves out what can't be read: others' hits don't suffer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._logged_at = -LOG_EVERY_S

    def bound_products(self, rows: Mapping[BoundRows, Collection[RowKey]]) -> dict[BoundRows, dict[RowKey, Bound]]:
        """Those of the rows that count."""
        bound: dict[BoundRows, dict[RowKey, Bound]] = {}
        for shop_id in {of.shop_id for of in rows}:
            with self._database.of_shop(shop_id).read() as session:
                for of in (each for each in rows if each.shop_id == shop_id):
                    found = products_bound_to(session, of.vector_index_id, rows[of], columns=of.columns)
                    pictures = {} if of.as_candidates else pictures_of(session, found.values())
                    bound[of] = {
                        row: Bound(row, each, pictures.get(each.product_id, ())) for row, each in found.items()
                    }
        return bound

    def hit(self, bound: Bound, score: float, field: VectorField) -> ProductHit | None:
        try:
            return bound.as_hit(score, field)
        except (ValueError, TypeError) as error:  # no columns that we would have written
            self._log_unreadable(bound.columns.product_id, error)
            return None

    def hits(self, of: BoundRows, field: VectorField, ordered: Sequence[Nearest], wanted: int) -> list[ProductHit]:
        """The first of these, as many as are wanted."""
        of = of._replace(as_candidates=False)
        made: list[ProductHit] = []
        waiting = list(ordered)
        while waiting and len(made) < wanted:
            some, waiting = waiting[: wanted - len(made)], waiting[wanted - len(made) :]
            rows = [each.bound.row for each in some if each.hit is None]
            whole = self.bound_products({of: rows})[of] if rows else {}
            for each in some:
                hit = each.hit
                if hit is None and each.bound.row in whole:  # else it has gone a moment ago
                    hit = self.hit(whole[each.bound.row], each.score, field)
                if hit is not None:
                    made.append(hit._replace(boosted_score=each.boosted_score))
        return made

    def products(self, of: BoundRows, product_ids: Sequence[int]) -> dict[int, Product]:
        """Bound or not: what words find is there before it has vectors."""
        with self._database.of_shop(of.shop_id).read() as session:
            found = products_with_binding(session, of.vector_index_id, product_ids)
            pictures = pictures_of(session, found)
        products = {}
        for columns in found:
            try:
                products[columns.product_id] = as_product(columns, columns.milvus_id, pictures[columns.product_id])
            except (ValueError, TypeError) as error:  # no columns that we would have written
                self._log_unreadable(columns.product_id, error)
        return products

    def groups(self, of: BoundRows, product_ids: Sequence[int]) -> dict[int, tuple[Group | None, int | None]]:
        """And twin keys."""
        with self._database.of_shop(of.shop_id).read() as session:
            return groups_and_twins_of(session, product_ids)

    def _log_unreadable(self, product_id: int, error: Exception) -> None:
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            logger.error(
                "Product %s is left out of searches, and maybe others: it can't be read: %s", product_id, error
            )

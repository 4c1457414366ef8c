"""What rows in Milvus are to a search: products, each by the picture that is nearest."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from data_models import Product, ProductImage
from orm_models import MAIN
from tuwen.catalogue.pictures import Picture, pictures_of
from tuwen.catalogue.representation import as_product
from tuwen.database.engine import Database
from tuwen.vectors.bound_products import counts_in, products_bound_to
from vector_db import RowKey, VectorField


class ProductHit(NamedTuple):
    score: float
    product: Product
    image: ProductImage | None
    """The picture that matched, where it is still the product's."""


@dataclass(frozen=True)
class Bound:
    """What a row stands for."""

    milvus_id: int
    columns: Any
    """As `products_bound_to` has them."""
    pictures: Sequence[Picture]

    @cached_property
    def product(self) -> Product:
        """Made for hits alone, which costs more than all else here. Raises what `as_product` does."""
        return as_product(self.columns, self.milvus_id, self.pictures)

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


def bound_products(database: Database, rows: Mapping[int, Collection[RowKey]]) -> dict[int, dict[RowKey, Bound]]:
    """By index, those of its rows that count."""
    bound: dict[int, dict[RowKey, Bound]] = {}
    with database.read() as session:
        for vector_index_id, of_index in rows.items():
            found = products_bound_to(session, vector_index_id, of_index)
            pictures = pictures_of(session, found.values())
            bound[vector_index_id] = {
                row: Bound(row.milvus_id, each, pictures[each.product_id]) for row, each in found.items()
            }
    return bound

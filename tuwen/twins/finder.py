"""Products with the same picture as one: by its bytes, by hashes, and by CLIP's vectors; compared by their sketches.

A hash misses some crops and marks, which a vector finds; and a vector takes two sofas for one, which sketches tell
apart.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import sqlalchemy as sa

from orm_models import ProductRow
from tuwen.catalogue.queries import load_products
from tuwen.catalogue.twins import MOST_SHOWN, Found, same_as, sketches_of, write_sketch
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import NotFound, PictureUnreadable
from tuwen.pictures.resemblance import sketch_of
from tuwen.pictures.store import ImageStore
from tuwen.pictures.thumbnails import thumbnail_path
from tuwen.vectors.binding import bound_rows, made_of
from tuwen.vectors.registry import IndexRegistry, LiveIndex
from vector_db import RowKey, VectorDB, VectorField, filter_expression

NEIGHBOURS = 16  # by their vectors
# Of copies of the demo catalogue's pictures 94 in 100 have at least this cosine with the original, by demo-clip-2
# (saved anew and cropped all, scaled 95, marked 80); of other products that are shown in the same way, such as
# cupboards of one series, three in ten, which sketches alone took for one.
LEAST_COSINE = 0.85
FIELD: VectorField = "image_clip_vector"


class DuplicateFinder:
    """All of it blocks."""

    def __init__(self, database: Database, vector_db: VectorDB, images: ImageStore, registry: IndexRegistry) -> None:
        self._database = database
        self._vector_db = vector_db
        self._images = images
        self._registry = registry

    def of_shop(self, shop_id: str) -> Self:
        return type(self)(self._database.of_shop(shop_id), self._vector_db, self._images, self._registry)

    def find_one(self, product_id: int) -> list[Found]:
        """Raises NotFound, VectorDBUnavailable and others."""
        with self._database.read() as session:
            if not load_products(session, [product_id]):
                raise NotFound(f"There is no product {product_id}.")
        found = self.find([product_id])
        return found[0][1] if found else []

    def find(self, product_ids: Sequence[int]) -> list[tuple[ProductRow, list[Found]]]:
        """Of those that are there, others of their own shop with the same picture, the nearest first."""
        with self._database.read() as session:
            products = load_products(session, product_ids)
        self._make_sketches(products)
        index = self._registry.live()
        vectors = self._vectors(index, products)
        neighbours = self._neighbours(index, products, vectors)
        with self._database.read() as session:
            found = [
                (product, same_as(session, product, also=neighbours.get(product.product_id, {}).keys()))
                for product in products
            ]
        return self._with_vectors(index, found, vectors, neighbours)

    def _make_sketches(self, products: Sequence[ProductRow]) -> None:
        """For those without one, of their thumbnails. Where that is gone or broken none is made: the picture is told
        by its bytes alone."""
        with self._database.read() as session:
            present = sketches_of(session, [each.product_id for each in products])
        made: dict[int, tuple[str, bytes]] = {}
        for product in products:
            if product.product_id not in present:
                sketch = self._sketch(product)
                if sketch is not None:
                    made[product.product_id] = product.image_sha256, sketch
        if not made:
            return
        with self._database.write() as session:
            mine = sa.select(ProductRow).where(ProductRow.product_id.in_(made)).order_by(ProductRow.product_id)
            rows = session.scalars(mine.with_for_update()).all()
            present = sketches_of(session, list(made))
            for row in rows:
                sha256, sketch = made[row.product_id]
                if row.image_sha256 == sha256 and row.product_id not in present:
                    write_sketch(session, row, sketch)

    def _sketch(self, product: ProductRow) -> bytes | None:
        try:
            return sketch_of(self._images.read(thumbnail_path(product.image_path)))
        except PictureUnreadable:
            self._images.check()  # raises where the whole store is away: then all of them wait
        except (NotFound, OSError, ValueError):  # Pillow's errors of a file that was cut off are of these
            pass
        return None

    def _vectors(self, index: LiveIndex, products: Sequence[ProductRow]) -> dict[int, Vector]:
        """CLIP's of the main picture as it is now, where there is one."""
        pictures = {each.product_id: each.image_sha256 for each in products}
        with self._database.read() as session:
            made = made_of(session, index.vector_index_id, list(pictures))
        rows = [each.row for of in made.values() for each in of if each.image_sha256 == pictures[each.row.product_id]]
        stored = self._vector_db.stored_vectors(index.collection, [FIELD], rows) if rows else {}
        return {row.product_id: vectors[FIELD] for row, vectors in stored.items()}

    def _neighbours(
        self, index: LiveIndex, products: Sequence[ProductRow], vectors: Mapping[int, Vector]
    ) -> dict[int, dict[int, float]]:
        """By product, the nearest of its shop, each with its cosine."""
        nearest: dict[int, dict[RowKey, float]] = {}
        for shop_id in {each.shop_id for each in products}:
            mine = [each.product_id for each in products if each.shop_id == shop_id and each.product_id in vectors]
            if not mine:
                continue
            hits = self._vector_db.search(
                index.collection,
                FIELD,
                [vectors[product_id] for product_id in mine],
                limit=NEIGHBOURS,
                filter_expression=filter_expression(shop_id=shop_id),
            )
            for product_id, of in zip(mine, hits, strict=True):
                nearest[product_id] = {hit.row: hit.score for hit in of if hit.row.product_id != product_id}
        with self._database.read() as session:
            bound = bound_rows(session, index.vector_index_id, {row for of in nearest.values() for row in of})
        return {
            product_id: {row.product_id: score for row, score in of.items() if row in bound}
            for product_id, of in nearest.items()
        }

    def _with_vectors(
        self,
        index: LiveIndex,
        found: Sequence[tuple[ProductRow, list[Found]]],
        vectors: Mapping[int, Vector],
        neighbours: Mapping[int, Mapping[int, float]],
    ) -> list[tuple[ProductRow, list[Found]]]:
        """Those that are shown, with their cosines, and without those that vectors tell apart."""
        others = {each.product_id for _, of in found for each in of[:MOST_SHOWN]} - vectors.keys()
        with self._database.read() as session:
            further = self._vectors(index, load_products(session, others)) if others else {}
        known = {**vectors, **further}

        def with_cosine(product_id: int, each: Found) -> Found:
            if product_id not in known or each.product_id not in known:
                return each
            cosine = float(known[product_id] @ known[each.product_id])
            return each._replace(vector_similarity=round(cosine, 4))

        return [
            (product, [each for other in of if _is_one(each := with_cosine(product.product_id, other))])
            for product, of in found
        ]


def _is_one(found: Found) -> bool:
    return found.is_same_file or found.vector_similarity is None or found.vector_similarity >= LEAST_COSINE

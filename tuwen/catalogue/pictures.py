"""A product's pictures, in order: the main one stands in the product's row, further ones in rows of their own.

Never commits: the caller's `Database.write()` block is the transaction.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import MAX_IMAGES
from orm_models import MAIN, ProductImageRow, ProductRow
from tuwen.errors import InvalidInput, NotFound
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.store import ImageStore


class Picture(NamedTuple):
    """As the columns of both tables have it."""

    image_path: str
    image_sha256: str
    image_width: int
    image_height: int
    image_is_generated: bool

    @classmethod
    def of(cls, row: ProductRow | ProductImageRow | sa.Row[Any]) -> Self:
        return cls(*(getattr(row, name) for name in cls._fields))

    @classmethod
    def stored(cls, images: ImageStore, image: CheckedImage) -> Self:
        """As it is, or will be, in the store."""
        return cls(images.path_of(image), image.sha256, image.width, image.height, image.is_generated)


def pictures_of(
    session: orm.Session, products: Collection[ProductRow] | Collection[sa.Row[Any]]
) -> dict[int, list[Picture]]:
    """By product, the main one first. Asks nothing where all of them have one alone."""
    pictures = {product.product_id: [Picture.of(product)] for product in products}
    several = [product.product_id for product in products if product.image_count > 1]
    if several:
        columns = ProductImageRow.product_id, *(getattr(ProductImageRow, name) for name in Picture._fields)
        statement = sa.select(*columns).where(ProductImageRow.product_id.in_(several))
        for product_id, *picture in session.execute(
            statement.order_by(ProductImageRow.product_id, ProductImageRow.position)
        ):
            pictures[product_id].append(Picture(*picture))
    return pictures


def write_further_pictures(session: orm.Session, row: ProductRow, further: Sequence[Picture]) -> bool:
    """Of a product whose row is locked, or new. Returns whether they are others than they were."""
    if not further and row.image_count == 1:
        return False
    _, *before = pictures_of(session, [row])[row.product_id]
    if before == list(further):
        return False
    mine = ProductImageRow.product_id == row.product_id
    session.execute(sa.delete(ProductImageRow).where(mine).execution_options(synchronize_session=False))
    rows = [
        {"product_id": row.product_id, "position": position, **picture._asdict()}
        for position, picture in enumerate(further, start=MAIN + 1)
    ]
    if rows:
        session.execute(sa.insert(ProductImageRow), rows)
    row.image_count = MAIN + len(rows)
    return True


# --- What a caller may have of them: from its pictures to those that it shall have -----------------------------------


def with_picture(pictures: Sequence[Picture], new: Picture, position: int | None) -> list[Picture]:
    """At the end, or before the one that has this position."""
    if any(picture.image_sha256 == new.image_sha256 for picture in pictures):
        raise InvalidInput.in_field("image", "is the same picture as another of the product; send each once")
    if len(pictures) >= MAX_IMAGES:
        raise InvalidInput.in_field("image", f"is one too many: a product has {MAX_IMAGES} pictures at most")
    index = len(pictures) if position is None else position - MAIN
    return [*pictures[:index], new, *pictures[index:]]


def without_picture(pictures: Sequence[Picture], product_id: int, image_id: str) -> list[Picture]:
    left = [picture for picture in pictures if picture.image_sha256 != image_id]
    if len(left) == len(pictures):
        raise NotFound(f"Product {product_id} has no picture {image_id}.")
    if not left:
        raise InvalidInput.in_field("image_id", "is the only picture, and each product needs one; send another first")
    return left


def in_order(pictures: Sequence[Picture], image_ids: Sequence[str]) -> list[Picture]:
    known = {picture.image_sha256: picture for picture in pictures}
    if len(image_ids) != len(pictures) or set(image_ids) != set(known):
        raise InvalidInput.in_field("image_ids", "must name each picture of the product once")
    return [known[image_id] for image_id in image_ids]


def require_distinct(sha256s: Sequence[str]) -> None:
    if len(set(sha256s)) < len(sha256s):
        raise InvalidInput.in_field("images", "is the same picture as another of the product; send each once")

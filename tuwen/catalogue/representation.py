"""How a product looks to a caller."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from data_models import Product, ProductImage
from orm_models import MAIN, ProductRow
from tuwen.catalogue.pictures import Picture
from tuwen.pictures.thumbnails import shown_path, thumbnail_path

COLUMNS = [name for name in Product.model_fields if hasattr(ProductRow, name)]


def as_product(row: ProductRow | sa.Row[Any], milvus_id: int | None, pictures: Sequence[Picture]) -> Product:
    """`row`: the product, or its columns by name. `milvus_id`: the main picture's, bound in the live index. `pictures`:
    all of them, the main one first."""
    columns = {name: getattr(row, name) for name in COLUMNS}
    return Product(
        **columns,
        milvus_id=milvus_id,
        image_url=image_url(shown_path(row.image_path)),
        thumbnail_url=image_url(thumbnail_path(row.image_path)),
        images=[_as_image(position, picture) for position, picture in enumerate(pictures, start=MAIN)],
    )


def _as_image(position: int, picture: Picture) -> ProductImage:
    return ProductImage(
        image_id=picture.image_sha256,
        position=position,
        image_url=image_url(shown_path(picture.image_path)),
        thumbnail_url=image_url(thumbnail_path(picture.image_path)),
        width=picture.image_width,
        height=picture.image_height,
        is_generated=picture.image_is_generated,
    )


def image_url(path: str) -> str:
    """Of a file in the picture store, as the API serves it."""
    return f"/images/{path}"

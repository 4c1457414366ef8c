"""How a product looks to a caller."""

from typing import Any

import sqlalchemy as sa

from data_models import Product
from orm_models import ProductRow
from tuwen.pictures.thumbnails import shown_path, thumbnail_path

COLUMNS = [name for name in Product.model_fields if hasattr(ProductRow, name)]


def as_product(row: ProductRow | sa.Row[Any], milvus_id: int | None) -> Product:
    """`row`: the product, or its columns by name. `milvus_id`: the one that it has bound in the live index."""
    columns = {name: getattr(row, name) for name in COLUMNS}
    return Product(
        **columns,
        milvus_id=milvus_id,
        image_url=image_url(shown_path(row.image_path)),
        thumbnail_url=image_url(thumbnail_path(row.image_path)),
    )


def image_url(path: str) -> str:
    """Of a file in the picture store, as the API serves it."""
    return f"/images/{path}"

"""The picture store of this database's products, which it is told from another one by."""

from collections.abc import Sequence

import sqlalchemy as sa

from orm_models import GeneratedImageRow, ProductImageRow, ProductRow
from tuwen.database.engine import Database
from tuwen.pictures.store import ImageStore, sha256_in
from tuwen.settings import Settings

SOME = 10


def open_image_store(settings: Settings, database: Database) -> ImageStore:
    """Raises ConfigurationError, or DatabaseUnavailable."""

    def named_paths() -> Sequence[str]:
        """Of the oldest and of the newest: a few of them may be lost in the right store, too."""
        columns = (
            (ProductRow.product_id, ProductRow.image_path),
            (GeneratedImageRow.job_id, GeneratedImageRow.image_path),
        )
        with database.read() as session:
            return [
                path
                for number, image_path in columns
                for order in (number, number.desc())
                for path in session.scalars(sa.select(image_path).order_by(order).limit(SOME))
            ]

    return ImageStore(settings, database.installation_id(), named_paths)


def pictures_of_shop(images: ImageStore, database: Database) -> ImageStore:
    """Those that the products of this database's shop have, or that were drawn for it; others' may be the same."""

    def has(path: str) -> bool:
        with database.read() as session:
            return any(
                session.scalar(sa.select(sa.exists().where(row.image_sha256 == sha256_in(path))))
                for row in (ProductRow, ProductImageRow, GeneratedImageRow)
            )

    return images.narrowed(has)

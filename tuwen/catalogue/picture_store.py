"""The picture store of this database's products, which it is told from another one by."""

from collections.abc import Sequence

import sqlalchemy as sa

from orm_models import GeneratedImageRow, ProductRow
from tuwen.database.engine import Database
from tuwen.pictures.store import ImageStore
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

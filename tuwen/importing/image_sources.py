"""Pictures that imports have fetched from addresses, and what their hosts know them by: asked with that, a host sends
only what is another by now.

Nothing here says what a product has: a source counts only where the product has that very picture. Never commits: the
caller's `Database.write()` block is the transaction.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import ImageSourceRow, utc_now
from tuwen.database.engine import Database
from tuwen.importing.rows import ImportRow
from tuwen.pictures.download import Validators

KEPT_FOR, USED_EACH = timedelta(days=180), timedelta(days=1)
DELETED_AT_ONCE = 1000


class ImageSource(NamedTuple):
    image_sha256: str
    """As it is stored."""
    validators: Validators


def is_address(image: str) -> bool:
    return "://" in image


def find_sources(session: orm.Session, rows: Iterable[ImportRow]) -> dict[str, ImageSource]:
    """By address."""
    keys = _keys_of(rows)
    if not keys:
        return {}
    found = session.scalars(sa.select(ImageSourceRow).where(ImageSourceRow.url_sha256.in_(keys)))
    return {
        keys[row.url_sha256]: ImageSource(row.image_sha256, Validators(row.etag, row.last_modified)) for row in found
    }


def write_sources(session: orm.Session, rows: Iterable[ImportRow], new: Mapping[str, ImageSource]) -> None:
    """`rows`: what they name stays in use. `new`: by address, what was fetched."""
    keys = _keys_of(rows)
    if not keys:
        return
    mine = ImageSourceRow.url_sha256
    if new:
        # In one order for all: two imports can't deadlock.
        by_key = dict(sorted((_key_of(address), source) for address, source in new.items()))
        session.execute(sa.delete(ImageSourceRow).where(mine.in_(by_key)))
        values = [
            {"url_sha256": key, "image_sha256": source.image_sha256, **source.validators._asdict()}
            for key, source in by_key.items()
        ]
        session.execute(sa.insert(ImageSourceRow), values)
    unused = mine.in_(keys), ImageSourceRow.used_at < utc_now() - USED_EACH
    used = sa.update(ImageSourceRow).where(*unused).values(used_at=utc_now())
    session.execute(used.execution_options(synchronize_session=False))


def delete_unused_sources(database: Database) -> None:
    """A bounded part at a time."""
    while True:
        with database.write() as session:
            unused = sa.select(ImageSourceRow.url_sha256).where(ImageSourceRow.used_at < utc_now() - KEPT_FOR)
            keys = list(session.scalars(unused.order_by(ImageSourceRow.used_at).limit(DELETED_AT_ONCE)))
            session.execute(sa.delete(ImageSourceRow).where(ImageSourceRow.url_sha256.in_(keys)))
        if len(keys) < DELETED_AT_ONCE:
            return


def _keys_of(rows: Iterable[ImportRow]) -> dict[str, str]:
    """Key → address, of all that these rows name."""
    return {_key_of(image): image for row in rows for image in row.images if is_address(image)}


def _key_of(address: str) -> str:
    """Of one length, whatever an address has; and it may have a password in it."""
    return hashlib.sha256(address.encode()).hexdigest()

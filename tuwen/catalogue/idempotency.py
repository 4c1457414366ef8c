"""A request to create that comes twice makes one product: its key stands beside the product, of one transaction.

There are no more keys than products that were created within the time for which they are kept. Never commits: the
caller's `Database.write()` block is the transaction.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import DEFAULT_SHOP, ProductFields
from orm_models import IdempotencyKeyRow, utc_now
from tuwen.database.shops import home_shop
from tuwen.errors import IdempotencyKeyUsed
from tuwen.pictures.checked_image import CheckedImage

KEEP_KEYS = timedelta(hours=24)


class KeyedRequest(NamedTuple):
    key: str
    sha256: str
    """Of what it asks for, however it was written."""

    @classmethod
    def of(cls, key: str, fields: ProductFields, image: CheckedImage, further: Sequence[CheckedImage] = ()) -> Self:
        pictures = [each.received_sha256 for each in (image, *further)]
        later = {"group_id"} - fields.model_fields_set  # so that keys of before there was one stay
        asked = json.dumps([fields.model_dump(mode="json", exclude=later), *pictures], sort_keys=True)
        return cls(key, hashlib.sha256(asked.encode()).hexdigest())


def made_before(session: orm.Session, request: KeyedRequest) -> int | None:
    """The product that this request has made. Raises IdempotencyKeyUsed where another one has the key."""
    row = session.get(IdempotencyKeyRow, _stored(session, request))
    if row is None or row.created_at < utc_now() - KEEP_KEYS:
        return None
    if row.request_sha256 != request.sha256:
        raise IdempotencyKeyUsed("Another request had this Idempotency-Key; give each a key of its own.")
    return row.product_id


def remember(session: orm.Session, request: KeyedRequest, product_id: int) -> None:
    """Raises IntegrityError at the next flush where the same request was quicker."""
    key = _stored(session, request)
    expired = IdempotencyKeyRow.idempotency_key == key, IdempotencyKeyRow.created_at < utc_now() - KEEP_KEYS
    session.execute(sa.delete(IdempotencyKeyRow).where(*expired))
    session.add(IdempotencyKeyRow(idempotency_key=key, request_sha256=request.sha256, product_id=product_id))


def _stored(session: orm.Session, request: KeyedRequest) -> str:
    """Each shop's keys are its own. The first character is one that no key of a caller's has."""
    shop_id = home_shop(session)
    if shop_id == DEFAULT_SHOP:
        return request.key
    return "\n" + hashlib.sha256(f"{shop_id}\n{request.key}".encode()).hexdigest()


def delete_keys_before(session: orm.Session, moment: datetime, limit: int) -> int:
    """Some of them, the oldest first; returns how many."""
    old = sa.select(IdempotencyKeyRow.idempotency_key).where(IdempotencyKeyRow.created_at < moment)
    keys = list(session.scalars(old.order_by(IdempotencyKeyRow.created_at).limit(limit)))
    session.execute(sa.delete(IdempotencyKeyRow).where(IdempotencyKeyRow.idempotency_key.in_(keys)))
    return len(keys)

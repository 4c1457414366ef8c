"""What a change of a product costs: nothing where it says what is there already, and indexing only where the product's
row in Milvus is made of it.

Never commits: the caller's `Database.write()` block is the transaction.
"""

import json
from collections.abc import Mapping

from sqlalchemy import orm

from orm_models import ProductRow, utc_now
from tuwen.messaging.outbox import add_product_event

# What the row in Milvus is made of; of the picture, its bytes. All else is read from the database alone.
CONTENT = frozenset({"title", "image_sha256", "category", "attributes"})


def apply_changes(session: orm.Session, row: ProductRow, values: Mapping[str, object], topic: str) -> bool:
    """Of a product whose row is locked. Returns whether anything is another than it was."""
    changed = {name: value for name, value in values.items() if _differs(getattr(row, name), value)}
    for name, value in changed.items():
        setattr(row, name, value)
    if changed:
        row.version += 1
        row.updated_at = utc_now()
    is_tried_again = row.index_status == "failed" and values.keys() & CONTENT
    if changed.keys() & CONTENT:
        row.content_version, row.queued_at = row.version, None
    elif is_tried_again or "image_sha256" in values:
        row.queued_at = utc_now()  # by which whoever looks for lost pictures sees that this one is back
    if changed.keys() & CONTENT or is_tried_again:
        row.index_status, row.index_error = "pending", None
    # Also of a product that waits: if its event is lost, reconciliation counts from the last change.
    if row.index_status == "pending" and (changed or values.keys() & CONTENT):
        add_product_event(session, topic, row, "upsert")
    return bool(changed)


def _differs(before: object, after: object) -> bool:
    if isinstance(after, dict):  # to Python True is 1, also in a dict
        return json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True)
    return before != after

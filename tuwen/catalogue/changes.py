"""What a change of a product costs: nothing where it says what is there already, and indexing only where the product's
row in Milvus is made of it.

Never commits: the caller's `Database.write()` block is the transaction.
"""

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import orm

from orm_models import ProductRow, utc_now
from tuwen.catalogue.pictures import Picture, pictures_of, require_distinct, write_further_pictures
from tuwen.catalogue.terms import OF_TERMS, write_terms
from tuwen.catalogue.twins import forget_picture
from tuwen.messaging.outbox import add_product_event

# What the row in Milvus is made of; of the picture, its bytes. All else is read from the database alone.
CONTENT = frozenset({"title", "image_sha256", "category", "attributes"})


def apply_changes(
    session: orm.Session,
    row: ProductRow,
    values: Mapping[str, object],
    topic: str,
    further: Sequence[Picture] | None = None,
) -> bool:
    """Of a product whose row is locked. Returns whether anything is another than it was.

    `further`: the pictures behind the main one; None: they stay, but for one that becomes the main one.
    """
    has_other_pictures = _change_further(session, row, values, further)
    changed = {name: value for name, value in values.items() if _differs(getattr(row, name), value)}
    for name, value in changed.items():
        setattr(row, name, value)
    if changed.keys() & OF_TERMS:
        write_terms(session, [row])
    if "image_sha256" in changed:
        forget_picture(session, row)
    is_another = bool(changed) or has_other_pictures
    if is_another:
        row.version += 1
        row.updated_at = utc_now()
    has_other_content = bool(changed.keys() & CONTENT) or has_other_pictures
    names_content = bool(values.keys() & CONTENT) or further is not None
    is_tried_again = row.index_status == "failed" and names_content
    if has_other_content:
        row.content_version, row.queued_at = row.version, None
    elif is_tried_again or "image_sha256" in values or further is not None:
        row.queued_at = utc_now()  # by which whoever looks for lost pictures sees that this one is back
    if has_other_content or is_tried_again:
        row.index_status, row.index_error = "pending", None
    # Also of a product that waits: if its event is lost, reconciliation counts from the last change.
    if row.index_status == "pending" and (is_another or names_content):
        add_product_event(session, topic, row, "upsert")
    return is_another


def _change_further(
    session: orm.Session, row: ProductRow, values: Mapping[str, object], further: Sequence[Picture] | None
) -> bool:
    main = values.get("image_sha256", row.image_sha256)
    if further is not None:
        require_distinct([str(main), *(picture.image_sha256 for picture in further)])
    elif row.image_count > 1 and main != row.image_sha256:
        _, *before = pictures_of(session, [row])[row.product_id]
        further = [picture for picture in before if picture.image_sha256 != main]
    return further is not None and write_further_pictures(session, row, further)


def _differs(before: object, after: object) -> bool:
    if isinstance(after, dict):  # to Python True is 1, also in a dict
        return json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True)
    return before != after

"""Products of one shop whose main picture is the same: found by its bytes and by sketches, and told by one number,
their twin key, which is what searches fold them by.

A key is the id of the oldest of them when they were found. Whose picture becomes another gets a key that no other has:
those that are named after it stay together. Never commits: the caller's `Database.write()` block is the transaction.
"""

import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import sqlalchemy as sa
from sqlalchemy import orm

from data_models import Duplicate
from orm_models import InstallationRow, ProductRow, ProductSketchRow
from tuwen.catalogue.representation import image_url
from tuwen.database.shops import IsOfShop
from tuwen.errors import DuplicatePicture, FieldError, summary
from tuwen.pictures.resemblance import (
    ALIKE,
    BANDS,
    bands_of,
    bands_to_look_for,
    fields_apart,
    fields_of,
    similarities,
)
from tuwen.pictures.thumbnails import thumbnail_path

VERSION = 1
"""Products that were compared by another are compared anew."""
MOST_TWINS = 50
"""A picture that more products have says nothing of them, such as one that says that there is none yet."""
MOST_SHOWN = 20
# Of each band; and of these those that are compared by their sketches, about a millisecond each.
MOST_OF_BAND, MOST_COMPARED = 500, 8
FURTHEST_APART = 35.0  # in grey levels; a tenth of each side moves colours by 29 at most in the demo catalogue
KEY_BITS = 62
_SKETCH = cast("sa.Table", ProductSketchRow.__table__)
_BAND_COLUMNS = [_SKETCH.c[f"band_{band}"] for band in range(BANDS)]


class Found(NamedTuple):
    product_id: int
    similarity: float
    """From `ALIKE` to 1."""
    is_same_file: bool
    image_sha256: str
    """Of the picture that was compared; it may have another since."""
    vector_similarity: float | None = None
    """Cosine of CLIP's vectors, where both have one."""


def _in_band(number: int, of: str) -> sa.Subquery:
    """The same number in this band: `of` the picture itself, or of a crop."""
    is_same = _BAND_COLUMNS[number].in_(sa.bindparam(f"{of}_{number}", expanding=True))
    of_shop = IsOfShop(_SKETCH.c.shop_id, sa.bindparam("shop_id", type_=sa.String()))
    return sa.select(_SKETCH.c.product_id, _SKETCH.c.fields).where(is_same, of_shop).limit(MOST_OF_BAND).subquery()


_IN_ANY_BAND = sa.union_all(*(sa.select(_in_band(number, of)) for of in ("own", "cropped") for number in range(BANDS)))


def find_same(
    session: orm.Session,
    shop_id: str,
    image_sha256: str,
    sketch: bytes | None,
    *,
    without: int | None = None,
    also: Collection[int] = (),
) -> list[Found]:
    """Products of that shop with this picture, those with the very file first, at most MOST_TWINS and one more of
    these. `also`: which are compared, too, whatever their hashes are."""
    is_same_file = ProductRow.image_sha256 == image_sha256, ProductRow.product_id != (without or 0)
    of_shop = IsOfShop(ProductRow.shop_id, sa.literal(shop_id))
    statement = sa.select(ProductRow.product_id).where(*is_same_file, of_shop).order_by(ProductRow.product_id)
    found = [
        Found(product_id, 1.0, True, image_sha256) for product_id in session.scalars(statement.limit(MOST_TWINS + 1))
    ]
    if sketch is None or len(found) > MOST_TWINS:
        return found
    seen = {each.product_id for each in found} | {without}
    candidates = [each for each in {*_candidates(session, shop_id, sketch), *also} if each not in seen]
    sketches = _sketches(session, shop_id, candidates)
    compared = zip(sketches, similarities(sketch, [each.sketch for each in sketches]), strict=True)
    alike = [
        Found(each.product_id, similarity, False, each.image_sha256)
        for each, similarity in compared
        if similarity >= ALIKE
    ]
    return found + sorted(alike, key=lambda each: (-each.similarity, each.product_id))


def _candidates(session: orm.Session, shop_id: str, sketch: bytes) -> list[int]:
    """Whose hash has a band in common, the nearest ones."""
    wanted = bands_to_look_for(sketch)
    asked: dict[str, Any] = {"shop_id": shop_id}
    for number, own in enumerate(bands_of(sketch)):
        asked |= {f"own_{number}": [own], f"cropped_{number}": np.unique(wanted[:, number]).tolist()}
    rows: dict[int, bytes] = dict(session.connection().execute(_IN_ANY_BAND, asked).all())
    if not rows:
        return []
    apart, product_ids = fields_apart(fields_of(sketch), list(rows.values())), list(rows)
    nearest = np.argsort(apart, kind="stable")[:MOST_COMPARED]
    return [product_ids[each] for each in nearest if apart[each] <= FURTHEST_APART]


def _sketches(session: orm.Session, shop_id: str, product_ids: Collection[int]) -> Sequence[sa.Row[int, bytes, str]]:
    """`product_id`, `sketch`, `image_sha256`."""
    if not product_ids:
        return []
    columns = sa.select(ProductSketchRow.product_id, ProductSketchRow.sketch, ProductRow.image_sha256)
    columns = columns.join(ProductRow, ProductRow.product_id == ProductSketchRow.product_id)
    mine = ProductSketchRow.product_id.in_(product_ids), ProductSketchRow.shop_id == shop_id
    return session.execute(columns.where(*mine).order_by(ProductSketchRow.product_id)).all()


def same_as(session: orm.Session, product: ProductRow, also: Collection[int] = ()) -> list[Found]:
    """Others with its picture."""
    sketch = sketches_of(session, [product.product_id]).get(product.product_id)
    return find_same(session, product.shop_id, product.image_sha256, sketch, without=product.product_id, also=also)


def require_none(found: Sequence[Found]) -> None:
    """Raises DuplicatePicture, which names the first of them."""
    if found:
        wrong = [FieldError("image", f"is the picture of product {each.product_id}") for each in found[:MOST_SHOWN]]
        raise DuplicatePicture(summary(wrong), wrong)


def sketches_of(session: orm.Session, product_ids: Collection[int]) -> dict[int, bytes]:
    statement = sa.select(ProductSketchRow.product_id, ProductSketchRow.sketch)
    return dict(session.execute(statement.where(ProductSketchRow.product_id.in_(product_ids))).all())


def as_duplicates(session: orm.Session, found: Sequence[Found]) -> list[Duplicate]:
    """For callers, MOST_SHOWN at most."""
    shown = found[:MOST_SHOWN]
    if not shown:
        return []
    columns = ProductRow.product_id, ProductRow.sku, ProductRow.title, ProductRow.image_path
    statement = sa.select(*columns).where(ProductRow.product_id.in_([each.product_id for each in shown]))
    rows = {row.product_id: row for row in session.execute(statement)}
    return [
        Duplicate(
            product_id=each.product_id,
            sku=rows[each.product_id].sku,
            title=rows[each.product_id].title,
            thumbnail_url=image_url(thumbnail_path(rows[each.product_id].image_path)),
            kind="same_file" if each.is_same_file else "same_picture",
            similarity=each.similarity,
            vector_similarity=each.vector_similarity,
        )
        for each in shown
        if each.product_id in rows
    ]


def one_at_a_time(session: orm.Session) -> None:
    """Until the transaction ends: of two that would be refused for each other's sake one must come first."""
    session.execute(sa.select(InstallationRow.installation_id).with_for_update())


def write_sketch(session: orm.Session, product: ProductRow, sketch: bytes) -> None:
    """Of a product that has none, and whose row is locked, or new and flushed."""
    bands = {f"band_{number}": band for number, band in enumerate(bands_of(sketch))}
    row = {"product_id": product.product_id, "shop_id": product.shop_id, "fields": fields_of(sketch), **bands}
    session.connection().execute(sa.insert(_SKETCH), row | {"sketch": sketch})


def forget_picture(session: orm.Session, product: ProductRow) -> None:
    """Of a product whose row is locked, and whose main picture becomes another."""
    mine = ProductSketchRow.product_id == product.product_id
    session.execute(sa.delete(ProductSketchRow).where(mine).execution_options(synchronize_session=False))
    product.sketch_version, product.twin_id = 0, _key_of_none()


def twin_key(session: orm.Session, found: Sequence[Found]) -> int | None:
    """Of a new product with the picture of these; None: its own id."""
    if not found or len(found) > MOST_TWINS:
        return None
    oldest = min(found, key=lambda each: each.product_id)
    row = session.execute(_keys_of([oldest.product_id])).first()
    return (row.twin_id or row.product_id) if row and row.image_sha256 == oldest.image_sha256 else None


def settle(session: orm.Session, product_id: int, image_sha256: str, found: Sequence[Found]) -> None:
    """A product was compared with all others, when it had that picture: it and these have one key from now on, unless
    a picture is another since."""
    rows = _locked(session, {product_id, *(each.product_id for each in found)})
    own = rows.get(product_id)
    if own is None or own.image_sha256 != image_sha256:
        return
    is_as_it_was = (each for each in found if each.product_id in rows)
    same = [each.product_id for each in is_as_it_was if rows[each.product_id].image_sha256 == each.image_sha256]
    keys = {each: rows[each].twin_id or each for each in (product_id, *same)}
    if len(found) > MOST_TWINS:
        _give(session, keys, None)
    elif same:
        wanted = keys[min(same)]
        outdated = {*keys.values()} - {wanted}
        _give(session, [each for each, row in rows.items() if (row.twin_id or each) in outdated], wanted)
    elif own.twin_id is not None:
        is_shared = any(row.twin_id == own.twin_id for each, row in rows.items() if each != product_id)
        if own.twin_id > 0 or is_shared:
            _give(session, [product_id], None if own.twin_id > 0 else _key_of_none())
    compared = sa.update(ProductRow).where(ProductRow.product_id == product_id).values(sketch_version=VERSION)
    session.execute(compared.execution_options(synchronize_session=False))


def _key_of_none() -> int:
    return -1 - secrets.randbits(KEY_BITS)


def _keys_of(product_ids: Collection[int]) -> sa.Select[int, int | None, str]:
    columns = sa.select(ProductRow.product_id, ProductRow.twin_id, ProductRow.image_sha256)
    return columns.where(ProductRow.product_id.in_(product_ids))


def _locked(session: orm.Session, product_ids: Collection[int]) -> dict[int, sa.Row[int, int | None, str]]:
    """These and all that have a key of theirs, 2 × MOST_TWINS at most, in the order in which others lock products."""
    keys = {row.twin_id or row.product_id for row in session.execute(_keys_of(product_ids))}
    wanted = {*product_ids, *_members(session, keys)}
    locking = _keys_of(wanted).order_by(ProductRow.product_id).with_for_update()
    return {row.product_id: row for row in session.execute(locking)}


def _members(session: orm.Session, keys: Collection[int]) -> list[int]:
    if not keys:
        return []
    named = sa.and_(ProductRow.product_id.in_(keys), ProductRow.twin_id.is_(None))
    statement = sa.select(ProductRow.product_id).where(sa.or_(ProductRow.twin_id.in_(keys), named))
    return list(session.scalars(statement.order_by(ProductRow.product_id).limit(2 * MOST_TWINS)))


def _give(session: orm.Session, product_ids: Iterable[int], key: int | None) -> None:
    mine = ProductRow.product_id.in_(sorted(product_ids))
    change = sa.update(ProductRow).where(mine).values(twin_id=key)
    session.execute(change.execution_options(synchronize_session=False))


def to_compare(session: orm.Session, limit: int) -> list[int]:
    """Products that are to be compared with all others, and have what comes first: vectors, or none for a reason."""
    outdated = ProductRow.sketch_version.in_(range(VERSION)), ProductRow.index_status.in_(("indexed", "failed"))
    return list(session.scalars(sa.select(ProductRow.product_id).where(*outdated).limit(limit)))

"""The write path: a product's change and its event in one transaction. No broker and no model can fail a write."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from sqlalchemy import orm
from sqlalchemy.exc import IntegrityError

from data_models import BatchRow, CreatedProduct, Product, ProductChanges, ProductFields, RowResult
from orm_models import ProductRow, utc_now
from tuwen.catalogue.batch import change_many
from tuwen.catalogue.changes import apply_changes
from tuwen.catalogue.conditions import UNCONDITIONAL, Condition
from tuwen.catalogue.idempotency import KeyedRequest, made_before, remember
from tuwen.catalogue.pictures import Picture, pictures_of, require_distinct, write_further_pictures
from tuwen.catalogue.queries import sku_owner
from tuwen.catalogue.representation import as_product
from tuwen.catalogue.terms import write_terms
from tuwen.catalogue.twins import (
    Found,
    as_duplicates,
    find_same,
    one_at_a_time,
    require_none,
    same_as,
    twin_key,
    write_sketch,
)
from tuwen.database.engine import Database
from tuwen.database.shops import home_shop
from tuwen.errors import AppError, DatabaseBusy, DuplicateSku, FieldError, IdempotencyKeyUsed, InvalidInput, NotFound
from tuwen.messaging.outbox import add_product_event
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.resemblance import sketch_of
from tuwen.pictures.store import ImageStore
from tuwen.vectors.binding import bound_milvus_id, bound_milvus_ids, outdate_bindings
from tuwen.vectors.registry import IndexRegistry

PUT_ATTEMPTS = 3
ChangePictures = Callable[[Sequence[Picture]], list[Picture]]
"""From a product's pictures to those that it shall have."""


class ProductWriter:
    """`wake_relay` is called with the topic after each commit, from whichever thread made it."""

    def __init__(
        self,
        database: Database,
        images: ImageStore,
        registry: IndexRegistry,
        topic: str,
        wake_relay: Callable[[str], None],
    ) -> None:
        self._database = database
        self._images = images
        self._registry = registry
        self._topic = topic
        self._wake_relay = wake_relay

    def of_shop(self, shop_id: str) -> Self:
        view = copy.copy(self)
        view._database = self._database.of_shop(shop_id)
        return view

    def create(
        self,
        fields: ProductFields,
        image: CheckedImage,
        key: KeyedRequest | None = None,
        further: Sequence[CheckedImage] = (),
        *,
        refuse_duplicates: bool = False,
    ) -> CreatedProduct:
        """With a key: what the same request has made before, as it is now. Raises IdempotencyKeyUsed, and
        DuplicatePicture if told to."""
        require_distinct([each.sha256 for each in (image, *further)])
        made = self._made_before(key)
        if made is not None:
            return made
        try:
            return self._create(fields, [image, *further], key, refuse_duplicates=refuse_duplicates)
        except AppError:  # its sku or its picture is there: perhaps by the same request at the same moment
            made = self._made_before(key)
            if made is not None:
                return made
            raise

    def _made_before(self, key: KeyedRequest | None) -> CreatedProduct | None:
        if key is None:
            return None
        with self._database.read() as session:
            product_id = made_before(session, key)
            row = session.get(ProductRow, product_id) if product_id is not None else None
            if product_id is not None and row is None:
                raise IdempotencyKeyUsed(f"This Idempotency-Key made product {product_id}, which was deleted since.")
            return None if row is None else _created(session, self._as_it_is(session, row), same_as(session, row))

    def _create(
        self,
        fields: ProductFields,
        images: Sequence[CheckedImage],
        key: KeyedRequest | None,
        *,
        refuse_duplicates: bool,
    ) -> CreatedProduct:
        sha256, sketch = images[0].sha256, sketch_of(images[0].thumbnail)
        with self._database.read() as session:
            _require_free_sku(session, fields.sku, home_shop(session), owner=None)
            found = find_same(session, home_shop(session), sha256, sketch)
            if refuse_duplicates:
                require_none(found)
        # Before the transaction, so that no lock waits for the store. If the transaction fails the picture is left
        # without a product, and reconciliation removes it.
        main, *further = self._save(images)
        row = ProductRow(**fields.model_dump(), **main._asdict())
        try:
            with self._database.write() as session:
                if refuse_duplicates:
                    one_at_a_time(session)
                    require_none(find_same(session, home_shop(session), sha256, sketch))
                row.twin_id = twin_key(session, found)
                session.add(row)
                session.flush()
                if sketch is not None:
                    write_sketch(session, row, sketch)
                write_further_pictures(session, row, further)
                write_terms(session, [row], are_new=True)
                add_product_event(session, self._topic, row, "upsert")
                if key is not None:
                    remember(session, key, row.product_id)
                session.flush()
                created = _created(session, as_product(row, None, [main, *further]), found)
        except IntegrityError as error:
            raise _duplicate_sku(fields.sku) from error
        self._after_commit(images)
        return created

    def put(
        self,
        sku: str,
        fields: ProductFields,
        image: CheckedImage | None,
        condition: Condition = UNCONDITIONAL,
        further: Sequence[CheckedImage] | None = None,
    ) -> tuple[Product, bool]:
        """The product with this sku shall be so; with the pictures that it has, where none are given. Returns whether
        it was made."""
        for _ in range(PUT_ATTEMPTS):
            with self._database.read() as session:
                owner = sku_owner(session, sku)
            try:
                if owner is not None:
                    changes = ProductChanges(**fields.model_dump(exclude={"sku"}))
                    return self.change(owner, changes, image, condition, further), False
                condition.require(None)
                if image is None:
                    raise InvalidInput.in_field("image", "is missing; no product has this sku yet, and each needs one")
                return self.create(fields.model_copy(update={"sku": sku}), image, further=further or ()), True
            except (DuplicateSku, NotFound):  # made or deleted since a moment ago
                continue
        raise DatabaseBusy("Others make and delete the product with this sku all the time.")

    def change(
        self,
        product_id: int,
        changes: ProductChanges,
        image: CheckedImage | None,
        condition: Condition = UNCONDITIONAL,
        further: Sequence[CheckedImage] | None = None,
    ) -> Product:
        """Raises VersionMismatch where the condition does not hold. `further`: instead of those that it has."""
        with self._database.read() as session:
            condition.require(present := _require_product(session, product_id))
            _require_free_sku(session, changes.sku, present.shop_id, owner=product_id)
        if image is not None and self._has_as_it_came(present, image):
            image = None
        sent = [*([image] if image else []), *(further or [])]
        pictures = self._save(sent)
        values = changes.model_dump(include=changes.model_fields_set) | (pictures.pop(0)._asdict() if image else {})
        try:
            with self._database.write() as session:
                row = _require_product(session, product_id, lock=True)
                condition.require(row)
                apply_changes(session, row, values, self._topic, None if further is None else pictures)
                session.flush()
                changed = self._as_it_is(session, row)  # under the lock: the version that this very change made
        except IntegrityError as error:
            raise _duplicate_sku(changes.sku) from error
        self._after_commit(sent)
        return changed

    def add_picture(
        self,
        product_id: int,
        image: CheckedImage,
        add: Callable[[Sequence[Picture], Picture], list[Picture]],
        condition: Condition = UNCONDITIONAL,
    ) -> Product:
        new = Picture.stored(self._images, image)
        return self.change_pictures(product_id, lambda pictures: add(pictures, new), condition, image)

    def change_pictures(
        self,
        product_id: int,
        change: ChangePictures,
        condition: Condition = UNCONDITIONAL,
        new: CheckedImage | None = None,
    ) -> Product:
        """`new`: to be stored, since `change` names it. Raises what `change` does, and then has stored nothing."""
        sent = [] if new is None else [new]
        with self._database.read() as session:
            row = _require_product(session, product_id)
            condition.require(row)
            change(pictures_of(session, [row])[product_id])
        self._save(sent)
        with self._database.write() as session:
            row = _require_product(session, product_id, lock=True)
            condition.require(row)
            main, *further = change(pictures_of(session, [row])[product_id])
            apply_changes(session, row, main._asdict(), self._topic, further)
            session.flush()
            changed = self._as_it_is(session, row)
        self._after_commit(sent)
        return changed

    def _save(self, images: Sequence[CheckedImage]) -> list[Picture]:
        for image in images:
            self._images.save(image)
        return [Picture.stored(self._images, image) for image in images]

    def _after_commit(self, images: Sequence[CheckedImage]) -> None:
        for image in images:
            self._images.save_if_gone(image)
        self._wake_relay(self._topic)

    def change_many(self, rows: Mapping[int, BatchRow]) -> list[RowResult]:
        """By the number of each row. One transaction for all that can be done."""
        with self._database.write() as session:
            results = change_many(session, rows, self._topic)
        self._wake_relay(self._topic)
        return results

    def reindex(self, product_id: int) -> Product:
        """Have it indexed again as it is, whatever came of it before. Searches find it by its old vectors meanwhile."""
        with self._database.write() as session:
            row = _require_product(session, product_id, lock=True)
            outdate_bindings(session, product_id)  # else ingestion would find its work done
            row.index_status, row.index_error, row.queued_at = "pending", None, utc_now()
            session.flush()
            add_product_event(session, self._topic, row, "upsert")
            queued = self._as_it_is(session, row)
        self._wake_relay(self._topic)
        return queued

    def delete(self, product_id: int, condition: Condition = UNCONDITIONAL) -> None:
        with self._database.write() as session:
            row = _require_product(session, product_id, lock=True)
            condition.require(row)
            milvus_ids = bound_milvus_ids(session, [product_id]).get(product_id, {})
            session.delete(row)
            add_product_event(session, self._topic, row, "delete", milvus_ids)
        self._wake_relay(self._topic)

    def _has_as_it_came(self, row: ProductRow, image: CheckedImage) -> bool:
        """It was stored with its metadata, by a version or a setting that keeps them: no new picture, and no encode."""
        if image.sha256 == image.received_sha256 or row.image_sha256 != image.received_sha256:
            return False
        return row.index_status != "failed" and self._images.has(row.image_path)

    def _as_it_is(self, session: orm.Session, row: ProductRow) -> Product:
        index = self._registry.known
        milvus_id = bound_milvus_id(session, index.vector_index_id, row.product_id) if index else None
        return as_product(row, milvus_id, pictures_of(session, [row])[row.product_id])


def _created(session: orm.Session, product: Product, found: Sequence[Found]) -> CreatedProduct:
    return CreatedProduct(**product.model_dump(), duplicates=as_duplicates(session, found))


def _require_product(session: orm.Session, product_id: int, *, lock: bool = False) -> ProductRow:
    row = session.get(ProductRow, product_id, with_for_update=lock or None)
    if row is None:
        raise _no_product(product_id)
    return row


def _require_free_sku(session: orm.Session, sku: str | None, shop_id: str, *, owner: int | None) -> None:
    if sku is not None and sku_owner(session, sku, shop_id) not in (None, owner):
        raise _duplicate_sku(sku)


def _no_product(product_id: int) -> NotFound:
    return NotFound(f"There is no product {product_id}.")


def _duplicate_sku(sku: str | None) -> DuplicateSku:
    message = f"another product has the sku '{sku}'; change that product, or use another sku"
    return DuplicateSku(f"sku: {message}", [FieldError("sku", message)])

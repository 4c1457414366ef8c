"""A page of rows becomes products, in one transaction with how far the job is: a kill loses neither or both.

Never commits: the caller's `Database.write()` block is the transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import orm

from data_models import ImportMode, ProductFields
from orm_models import ProductRow
from tuwen.catalogue.changes import apply_changes
from tuwen.catalogue.limits import require_few_attributes
from tuwen.catalogue.pictures import Picture as StoredPicture
from tuwen.catalogue.pictures import pictures_of, require_distinct, write_further_pictures
from tuwen.catalogue.queries import load_products, lock_products, sku_owners
from tuwen.catalogue.terms import write_terms
from tuwen.errors import InvalidInput
from tuwen.importing.image_sources import ImageSource
from tuwen.importing.rows import ImportRow, RowError
from tuwen.messaging.outbox import add_upsert_events
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.store import ImageStore
from tuwen.settings import Settings
from tuwen.texts import canonical_text


class PictureNeeded(Exception):
    """A product went or changed since its picture was found to be there: look again."""


class Picture(NamedTuple):
    sha256: str
    image: CheckedImage | None
    """Stored already. None: the product has this very picture."""
    likeness: bytes | None = None
    further: tuple["Picture", ...] | None = None
    """Null: the row says nothing of them."""
    fetched: tuple[str, ImageSource] | None = None
    """From which address, if that is to be remembered."""

    @property
    def all(self) -> list["Picture"]:
        return [self, *(self.further or ())]


class Known(NamedTuple):
    """What is there already of what a page's rows name."""

    products: Mapping[str, ProductRow]
    """By the sku as the row has it."""
    pictures: Mapping[int, Sequence[StoredPicture]]
    """Of these, by their ids."""
    sources: Mapping[str, ImageSource]
    """By address."""


@dataclass
class Page:
    """What came of it."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: list[RowError] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return len({error.line for error in self.errors})


def products_by_sku(session: orm.Session, rows: Sequence[ImportRow], *, lock: bool = False) -> dict[str, ProductRow]:
    """By the sku as the row has it."""
    skus = list({row.sku for row in rows if row.sku is not None})
    owners = sku_owners(session, skus)
    if lock:
        lock_products(session, owners.values())
        owners = sku_owners(session, skus)  # once more: until the lock, each could be given to another
    products = {product.product_id: product for product in load_products(session, set(owners.values()))}
    return {sku: products[product_id] for sku, product_id in owners.items() if product_id in products}


class PageWriter:
    def __init__(self, settings: Settings, images: ImageStore, mode: ImportMode) -> None:
        self._settings = settings
        self._images = images
        self._mode = mode

    def write(
        self, session: orm.Session, rows: Sequence[ImportRow], pictures: Mapping[int, Picture | RowError]
    ) -> Page:
        """`pictures`: by the row's line. Raises PictureNeeded."""
        page, created = Page(), list[ProductRow]()
        # By the sku as it is typed, in which alone two products may differ (migration 0013); new ones may not.
        known, of_page = products_by_sku(session, rows, lock=True), dict[str, ProductRow]()
        for row in rows:
            picture = pictures.get(row.line)
            key = None if row.sku is None else canonical_text(row.sku)
            product = None if row.sku is None or key is None else known.get(row.sku) or of_page.get(key)
            try:
                if product is not None and self._mode == "create":
                    page.unchanged += 1
                elif isinstance(picture, RowError):
                    page.errors.append(picture)
                elif product is None:
                    created.append(new := self._new(session, row, picture))
                    page.created += 1
                    if key is not None:
                        of_page[key] = new
                elif not self._change(session, product, row, picture):
                    page.unchanged += 1
                else:
                    page.updated += 1
            except InvalidInput as error:
                page.errors += [RowError(row.line, row.sku, each.field, each.message) for each in error.errors]
        session.flush()
        if created:
            write_terms(session, created)  # a row below may have changed one, with its terms
            versions = {each.product_id: each.content_version for each in created}
            add_upsert_events(session, self._settings.kafka_topic, versions)
        return page

    def _new(self, session: orm.Session, row: ImportRow, picture: Picture | None) -> ProductRow:
        if self._mode != "create" and row.sku is None:
            raise InvalidInput.in_field("sku", "is missing; without one it can't be told which product this is")
        if not row.changes.title:
            raise InvalidInput.in_field("title", "is missing, and no product has this sku yet")
        if picture is None and row.image is None:
            raise InvalidInput.in_field("image", "is missing, and no product has this sku yet")
        if picture is None or picture.image is None:
            raise PictureNeeded
        given = row.changes.model_dump(include=row.changes.model_fields_set)
        given["attributes"] = self._attributes(row, {})
        main, *further = self._stored(picture.all, [])
        require_distinct([each.image_sha256 for each in (main, *further)])
        product = ProductRow(**ProductFields(**given).model_dump(), **main._asdict())
        session.add(product)
        if further:
            session.flush()
            write_further_pictures(session, product, further)
        return product

    def _change(self, session: orm.Session, product: ProductRow, row: ImportRow, picture: Picture | None) -> bool:
        values: dict[str, Any] = row.changes.model_dump(include=row.changes.model_fields_set - {"sku"})
        if row.attributes or "attributes" in values:
            values["attributes"] = self._attributes(row, product.attributes)
        if picture is not None and picture.image is not None:
            values |= StoredPicture.stored(self._images, picture.image)._asdict()
        elif picture is not None and picture.sha256 != product.image_sha256:
            raise PictureNeeded
        if product.product_id is None:  # a row above made it
            session.flush()
        further = None
        if picture is not None and picture.further is not None:
            _, *present = pictures_of(session, [product])[product.product_id]
            further = self._stored(picture.further, present)
            further = None if further == present else further
        return apply_changes(session, product, values, self._settings.kafka_topic, further)

    def _stored(self, pictures: Sequence[Picture], present: Sequence[StoredPicture]) -> list[StoredPicture]:
        """Those that were not read are among the product's. Raises PictureNeeded where they are no more."""
        by_sha256 = {each.image_sha256: each for each in present}
        stored = []
        for picture in pictures:
            found = by_sha256.get(picture.sha256)
            if picture.image is not None:
                found = StoredPicture.stored(self._images, picture.image)
            if found is None:
                raise PictureNeeded
            stored.append(found)
        return stored

    def _attributes(self, row: ImportRow, present: dict[str, Any]) -> dict[str, Any]:
        before = row.changes.attributes if "attributes" in row.changes.model_fields_set else present
        attributes = {**before, **row.attributes}
        require_few_attributes(attributes, self._settings)
        return attributes

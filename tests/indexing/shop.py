"""The service without HTTP and without loops, on the real parts: SQLite or MariaDB, a Milvus server, tiny models."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from data_models import ProductChanges, ProductFields, SearchRequest
from nlp_models import load_encoders
from orm_models import MAIN, OutboxRow, ProductRow, ProductVectorRow, UnusedImageRow
from tests.conftest import picture
from tests.processes import EXPORTS
from tuwen.assembly import Services, new_ingestor, new_searcher, open_stores
from tuwen.catalogue.products import ProductWriter
from tuwen.encoders.base import Encoders, ModelNames
from tuwen.encoders.service import EncodingService
from tuwen.errors import VectorDBUnavailable
from tuwen.indexing.drift import Pass
from tuwen.indexing.picture_drift import delete_unused_images
from tuwen.indexing.reconciliation import Reconciler
from tuwen.messaging.transport import Message, dead_letter_topic
from tuwen.pictures.checks import check_image
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.download import PictureFetcher
from tuwen.settings import Settings
from tuwen.vectors.registry import IndexRegistry

logger = logging.getLogger(__name__)

Scenario = Callable[["Shop"], Awaitable[None]]


@dataclass(frozen=True)
class Mended:
    """How many of each kind."""

    stale_pending_products: int = 0
    indexed_products_unbound: int = 0
    bindings_without_vector: int = 0
    vectors_without_binding: int = 0
    products_without_image: int = 0
    images_without_product: int = 0


class Shop:
    """The services without HTTP and without loops: a test says when an event is ingested."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.topic = services.settings.kafka_topic
        self.writer = ProductWriter(services.database, services.images, services.registry, self.topic, lambda _: None)
        self.ingestor = new_ingestor(services)
        self.searcher = new_searcher(services)

    def reconciler(self, **options: Any) -> Reconciler:
        services = self.services
        return Reconciler(
            services.settings, services.database, services.vector_db, services.images, services.registry.live, **options
        )

    def create(self, title: str, color: str = "red", *further: str) -> int:
        images = [check_image(picture(each), self.services.settings) for each in (color, *further)]
        return self.writer.create(ProductFields(title=title), images[0], further=images[1:]).product_id

    def change(self, product_id: int, title: str) -> None:
        self.writer.change(product_id, ProductChanges(title=title), None)

    def messages(self) -> list[Message]:
        """All events ever written, as the transport would hand them out."""
        with self.services.database.read() as session:
            rows = session.scalars(
                sa.select(OutboxRow).where(OutboxRow.topic == self.topic).order_by(OutboxRow.outbox_id)
            )
            return [Message(row.topic, row.message_key, json.dumps(row.payload).encode()) for row in rows]

    def dead_letters(self) -> list[dict[str, Any]]:
        with self.services.database.read() as session:
            query = sa.select(OutboxRow.payload).where(OutboxRow.topic == dead_letter_topic(self.topic))
            return list(session.scalars(query))

    def status(self, product_id: int) -> tuple[str, str | None]:
        with self.services.database.read() as session:
            row = session.get_one(ProductRow, product_id)
            return row.index_status, row.index_error

    def bound(self) -> dict[int, int]:
        """The rows of the main pictures, in the order of the products."""
        return {product_id: ids[MAIN] for product_id, ids in self.all_bound().items()}

    def all_bound(self) -> dict[int, dict[int, int]]:
        """By product, and by the pictures' positions."""
        bound: dict[int, dict[int, int]] = {}
        with self.services.database.read() as session:
            for row in session.scalars(sa.select(ProductVectorRow)):
                bound.setdefault(row.product_id, {})[row.image_position] = row.milvus_id
        return bound

    def in_milvus(self) -> set[int]:
        collection = self.services.registry.live().collection
        return {row.milvus_id for page in self.services.vector_db.iterate_rows(collection) for row in page}

    def mend(self, **options: Any) -> Mended:
        findings = self.reconciler(**options).reconcile()
        assert findings is not None, "nobody else reconciles here"
        return Mended(**{kind: drift.mended for kind, drift in findings.items()})

    def look(self, **options: Any) -> Mended:
        """What there would be to mend."""
        return Mended(**{kind: drift.found for kind, drift in self.reconciler(**options).look().items()})

    async def found(self, text: str) -> list[str]:
        response = await self.searcher.search(SearchRequest(mode="text_to_text", text=text, top_k=100))
        return [hit.product.title for hit in response.hits]


def age_pictures(shop: Shop) -> None:
    """All are old, and what nothing names has been noted as such long ago."""
    services = shop.services
    for file in Path(services.settings.image_store_address).rglob("*.*"):
        os.utime(file, (0, 0))
    stores = services.settings, services.database, services.vector_db, services.images
    for _ in delete_unused_images(Pass(*stores, services.registry.live()), 0):
        pass
    age_notes(shop, timedelta(days=1))


def age_notes(shop: Shop, by: timedelta) -> None:
    with shop.services.database.write() as session:
        for row in session.scalars(sa.select(UnusedImageRow)):
            row.since -= by


def lose_picture(shop: Shop, product_id: int) -> str:
    with shop.services.database.read() as session:
        path = session.get_one(ProductRow, product_id).image_path
    images = shop.services.images
    images.remove_aside(path, images.set_aside(path))
    return path


@cache
def encoders_of(clip_model: str, text_model: str) -> Encoders:
    """Loaded once for all tests, which open the stores anew each time."""
    models = Settings(_env_file=None, encoder_cache_dir=EXPORTS, clip_model=clip_model, text_model=text_model)
    return load_encoders(models)


def load_on(loop: asyncio.AbstractEventLoop, settings: Settings, names: ModelNames) -> EncodingService:
    async def start() -> EncodingService:
        return EncodingService(encoders_of(names.clip, names.text), settings)

    return asyncio.run_coroutine_threadsafe(start(), loop).result()


@asynccontextmanager
async def open_shop(settings: Settings) -> AsyncIterator[Shop]:
    """As `open_services` does it."""
    encoders = encoders_of(settings.clip_model, settings.text_model)
    with open_stores(settings) as stores:
        encoding = EncodingService(encoders, settings)
        load = partial(load_on, asyncio.get_running_loop(), settings)
        registry = IndexRegistry(stores.database, stores.vector_db, encoding, load)
        try:
            registry.live()
        except VectorDBUnavailable as error:
            logger.warning("Starting without an index: %s", error.detail)
        decoder = PictureDecoder(settings)
        async with PictureFetcher(settings) as fetcher:
            yield Shop(Services(settings, stores.database, stores.vector_db, stores.images, decoder, fetcher, registry))
        await registry.close()


def run(settings: Settings, scenario: Scenario) -> None:
    encoders_of(settings.clip_model, settings.text_model)  # whose conversion is nothing of the scenario's

    async def go() -> None:
        async with asyncio.timeout(300), open_shop(settings) as shop:
            await scenario(shop)

    asyncio.run(go())

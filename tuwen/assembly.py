"""Puts the parts together, in the one right order: stores, models, and the rooms' workers that stand on them.

What needs no model loads none: a command that only opens the stores starts in about a second.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from orm_models import Database, open_database
from tuwen.encoders.service import EncodingService
from tuwen.errors import DependencyUnavailable
from tuwen.indexing.ingest import Ingestor
from tuwen.indexing.reconciliation import Reconciler
from tuwen.pictures.store import ImageStore
from tuwen.processes import Presence
from tuwen.pulse import Pulses
from tuwen.search.searcher import Searcher
from tuwen.settings import LOG_FORMAT, VERSION, Settings
from tuwen.vectors.registry import IndexRegistry, LiveIndex
from vector_db import VectorDB

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stores:
    """Where the data is."""

    settings: Settings
    database: Database
    vector_db: VectorDB
    images: ImageStore


@dataclass(frozen=True)
class Services(Stores):
    """The stores, and the models that fill and search them."""

    encoding: EncodingService
    registry: IndexRegistry


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """Blocks. Raises ConfigurationError where the settings can't work. A Milvus that is down is waited for later."""
    logging.basicConfig(level=settings.log_level, format=LOG_FORMAT)
    database = open_database(settings)
    vector_db = VectorDB(settings)
    try:
        yield Stores(settings, database, vector_db, ImageStore(settings, database.installation_id()))
    finally:
        vector_db.close()
        database.close()


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """The stores and the models. Raises ConfigurationError."""
    from nlp_models import load_encoders  # noqa: PLC0415  # torch and its kin take seconds

    async with _on_a_thread(open_stores(settings)) as stores:
        encoders = await asyncio.to_thread(load_encoders, settings)
        registry = IndexRegistry(stores.database, stores.vector_db, encoders)
        try:
            await asyncio.to_thread(registry.live)
        except DependencyUnavailable as error:
            logger.warning("Starting without an index: %s", error.detail)
        encoding = EncodingService(encoders, settings)
        try:
            yield Services(settings, stores.database, stores.vector_db, stores.images, encoding, registry)
        finally:
            await encoding.close()


@asynccontextmanager
async def _on_a_thread(blocking: AbstractContextManager[Stores]) -> AsyncIterator[Stores]:
    """Opened and closed beside the loop: a database may be waited for."""
    stores = await asyncio.to_thread(blocking.__enter__)
    try:
        yield stores
    finally:
        await asyncio.to_thread(blocking.__exit__, None, None, None)


def new_searcher(services: Services) -> Searcher:
    return Searcher(
        services.settings,
        services.database,
        services.vector_db,
        services.images,
        services.encoding,
        services.registry,
    )


def new_ingestor(services: Services) -> Ingestor:
    return Ingestor(
        services.settings,
        services.database,
        services.vector_db,
        services.images,
        services.encoding,
        services.registry,
    )


def new_reconciler(stores: Stores, live_index: Callable[[], LiveIndex], *, may_delete_many: bool = False) -> Reconciler:
    return Reconciler(
        stores.settings,
        stores.database,
        stores.vector_db,
        stores.images,
        live_index,
        may_delete_many=may_delete_many,
    )


def new_presence(services: Services, kind: Literal["api", "worker"], pulses: Pulses) -> Presence:
    def describe() -> dict[str, Any]:
        live = services.registry.known
        return {
            "version": VERSION,
            "models": services.encoding.encoders.fingerprint,
            "collection": live.collection if live else None,
            "loops": pulses.overdue_s(),
        }

    return Presence(services.database, kind, describe)

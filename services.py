"""Opens and closes what the API and the worker both stand on, in the one right order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from encoding import EncodingService
from errors import DependencyUnavailable
from image_store import ImageStore
from nlp_models import load_encoders
from orm_models import Database, open_database
from settings import LOG_FORMAT, Settings
from vector_db import VectorDB
from vector_index import IndexRegistry

logger = logging.getLogger(__name__)

RESTART_PAUSE_S = 5.0


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    vector_db: VectorDB
    images: ImageStore
    encoding: EncodingService
    registry: IndexRegistry


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Raises ConfigurationError where the settings can't work. A Milvus that is down is waited for later."""
    logging.basicConfig(level=settings.log_level, format=LOG_FORMAT)
    database = await asyncio.to_thread(open_database, settings)
    vector_db = VectorDB(settings)
    try:
        images = ImageStore(settings)
        encoders = await asyncio.to_thread(load_encoders, settings)
        registry = IndexRegistry(database, vector_db, encoders, settings.kafka_topic)
        try:
            await asyncio.to_thread(registry.live)
        except DependencyUnavailable as error:
            logger.warning("Starting without an index: %s", error.detail)
        encoding = EncodingService(encoders, settings)
        try:
            yield Services(settings, database, vector_db, images, encoding, registry)
        finally:
            await encoding.close()
    finally:
        await asyncio.to_thread(vector_db.close)
        database.close()


async def keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """A background loop that an unexpected error must not end for good."""
    while True:
        try:
            await run()
        except Exception:
            logger.exception("%s failed unexpectedly, and starts again in %.0f s", name, RESTART_PAUSE_S)
        await asyncio.sleep(RESTART_PAUSE_S)

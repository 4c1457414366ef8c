"""Puts the parts together, in the one right order: stores, models, and the rooms' workers that stand on them.

What needs no model loads none: a command that only opens the stores starts in about a second.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from tuwen.background import WorkPool
from tuwen.catalogue.picture_store import open_image_store
from tuwen.cores import hand_over_soon, thread_variables
from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.encoders.base import Encoders, KnownIndex, ModelNames
from tuwen.encoders.device import choose_threads
from tuwen.encoders.endpoint_name import unnamed_server
from tuwen.encoders.reranker import Reranker
from tuwen.encoders.service import EncodingService
from tuwen.errors import DependencyUnavailable, ModelUnavailable
from tuwen.importing.importer import Importer
from tuwen.indexing.encoding import VectorCount
from tuwen.indexing.ingest import Ingestor
from tuwen.indexing.reconciliation import Reconciler
from tuwen.indexing.reindex import Models, Reindexer
from tuwen.logs import configure_logging
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.download import PictureFetcher
from tuwen.pictures.store import ImageStore
from tuwen.processes import Presence
from tuwen.pulse import Pulses
from tuwen.search.reranking import Reranking
from tuwen.search.searcher import Searcher
from tuwen.settings import VERSION, Settings
from tuwen.twins.finder import DuplicateFinder
from tuwen.twins.settling import TwinKeeper
from tuwen.vectors.indexes import indexes_with, models_of
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

    decoder: PictureDecoder
    fetcher: PictureFetcher
    registry: IndexRegistry
    reranker: Reranker | None = None
    vector_counts: Counter[VectorCount] = field(default_factory=Counter)
    """Of this process, since it began."""

    @property
    def encoding(self) -> EncodingService:
        """The live index's."""
        return self.registry.encoding


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """Blocks. Raises ConfigurationError where the settings can't work. A Milvus that is down is waited for later."""
    configure_logging(settings.log_level)
    database = open_database(settings)
    vector_db = VectorDB(settings)
    try:
        yield Stores(settings, database, vector_db, open_image_store(settings, database))
    finally:
        vector_db.close()
        database.close()


@asynccontextmanager
async def open_services(settings: Settings, *, reranks: bool = False) -> AsyncIterator[Services]:
    """The stores, the models of the live index, and for who searches the reranker. Raises ConfigurationError."""
    # Before torch is loaded, for the Python code that loads it.
    os.environ.update(thread_variables(choose_threads(settings.model_threads), os.environ))
    hand_over_soon()
    # torch and its kin take seconds
    from nlp_models import choose_models, find_models, load_encoders, load_reranker  # noqa: PLC0415

    async with _on_a_thread(open_stores(settings)) as stores:
        loop = asyncio.get_running_loop()

        def choose() -> Encoders:
            return load_encoders(settings, choose_models(settings, *_known_indexes(stores.database)))

        def load(names: ModelNames) -> EncodingService:
            encoders = load_encoders(settings, find_models(names, settings, is_recorded=True))
            return asyncio.run_coroutine_threadsafe(_new_encoding(encoders, settings), loop).result()

        reranker = await asyncio.to_thread(load_reranker, settings) if reranks else None
        encoding = EncodingService(await asyncio.to_thread(choose), settings)
        registry = IndexRegistry(stores.database, stores.vector_db, encoding, load)
        try:
            await asyncio.to_thread(registry.live)
        except DependencyUnavailable as error:
            logger.warning("Starting without an index: %s", error.detail)
        try:
            decoder = PictureDecoder(settings)
            async with PictureFetcher(settings) as fetcher:
                parts = stores.database, stores.vector_db, stores.images, decoder, fetcher, registry
                yield Services(settings, *parts, reranker)
        finally:
            await registry.close()


async def _new_encoding(encoders: Encoders, settings: Settings) -> EncodingService:
    return EncodingService(encoders, settings)  # on the loop


def _known_indexes(database: Database) -> tuple[KnownIndex | None, list[KnownIndex]]:
    """The active one, and those that it could be changed for."""
    with database.read() as session:
        active, others = indexes_with(session, "active"), indexes_with(session, "retired", "building")
    known = [KnownIndex(row.model_fingerprint, models_of(row)) for row in (*active, *others)]
    return (known[0] if active else None), known[len(active) :]


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
        services.decoder,
        services.fetcher,
        services.registry,
        Reranking(services.reranker, services.settings),
    )


def new_ingestor(services: Services) -> Ingestor:
    return Ingestor(
        services.settings,
        services.database,
        services.vector_db,
        services.images,
        services.decoder,
        services.registry,
        counts=services.vector_counts,
    )


def new_reindexer(services: Services) -> Reindexer:
    """Loads torch, as whoever has the services has done already."""
    from nlp_models import find_models, names_to_build  # noqa: PLC0415
    from tuwen.encoders.device import run_behind_all_others  # noqa: PLC0415

    settings = services.settings

    def find(names: ModelNames) -> Models:
        for setting, model in (("CLIP_MODEL", names.clip), ("TEXT_MODEL", names.text)):
            server = unnamed_server(model, settings)
            if server is not None:  # of a job that a process of other settings took
                raise ModelUnavailable(f"{setting}: no setting of this process names {server}; ENDPOINT_SERVERS may.")
        found = find_models(names_to_build(names.clip, names.text, settings), settings)
        return Models(found.names, found.fingerprint)

    # Of an ordinary priority: OpenVINO's threads, which others will use, may begin here.
    compiling = WorkPool("compiling", threads=1, max_waiting=1)

    async def slow(encoding: EncodingService) -> EncodingService:
        encoders = await compiling.run(encoding.encoders.on_one_thread)
        return EncodingService(encoders, settings, prepare_thread=run_behind_all_others)

    at_once = settings.pictures_indexed_at_once  # no fewer than the ingestor sends, or no fill would ever end
    threads = WorkPool("filling", threads=1, max_waiting=at_once, prepare_thread=run_behind_all_others)
    stores = settings, services.database, services.vector_db
    ingestor = Ingestor(*stores, services.images, services.decoder, services.registry, threads, services.vector_counts)
    return Reindexer(*stores, services.registry, ingestor, find, slow)


def new_importer(services: Services, wake_relay: Callable[[str], None]) -> Importer:
    stores = services.settings, services.database, services.images
    return Importer(*stores, services.decoder, services.fetcher, wake_relay)


def new_twin_keeper(services: Services) -> TwinKeeper:
    stores = services.database, services.vector_db, services.images
    return TwinKeeper(services.database, DuplicateFinder(*stores, services.registry))


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
            "loaded": services.registry.preparations(),
            "vectors": [[*kind, count] for kind, count in services.vector_counts.items()],
        }

    return Presence(services.database, kind, describe)

"""Finds and mends what a crash can leave between the database, Milvus and the image store. Safe beside running writers.

The database is the truth: what it does not bind leaves Milvus, and what it binds and Milvus lacks is indexed again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from orm_models import Database, utc_now
from tuwen.catalogue.queries import load_products
from tuwen.errors import DependencyUnavailable
from tuwen.generation.queries import delete_jobs_finished_before
from tuwen.indexing.queries import image_paths_in_use, requeue_products, stale_pending_products
from tuwen.messaging.outbox import delete_published_before
from tuwen.pictures.store import ImageStore
from tuwen.settings import Settings
from tuwen.vectors.binding import bindings_after, products_bound_to, unbind
from tuwen.vectors.registry import LiveIndex
from vector_db import VectorDB

logger = logging.getLogger(__name__)

# Anything younger may be the work of a process that is in the middle of it.
STALE_AFTER = timedelta(minutes=10)
UNBOUND_GRACE = timedelta(minutes=1)  # insert and bind are one database call apart
IMAGE_GRACE = timedelta(hours=1)
KEEP_PUBLISHED = timedelta(days=7)
CHUNK = 1000


@dataclass(frozen=True)
class Mended:
    """How many of each were found and put right."""

    stale_pending_products: int
    bindings_without_vector: int
    vectors_without_binding: int
    images_without_product: int


class Reconciler:
    """Remembers between passes which vectors and when it saw without a binding."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        vector_db: VectorDB,
        images: ImageStore,
        live_index: Callable[[], LiveIndex],
        *,
        unbound_grace: timedelta = UNBOUND_GRACE,
    ) -> None:
        """`unbound_grace`: for how long a vector without a binding may be one that is about to be bound."""
        self._settings = settings
        self._database = database
        self._vector_db = vector_db
        self._images = images
        self._live_index = live_index
        self._unbound_grace = unbound_grace
        self._unbound_since: dict[int, datetime] = {}

    async def run(self, wake_relay: Callable[[], None]) -> None:
        """A pass at every interval, until cancelled."""
        interval_s = self._settings.reconcile_interval_s
        while interval_s:
            await asyncio.sleep(interval_s)
            try:
                mended = await asyncio.to_thread(self.reconcile)
            except DependencyUnavailable as error:
                logger.warning("Reconciliation waits for its next turn: %s", error.detail)
                continue
            wake_relay()
            logger.log(logging.WARNING if any(asdict(mended).values()) else logging.DEBUG, "Reconciled: %s", mended)
        await asyncio.Event().wait()  # switched off: never ends, so that nothing restarts it

    def reconcile(self) -> Mended:
        """One whole pass; blocks. Raises DependencyUnavailable."""
        with self._database.write() as session:  # first, so that their pictures go in this same pass
            delete_published_before(session, utc_now() - KEEP_PUBLISHED)
            delete_jobs_finished_before(session, utc_now() - timedelta(hours=self._settings.generation_keep_hours))
        return Mended(
            stale_pending_products=self._requeue_stale(),
            bindings_without_vector=self._requeue_lost_vectors(),
            vectors_without_binding=self._delete_unbound_vectors(),
            images_without_product=self._delete_unused_images(),
        )

    def _requeue_stale(self) -> int:
        with self._database.write() as session:
            products = stale_pending_products(session, utc_now() - STALE_AFTER)
            requeue_products(session, products, self._settings.kafka_topic)
        return len(products)

    def _requeue_lost_vectors(self) -> int:
        index = self._live_index()
        found = 0
        for bindings in self._binding_chunks(index.vector_index_id):
            existing = self._vector_db.existing_ids(index.collection, list(bindings.values()))
            lost = {product_id: milvus_id for product_id, milvus_id in bindings.items() if milvus_id not in existing}
            if lost:
                with self._database.write() as session:
                    unbind(session, index.vector_index_id, list(lost.values()))
                    requeue_products(session, load_products(session, lost), self._settings.kafka_topic)
                found += len(lost)
        return found

    def _binding_chunks(self, vector_index_id: int) -> Iterator[dict[int, int]]:
        after = 0
        while True:
            with self._database.read() as session:
                chunk = bindings_after(session, vector_index_id, after, CHUNK)
            if not chunk:
                return
            yield chunk
            after = max(chunk)

    def _delete_unbound_vectors(self) -> int:
        index = self._live_index()
        now = utc_now()
        suspects: dict[int, datetime] = {}
        for milvus_ids in self._vector_db.iterate_ids(index.collection, CHUNK):
            with self._database.read() as session:
                bound = products_bound_to(session, index.vector_index_id, milvus_ids)
            suspects |= {each: self._unbound_since.get(each, now) for each in milvus_ids if each not in bound}
        expired = [milvus_id for milvus_id, since in suspects.items() if now - since >= self._unbound_grace]
        self._vector_db.delete(index.collection, expired)
        self._unbound_since = {each: since for each, since in suspects.items() if each not in set(expired)}
        return len(expired)

    def _delete_unused_images(self) -> int:
        oldest = utc_now() - IMAGE_GRACE
        old = [file.path for file in self._images.list_images() if file.modified_at < oldest]
        deleted = 0
        for chunk in (old[start : start + CHUNK] for start in range(0, len(old), CHUNK)):
            with self._database.read() as session:
                used = image_paths_in_use(session, chunk)
            for path in set(chunk) - used:
                self._images.delete(path)
                deleted += 1
        return deleted

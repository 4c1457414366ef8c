"""Which collection is live: where the database's `vector_index` rows, Milvus's collections and the models meet.

The database says it, and every process looks there again each second; what Milvus has lost is made again.
"""

import asyncio
import logging
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orm_models import Database, VectorIndexRow, utc_now
from tuwen.background import Lease, WorkPool
from tuwen.encoders.base import Encoders
from tuwen.errors import AppError, ConfigurationError, DependencyUnavailable, ModelMismatch, VectorDBUnavailable
from tuwen.pulse import beat
from vector_db import VectorDB

logger = logging.getLogger(__name__)

LOOK_EVERY_S, LONGEST_LOOK_S = 1.0, 180.0  # a collection may have to be made
MAKING = "making"  # in the lease's progress: a collection that was begun, and may be half made


@dataclass(frozen=True)
class LiveIndex:
    vector_index_id: int
    collection: str
    activated_at: datetime | None
    """Since when it answers, or its collection is there again: what was bound before that may be lost."""


def require_live_index(database: Database, vector_db: VectorDB) -> LiveIndex:
    """The live index for those who have no models and so can't make one. Raises ConfigurationError where none is."""
    row = _read_active(database)
    if row is None or not vector_db.has_collection(row.collection):
        missing = f"its collection {row.collection} is gone from Milvus" if row else "there is none yet"
        raise ConfigurationError(f"No index is live ({missing}): starting the API or a worker makes it.")
    return LiveIndex(row.vector_index_id, row.collection, row.activated_at)


class IndexRegistry:
    """Finds the live index at the first call that reaches both stores, and makes it where there is none."""

    def __init__(
        self,
        database: Database,
        vector_db: VectorDB,
        encoders: Encoders,
    ) -> None:
        self._database = database
        self._vector_db = vector_db
        self._encoders = encoders
        self._lock = threading.Lock()
        self._live: LiveIndex | None = None
        self._making = Lease(database, "collections")
        self._thread = WorkPool("index watch", threads=1, max_waiting=0)

    @property
    def known(self) -> LiveIndex | None:
        """The live index if it was found already; asks nobody."""
        return self._live

    def live(self) -> LiveIndex:
        """Blocks. Raises ModelMismatch, VectorDBUnavailable or DatabaseUnavailable."""
        return self._live or self.look()

    async def watch(self) -> None:
        """Looks again and again, until cancelled. What is down is waited for: whoever needs it says so."""
        while True:
            beat(LONGEST_LOOK_S)
            try:
                await self._thread.run(self.look)
            except (DependencyUnavailable, ModelMismatch) as error:
                logger.debug("The index could not be looked at: %s", error.detail)
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> LiveIndex:
        """One small SELECT, unless a collection is missing. Blocks; raises as `live`."""
        with self._lock:
            row = _read_active(self._database)
            if row is None or self._live is None or self._vector_db.missed_collection.is_set():
                row = self._with_collection(row)
            self._live = LiveIndex(row.vector_index_id, row.collection, row.activated_at)
            return self._live

    def _with_collection(self, row: VectorIndexRow | None) -> VectorIndexRow:
        if row is not None and row.model_fingerprint != self._encoders.fingerprint:
            raise ModelMismatch(
                f"The collection {row.collection} was built with other models than CLIP_MODEL and TEXT_MODEL name now "
                f"({self._encoders.name}). Vectors of different models can't be compared: set the models back, or "
                "start with a new DATA_DIR (full stack: a new DATABASE_URL) and load the products again."
            )
        self._vector_db.missed_collection.clear()
        if row is not None and self._is_whole(row):
            return row
        begun = self._making.take()
        try:
            if begun is None:
                raise VectorDBUnavailable("Another process is making the collection in Milvus at this moment.")
            row = self._make(_read_active(self._database), begun)
        except AppError:
            self._vector_db.missed_collection.set()
            raise
        return row

    def _is_whole(self, row: VectorIndexRow) -> bool:
        """Made to its end; whoever began it may have died."""
        begun = self._making.left().get(MAKING)
        return begun != row.collection and self._vector_db.has_collection(row.collection)

    def _make(self, row: VectorIndexRow | None, begun: dict[str, Any]) -> VectorIndexRow:
        """The lease is ours."""
        if row is None:
            row = self._new_row()
        elif begun.get(MAKING) == row.collection or not self._vector_db.has_collection(row.collection):
            # Milvus is derived: reconciliation sees the new date, finds nothing of what is bound, and has it indexed.
            logger.warning("The collection %s is gone from Milvus; all products are indexed again", row.collection)
            row.activated_at = utc_now()
        else:
            self._making.give_back({})  # another process has just made it
            return row
        self._making.keep({MAKING: row.collection})  # whoever dies after this leaves it to be dropped
        if self._vector_db.has_collection(row.collection):
            self._vector_db.drop_collection(row.collection)
        with self._database.write() as session:
            row = session.merge(row)
        self._vector_db.create_collection(
            row.collection, clip_dim=self._encoders.clip.dim, text_dim=self._encoders.text.dim
        )
        self._making.give_back({})
        logger.info("Created the collection %s", row.collection)
        return row

    def _new_row(self) -> VectorIndexRow:
        with self._database.read() as session:
            number = 1 + (session.scalar(sa.select(sa.func.max(VectorIndexRow.vector_index_id))) or 0)
        fingerprint, now = self._encoders.fingerprint, utc_now()
        collection = f"products_{self._database.installation_id()[:12]}_{fingerprint[:8]}_{number}"
        return VectorIndexRow(
            collection=collection, model_fingerprint=fingerprint, status="active", created_at=now, activated_at=now
        )


def _read_active(database: Database) -> VectorIndexRow | None:
    with database.read() as session:
        return session.scalar(sa.select(VectorIndexRow).where(VectorIndexRow.status == "active"))

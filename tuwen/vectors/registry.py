"""Which index is live: where the database's `vector_index` rows, Milvus's collections and the models meet.

The database says it, and every process looks there again each second; what Milvus has lost is made again. An index and
its models go together: whoever takes a `ServedIndex` keeps it to its end, so that models are never mixed.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from orm_models import VectorIndexRow, utc_now
from tuwen.background import Lease, LeaseLost, Loop, WorkPool
from tuwen.database.engine import Database
from tuwen.encoders.base import ModelNames
from tuwen.encoders.service import EncodingService
from tuwen.errors import AppError, ConfigurationError, IndexChanged, ModelsUnavailable, VectorDBUnavailable
from tuwen.pulse import beat
from tuwen.vectors.careful_loading import load_carefully
from tuwen.vectors.dropping import drop_if_ours
from tuwen.vectors.indexes import (
    active_index,
    columns_of,
    indexes_with,
    models_of,
    new_collection_name,
    new_index,
    require_status,
)
from tuwen.vectors.kept_lease import kept
from vector_db import VectorDB

logger = logging.getLogger(__name__)

LOOK_EVERY_S, LONGEST_LOOK_S = 1.0, 180.0  # a collection may have to be made
LONGEST_LOAD_S, LOAD_AGAIN_AFTER_S = 900.0, 60.0  # so long a change of the models waits; a hub may have been away
MAKING = "making"  # in the lease's progress: a collection that was begun, and may be half made
READY = "ready"


@dataclass(frozen=True)
class LiveIndex:
    vector_index_id: int
    collection: str
    activated_at: datetime | None
    """Since when it answers, or its collection is there again: what was bound before that may be lost."""


@dataclass(frozen=True)
class ServedIndex(LiveIndex):
    """An index with its models."""

    encoding: EncodingService
    is_live: bool = True
    """False while it is being built."""
    calibration_version: int = 0


def require_live_index(database: Database, vector_db: VectorDB) -> LiveIndex:
    """The live index for those who have no models and so can't make one. Raises ConfigurationError where none is."""
    with database.read() as session:
        row = active_index(session)
    if row is None or not vector_db.has_collection(row.collection):
        missing = f"its collection {row.collection} is gone from Milvus" if row else "there is none yet"
        raise ConfigurationError(f"No index is live ({missing}): starting the API or a worker makes it.")
    return LiveIndex(row.vector_index_id, row.collection, row.activated_at)


class IndexRegistry:
    """Finds the live index at the first call that reaches both stores, and makes it where there is none.

    `encoding` are the active index's models, or the first one's. `load` blocks, and raises ModelUnavailable.
    """

    def __init__(
        self,
        database: Database,
        vector_db: VectorDB,
        encoding: EncodingService,
        load: Callable[[ModelNames], EncodingService],
    ) -> None:
        self._database = database
        self._vector_db = vector_db
        self._first = encoding
        self._load = load
        self._encodings = {encoding.encoders.fingerprint: encoding}
        self._failures: dict[str, str] = {}
        self._failed_at = 0.0
        self._lock = threading.Lock()
        self._load_lock = threading.Lock()
        self._live: ServedIndex | None = None
        self._making = Lease(database, "collections")
        self._looking = WorkPool("index watch", threads=1, max_waiting=0)
        self._loading = WorkPool("index models", threads=1, max_waiting=0)

    @property
    def known(self) -> ServedIndex | None:
        """The live index if it was found already; asks nobody."""
        return self._live

    @property
    def encoding(self) -> EncodingService:
        """The models that answer; those that shall, while no index was found."""
        return self._live.encoding if self._live else self._first

    def live(self) -> ServedIndex:
        """Blocks. Raises VectorDBUnavailable, DatabaseUnavailable or ModelUnavailable."""
        return self._live or self.look()

    def loops(self) -> dict[str, Loop]:
        """Look again and again, until cancelled. What is down is waited for: whoever needs it says so.

        Two, since the one that goes round would hide the one that hangs.
        """
        return {
            "index watch": partial(self._repeat, self._looking, self.look, LONGEST_LOOK_S),
            "index models": partial(self._repeat, self._loading, self.prepare, LONGEST_LOAD_S),
        }

    async def _repeat(self, thread: WorkPool, step: Callable[[], Any], longest_s: float) -> None:
        said = ""
        while True:
            beat(longest_s)
            try:
                await thread.run(step)
                said = ""
            except AppError as error:
                if error.detail != said:
                    logger.warning("The index could not be looked at: %s", error.detail)
                said = error.detail
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> ServedIndex:
        """One small SELECT, unless something is new. Blocks; raises as `live`."""
        with self._lock:
            with self._database.read() as session:
                row = active_index(session)
            if row is None or self._live is None or self._vector_db.missed_collection.is_set():
                row = self._with_collection(row)
            encoding = self._encoding_of(row)
            if models_of(row) != encoding.encoders.models and self._live is None:
                self._write_models(row, encoding.encoders.models)
            before = self._live
            names = row.vector_index_id, row.collection, row.activated_at
            self._live = ServedIndex(*names, encoding, calibration_version=row.calibration_version)
            if before is not None and before.vector_index_id != row.vector_index_id:
                logger.info("The index is %s now, of %s", row.collection, encoding.encoders.name)
            return self._live

    def look_if_possible(self) -> None:
        """As `look`, for what can wait until an index's models are to be had. Raises DependencyUnavailable."""
        try:
            self.look()
        except ConfigurationError as error:
            raise ModelsUnavailable(error.detail) from error

    def prepare(self) -> None:
        """Has the models loaded of an index that is being built, and of the one that a rollback takes; forgets others.

        Blocks. So that a switch waits for nothing.
        """
        before = set(self._encodings)  # what is loaded from here on belongs to an index that is newer than this look
        with self._database.read() as session:
            known = indexes_with(session, "building", "active", "retired")  # one look: a switch may come at any moment
        building, active, retired = (
            [row for row in known if row.status == status] for status in ("building", "active", "retired")
        )
        rows = [*building, *active, *retired[:1]]
        for row in rows:
            if row.model_fingerprint not in self._failures or time.monotonic() - self._failed_at >= LOAD_AGAIN_AFTER_S:
                try:
                    self._encoding_of(row)
                except ModelsUnavailable as error:  # another process loads them; it's this one's turn soon
                    logger.debug("%s", error.detail)
                except ConfigurationError as error:
                    logger.error("The models of the index %s can't be loaded: %s", row.collection, error.detail)  # noqa: TRY400
                    self._failures[row.model_fingerprint], self._failed_at = error.detail, time.monotonic()
                else:
                    self._failures.pop(row.model_fingerprint, None)
        needed = {row.model_fingerprint for row in rows} | {self.encoding.encoders.fingerprint}
        self._failures = {name: reason for name, reason in self._failures.items() if name in needed}
        for unneeded in before - needed:
            self._encodings.pop(unneeded).close_soon()

    def preparations(self) -> dict[str, str]:
        """By fingerprint, which models are loaded and which can't be: for the other processes to read."""
        return dict.fromkeys(self._encodings, READY) | self._failures

    def encoders_of(self, row: VectorIndexRow) -> EncodingService:
        """Blocks. Raises ModelUnavailable, or ModelsUnavailable while another process loads them."""
        return self._encoding_of(row)

    async def close(self) -> None:
        for encoding in self._encodings.values():
            await encoding.close()

    def _encoding_of(self, row: VectorIndexRow) -> EncodingService:
        loaded = self._encodings.get(row.model_fingerprint)
        if loaded is not None:  # without the lock, under which others may be loaded for a minute
            return loaded
        with self._load_lock:
            encoding = self._encodings.get(row.model_fingerprint)
            if encoding is None:
                models = models_of(row)
                if models is None:
                    raise ConfigurationError(f"Nothing says which models made {row.collection}: start it with them.")
                load = partial(self._load, models)
                # The active one's this process was started with, or is to answer with at once.
                encoding = load() if row.status == "active" else load_carefully(self._database, row, load)
                if encoding.encoders.fingerprint != row.model_fingerprint:
                    encoding.close_soon()
                    raise ConfigurationError(f"{models.clip} and {models.text} are not what made {row.collection}.")
                self._encodings[row.model_fingerprint] = encoding
            return encoding

    def _write_models(self, row: VectorIndexRow, models: ModelNames) -> None:
        """Version 0.2.0 did not; and folders move."""
        with self._database.write() as session:
            session.execute(
                sa.update(VectorIndexRow)
                .where(VectorIndexRow.vector_index_id == row.vector_index_id)
                .values(**columns_of(models))
            )

    def _with_collection(self, row: VectorIndexRow | None) -> VectorIndexRow:
        self._vector_db.missed_collection.clear()
        try:
            return row if row is not None and self._is_whole(row) else self._make_in_turn()
        except BaseException:  # whatever it was, the next look has to find the collection missing still
            self._vector_db.missed_collection.set()
            raise

    def _make_in_turn(self) -> VectorIndexRow:
        begun = self._making.take()
        if begun is None:
            raise VectorDBUnavailable("Another process is making the collection in Milvus at this moment.")
        try:
            return self._find_or_make(begun)
        except LeaseLost as error:
            raise VectorDBUnavailable("This process took too long to make the collection: another does.") from error
        except IndexChanged as error:
            raise VectorDBUnavailable(f"{error.detail} Try again in a second.") from error

    def _is_whole(self, row: VectorIndexRow) -> bool:
        """Made to its end, which its row alone says unless its maker ran when names were given again, and died."""
        begun = self._making.left().get(MAKING)
        return begun != row.collection and self._vector_db.has_collection(row.collection)

    def _find_or_make(self, begun: dict[str, Any]) -> VectorIndexRow:
        """The lease is ours, and so nobody puts in use any more what its last holder began."""
        unfinished = begun.get(MAKING)
        if unfinished:
            drop_if_ours(self._database, self._vector_db, unfinished)
        with self._database.read() as session:
            row = active_index(session)
            new = new_index(session, self._first.encoders.fingerprint, self._first.encoders.models)
            if row is not None:
                new.collection = new_collection_name(session, row.model_fingerprint)
        if row is not None:
            if row.collection != unfinished and self._vector_db.has_collection(row.collection):
                self._making.give_back({})  # another process has just made it
                return row
            logger.warning("The collection %s is gone from Milvus; all products are indexed again", row.collection)
        self._make(row or new, new.collection)
        try:
            return self._put_in_use(row, new)
        except (LeaseLost, IndexChanged):  # nothing names it, and nobody else knows of it
            drop_if_ours(self._database, self._vector_db, new.collection)
            raise

    def _make(self, row: VectorIndexRow, collection: str) -> None:
        mark = {MAKING: collection}  # whoever dies after this leaves it to be dropped
        with kept(self._making, mark):
            encoders = self._encoding_of(row).encoders
            self._making.keep(mark)  # loading may have taken long, and this process may have been paused
            self._vector_db.create_collection(collection, clip_dim=encoders.clip.dim, text_dim=encoders.text.dim)

    def _put_in_use(self, row: VectorIndexRow | None, new: VectorIndexRow) -> VectorIndexRow:
        """The first one, or under its new name one that is there, if it has not retired meanwhile: whole, in any case.

        Milvus is derived: reconciliation sees the new date, finds nothing of what is bound, and has it indexed.
        """
        new.status, new.activated_at = "active", utc_now()
        with self._database.write() as session:
            self._making.end(session)
            if row is None:
                session.add(new)
            else:
                require_status(session, row.vector_index_id, row.collection, "active")
                row = session.get_one(VectorIndexRow, row.vector_index_id)
                row.collection, row.activated_at = new.collection, new.activated_at
        logger.info("Created the collection %s", new.collection)
        return row or new

"""Which collection is live: where the database's `vector_index` rows, Milvus's collections and the models meet."""

import logging
import threading
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from orm_models import Database, VectorIndexRow, utc_now
from tuwen.encoders.base import Encoders
from tuwen.errors import ConfigurationError, ModelMismatch
from vector_db import VectorDB

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveIndex:
    vector_index_id: int
    collection: str


def require_live_index(database: Database, vector_db: VectorDB) -> LiveIndex:
    """The live index for those who have no models and so can't make one. Raises ConfigurationError where none is."""
    row = _read_active(database)
    if row is None or not vector_db.has_collection(row.collection):
        missing = f"its collection {row.collection} is gone from Milvus" if row else "there is none yet"
        raise ConfigurationError(f"No index is live ({missing}): starting the API or a worker makes it.")
    return LiveIndex(row.vector_index_id, row.collection)


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

    @property
    def known(self) -> LiveIndex | None:
        """The live index if it was found already; asks nobody."""
        return self._live

    def live(self) -> LiveIndex:
        """Blocks. Raises ModelMismatch, VectorDBUnavailable or DatabaseUnavailable."""
        if self._live is None:
            with self._lock:
                if self._live is None:
                    self._live = self._find_or_create()
        return self._live

    def _find_or_create(self) -> LiveIndex:
        row = _read_active(self._database) or self._create()
        if row.model_fingerprint != self._encoders.fingerprint:
            raise ModelMismatch(
                f"The collection {row.collection} was built with other models than CLIP_MODEL and TEXT_MODEL name now "
                f"({self._encoders.name}). Vectors of different models can't be compared: set the models back, or "
                "start with a new DATA_DIR (full stack: a new DATABASE_URL) and load the products again."
            )
        if not self._vector_db.has_collection(row.collection):
            # Milvus is derived: reconciliation finds that nothing of what is bound is there, and has it indexed again.
            logger.warning("The collection %s is gone from Milvus; all products will be indexed again", row.collection)
            self._create_collection(row.collection)
        return LiveIndex(row.vector_index_id, row.collection)

    def _create(self) -> VectorIndexRow:
        with self._database.read() as session:
            number = 1 + (session.scalar(sa.select(sa.func.max(VectorIndexRow.vector_index_id))) or 0)
        fingerprint = self._encoders.fingerprint
        collection = f"products_{self._database.installation_id()[:12]}_{fingerprint[:8]}_{number}"
        self._create_collection(collection)
        now = utc_now()
        row = VectorIndexRow(
            collection=collection, model_fingerprint=fingerprint, status="active", created_at=now, activated_at=now
        )
        try:
            with self._database.write() as session:
                session.add(row)
        except IntegrityError:  # another process made the same one at the same moment
            found = _read_active(self._database)
            assert found is not None, "the unique collection name was taken by an active index"
            return found
        logger.info("Created the collection %s", collection)
        return row

    def _create_collection(self, collection: str) -> None:
        if not self._vector_db.has_collection(collection):
            self._vector_db.create_collection(
                collection, clip_dim=self._encoders.clip.dim, text_dim=self._encoders.text.dim
            )


def _read_active(database: Database) -> VectorIndexRow | None:
    with database.read() as session:
        return session.scalar(sa.select(VectorIndexRow).where(VectorIndexRow.status == "active"))

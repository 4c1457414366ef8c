"""What Milvus Lite 3.2 leaves to luck with its files, mended inside its process.

It opens a folder once for each of the first calls, if they come at once, and each opening has ids, a manifest and a
compaction of its own, which lose the others' rows. It names files in its manifest that the disk does not have yet. And
one file that is cut off stops its collection for good, though all in it is derived: such a collection is lost, and made
again as any that Milvus loses. Its searches wait while it merges segments; and what was deleted it keeps for ever.
"""

import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from milvus_lite import db as databases
from milvus_lite.engine import collection as engine
from milvus_lite.engine import compaction, flush
from milvus_lite.exceptions import (
    CollectionNotFoundError,
    ManifestCorruptedError,
    SchemaValidationError,
    WALCorruptedError,
)
from milvus_lite.storage.segment import Segment

from tuwen.folders import sync
from tuwen.lite_rows import Segments

Called = TypeVar("Called", bound=Callable[..., Any])

# What its readers make of a file that is empty, cut off or full of zeros. Not the lack of memory, nor of a library.
DAMAGE = (
    AttributeError,
    LookupError,
    ManifestCorruptedError,
    NotImplementedError,
    SchemaValidationError,
    TypeError,
    ValueError,
    WALCorruptedError,
)


def install(*, durable: bool) -> None:
    """For all databases of this process. `durable`: no manifest names what a power loss would take."""
    opening = threading.RLock()
    database = databases.MilvusLite
    database.get_collection = _opened_once(opening, database.get_collection)
    for name in ("create_collection", "drop_collection", "close"):
        setattr(database, name, _one_at_a_time(opening, getattr(database, name)))
    _let_readers_pass()
    if durable:
        flush.write_data_file = compaction.write_data_file = _written_through(flush.write_data_file)
        flush.write_delta_file = _written_through(flush.write_delta_file)


def _let_readers_pass() -> None:
    """They take what stood there last, and wait for a flush alone: to merge segments takes seconds."""
    collection = engine.Collection
    own_init, own_apply = collection.__init__, collection._apply
    own_flush, own_refresh = collection._trigger_flush, collection._refresh_segment_cache

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        self._flushing = threading.RLock()
        own_init(self, *args, **kwargs)

    def apply(self: Any, operation: Any) -> None:
        """Log and memory together: a flush that has waited long puts others in their places, between two writes."""
        with self._flushing:
            own_apply(self, operation)

    def trigger_flush(self: Any) -> None:
        """In its turn before it begins: its rows are in no segment and no longer in memory until it ends."""
        with self._maintenance_lock, self._flushing:
            own_flush(self)

    def refresh_segment_cache(self: Any) -> None:
        before = set(self._segment_cache)
        own_refresh(self)
        try:
            if before - set(self._segment_cache):  # segments were merged
                _forget_deletions(self)
        finally:  # on a full disk, too
            self._published = tuple(self._segment_cache.values()), self._delta_index.frozen_copy()

    def read_snapshot(self: Any) -> tuple[Segments, Any]:
        with self._flushing:
            segments, deletions = self._published
            return Segments.beside(self._memtable, segments), deletions

    collection.__init__, collection._apply, collection._trigger_flush = init, apply, trigger_flush
    collection._refresh_segment_cache, collection._read_snapshot = refresh_segment_cache, read_snapshot


def _forget_deletions(collection: Any) -> None:
    """Of rows that no segment has any more. Milvus Lite forgets only what is older than every row there is."""
    deletions, segments = collection._delta_index, collection._segment_cache.values()
    deletions._map = {
        pk: seq for pk, seq in deletions._map.items() if any(pk in segment.pk_to_row for segment in segments)
    }
    oldest = min(deletions._map.values(), default=sys.maxsize)
    collection._compaction_mgr._gc_delta_files(collection._manifest, oldest)


def open_all(database: Any, is_alive: Callable[[], None]) -> None:
    """Before anyone asks for one, which takes a second for each 20,000 rows. Says meanwhile that it goes on."""
    load_segment = Segment.load

    def load(**segment: Any) -> Any:
        is_alive()
        return load_segment(**segment)

    Segment.load = load
    try:
        _remove_half_dropped(database)
        for name in database.list_collections():
            is_alive()
            _open(database, name)
    finally:
        Segment.load = load_segment


def is_damage(error: Exception) -> bool:
    """Of a file, for good. What the system says of itself (no room, no right, too many files) has a number."""
    if isinstance(error, OSError):
        return type(error) is OSError and error.errno is None  # Arrow's, of what it can't decode
    return isinstance(error, DAMAGE)


def _open(database: Any, name: str) -> None:
    try:
        database.get_collection(name).load()
    except CollectionNotFoundError:
        pass  # it was damaged, and that was said
    except Exception as error:  # in no other's way; whoever asks for it tries again, and is told
        _say(f"The collection {name} can't be opened now: {error or type(error).__name__}")


def _opened_once(opening: threading.RLock, get: Called) -> Callable[..., Any]:
    @wraps(get)
    def get_collection(
        self: Any, name: str, database_name: str = databases.DEFAULT_DATABASE_NAME
    ) -> databases.Collection:
        opened = self._collections.get((database_name, name))  # without the lock, under which another may be opened
        if opened is not None:
            return opened
        with opening:
            if not self.has_collection(name, database_name):
                raise CollectionNotFoundError(f"collection {name!r} does not exist")
            try:
                return get(self, name, database_name)
            except Exception as error:
                if not is_damage(error):
                    raise
                _say(f"The collection {name} is damaged and removed, to be made again: {error or type(error).__name__}")
                _remove(self, Path(self._collection_dir(name, database_name)))
                raise CollectionNotFoundError(f"collection {name!r} was damaged") from error

    return get_collection


def _one_at_a_time(lock: threading.RLock, function: Called) -> Callable[..., Any]:
    @wraps(function)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return function(*args, **kwargs)

    return locked


def _remove_half_dropped(database: Any) -> None:
    """What a kill left of a collection that was being dropped, or made: it has no name any more, or not yet."""
    for folder in Path(database._collections_root()).iterdir():
        if folder.is_dir() and not (folder / databases.SCHEMA_FILENAME).exists():
            try:
                _remove(database, folder)
            except OSError as error:
                _say(f"{folder} is no collection, and can't be removed: {error}")


def _remove(database: Any, folder: Path) -> None:
    """Whole or not at all: Milvus Lite clears this place when it starts."""
    aside = tempfile.mkdtemp(dir=database._database_staging_root())
    folder.rename(Path(aside, folder.name))
    shutil.rmtree(aside, ignore_errors=True)


def _written_through(write: Callable[..., str]) -> Callable[..., str]:
    @wraps(write)
    def written(table: Any, partition: str, *args: Any, **kwargs: Any) -> str:
        relative = write(table, partition, *args, **kwargs)
        file = Path(partition, relative)
        for path in (file, file.parent, Path(partition), Path(partition).parent):  # folders may be new, too
            sync(path)
        return relative

    return written


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)

"""The embedded default's files: opened once, on the disk before they are named, and lost where they can't be read."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from milvus_lite import MilvusLite
from milvus_lite import db as databases
from milvus_lite.engine import collection as engine
from milvus_lite.engine import compaction, flush
from milvus_lite.exceptions import CollectionNotFoundError
from milvus_lite.schema.types import CollectionSchema, DataType, FieldSchema
from milvus_lite.storage.data_file import read_data_file
from milvus_lite.storage.memtable import MemTable

from tests.contract.test_exact_search import DIM, rows, vectors
from tests.processes import ROOT, environment
from tuwen import lite_process, lite_storage
from tuwen.errors import CollectionGone, VectorDBUnavailable
from tuwen.settings import Settings
from vector_db import VectorDB

CALLERS = 8
SCHEMA = CollectionSchema(
    [FieldSchema("id", DataType.INT64, is_primary=True), FieldSchema("vector", DataType.FLOAT_VECTOR, dim=4)]
)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What lite_storage replaces in this process is as before afterwards. What was synced, in its order."""
    for owner, name in [
        *((MilvusLite, name) for name in ("get_collection", "create_collection", "drop_collection", "close")),
        *((engine.Collection, name) for name in ("__init__", "_apply", "_trigger_flush", "_refresh_segment_cache")),
        (engine.Collection, "_read_snapshot"),
        (flush, "write_data_file"),
        (flush, "write_delta_file"),
        (compaction, "write_data_file"),
    ]:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    found: list[str] = []
    own = os.fsync

    def fsync(descriptor: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        own(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A database's folder, with the collection "products", closed."""
    with MilvusLite(str(tmp_path / "milvus.db")) as database:
        database.create_collection("products", SCHEMA).insert([{"id": 1, "vector": [1.0, 0, 0, 0]}])
    return tmp_path / "milvus.db"


def test_those_who_come_first_at_once_get_one_collection(
    filled: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two openings of one folder give ids twice, and each names in its manifest its own files alone."""
    lite_storage.install(durable=False)
    own, opened, all_open = databases.Collection, [], threading.Barrier(CALLERS)

    def slowly(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        if len(opened) > 1:  # who opens it a second time may wait for the others
            all_open.wait(5)
        else:
            threading.Event().wait(0.3)
        return own(*args, **kwargs)

    monkeypatch.setattr(databases, "Collection", slowly)
    with MilvusLite(str(filled)) as database, ThreadPoolExecutor(CALLERS) as callers:
        barrier = threading.Barrier(CALLERS)

        def first_call(_: int) -> Any:
            barrier.wait()
            return database.get_collection("products")

        assert len({id(each) for each in callers.map(first_call, range(CALLERS))}) == 1
    assert len(opened) == 1


def test_what_a_manifest_names_is_on_the_disk(tmp_path: Path, synced: list[str]) -> None:
    lite_storage.install(durable=True)
    with MilvusLite(str(tmp_path / "milvus.db")) as database:
        collection = database.create_collection("products", SCHEMA)
        for number in range(compaction.COMPACTION_MIN_FILES_PER_BUCKET):
            collection.insert([{"id": number, "vector": [1.0, 0, 0, 0]}])
            collection.delete([number - 1])
            collection.flush()
        collection._wait_for_bg()
        named = collection._manifest.get_all_data_files()["_default"]
    parts = [re.sub(r".*/", "", path) for path in synced]
    manifests = [place for place, part in enumerate(parts) if part.startswith("manifest.json")]
    for written in ["delta_000002_000002.parquet", "data_000001_000001.parquet", *(Path(name).name for name in named)]:
        place = parts.index(written)
        after = parts[place + 1 : min(each for each in manifests if each > place)]
        assert {Path(written).name.split("_")[0], "_default", "partitions"} <= set(after)


def test_nobody_waits_for_segments_to_be_merged_but_a_flush(tmp_path: Path, synced: list[str]) -> None:
    lite_storage.install(durable=False)
    with MilvusLite(str(tmp_path / "milvus.db")) as database, ThreadPoolExecutor() as others:
        collection = database.create_collection("products", SCHEMA)
        collection.insert([{"id": 1, "vector": [1.0, 0, 0, 0]}])
        collection.flush()
        with collection._maintenance_lock:  # as a compaction has it for seconds
            collection.insert([{"id": 2, "vector": [0, 1.0, 0, 0]}])
            flushing = others.submit(collection.flush)
            for _ in range(20):
                assert len(others.submit(collection.get, [1, 2]).result(5)) == 2
                assert len(others.submit(collection.search, [[1.0, 0, 0, 0]]).result(5)[0]) == 2
            assert not flushing.done()
        flushing.result(5)
        assert len(collection.get([1, 2])) == 2
        assert collection._memtable.size() == 0


def test_a_write_beside_a_flush_that_waited_is_kept(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lite_storage.install(durable=False)
    between, own_insert = threading.Event(), MemTable.apply_insert
    with MilvusLite(str(tmp_path / "milvus.db")) as database, ThreadPoolExecutor() as others:
        collection = database.create_collection("products", SCHEMA)
        collection.insert([{"id": 1, "vector": [1.0, 0, 0, 0]}])

        def insert_slowly(memtable: MemTable, batch: Any) -> None:
            between.set()  # its log has it, its memory not yet
            wait([flushing], timeout=0.5)
            own_insert(memtable, batch)

        with collection._maintenance_lock:
            flushing = others.submit(collection.flush)
            monkeypatch.setattr(MemTable, "apply_insert", insert_slowly)
            writing = others.submit(collection.insert, [{"id": 2, "vector": [0, 1.0, 0, 0]}])
            assert between.wait(5)
        writing.result(5)
        flushing.result(5)
        assert len(collection.get([1, 2])) == 2
    with MilvusLite(str(tmp_path / "milvus.db")) as database:
        assert len(database.get_collection("products").get([1, 2])) == 2


def test_deletions_of_rows_that_are_gone_are_forgotten(tmp_path: Path, synced: list[str]) -> None:
    """One row stays from before all of them: Milvus Lite kept them all for its sake."""
    lite_storage.install(durable=False)
    many = 3 * compaction.COMPACTION_MIN_FILES_PER_BUCKET
    left: list[tuple[list[int], int]] = []
    for _ in range(2):
        with MilvusLite(str(tmp_path / "milvus.db")) as database:
            if not left:
                database.create_collection("products", SCHEMA)
            collection = database.get_collection("products")
            for number in [] if left else range(many):
                collection.insert([{"id": number, "vector": [1.0, 0, 0, 0]}])
                collection.delete([number - 1] if number > 1 else [])
                collection.flush()
                collection._wait_for_bg()
            found = [hit["id"] for hit in collection.search([[1.0, 0, 0, 0]], top_k=100)[0]]
            left.append((sorted(found), len(collection._delta_index)))
    kept = [name for names in collection._manifest.get_all_delta_files().values() for name in names]
    assert [ids for ids, _ in left] == [[0, many - 1]] * 2
    assert max(count for _, count in left) < compaction.COMPACTION_MIN_FILES_PER_BUCKET
    assert len(kept) < compaction.COMPACTION_MIN_FILES_PER_BUCKET


def test_files_are_not_waited_for_where_that_is_not_wished(tmp_path: Path, synced: list[str]) -> None:
    lite_storage.install(durable=False)
    with MilvusLite(str(tmp_path / "milvus.db")) as database:
        collection = database.create_collection("products", SCHEMA)
        collection.insert([{"id": 1, "vector": [1.0, 0, 0, 0]}])
    assert [path for path in synced if path.endswith(".parquet")] == []


@pytest.mark.parametrize("torn", ["*.parquet", "schema.json"])
def test_a_damaged_collection_is_lost_and_no_other(
    filled: Path, synced: list[str], torn: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(filled / "collections" / "products", filled / "collections" / "other")
    for file in (filled / "collections" / "products").rglob(torn):
        file.write_bytes(b"")
    lite_storage.install(durable=False)
    with MilvusLite(str(filled)) as database:
        lite_storage.open_all(database, lambda: None)
        assert database.list_collections() == ["other"]
        with pytest.raises(CollectionNotFoundError):
            database.get_collection("products")
        assert database.get_collection("other").num_entities == 1
    assert "The collection products is damaged" in capfd.readouterr().err
    assert list(filled.glob(".database-staging/*")) == []


def test_what_a_kill_left_of_a_collection_goes(filled: Path, synced: list[str]) -> None:
    (filled / "collections" / "products" / "schema.json").unlink()
    lite_storage.install(durable=False)
    with MilvusLite(str(filled)) as database:
        lite_storage.open_all(database, lambda: None)
    assert list(filled.glob("collections/*")) == []


def test_what_the_system_refuses_is_no_damage(filled: Path, tmp_path: Path) -> None:
    [cut] = filled.rglob("data_*.parquet")
    whole = cut.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], bytes(200) + whole[200:]):
        cut.write_bytes(damage)
        assert lite_storage.is_damage(error_of(read_data_file, cut))
    assert not lite_storage.is_damage(error_of(Path("/dev/full").write_bytes, b"full"))
    assert not lite_storage.is_damage(error_of(read_data_file, tmp_path / "none.parquet"))
    assert not lite_storage.is_damage(error_of((tmp_path / "none" / "none").mkdir))
    assert not lite_storage.is_damage(MemoryError())


def error_of(function: Any, *args: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is asked then
        function(*args)
    return caught.value


def test_what_can_not_be_opened_for_now_is_kept_and_tried_again(tmp_path: Path) -> None:
    """As for want of files or of the right to read: here a file stands where a folder should."""
    settings = Settings(_env_file=None, data_dir=tmp_path)
    vector_db = VectorDB(settings)
    for name in ("products", "other"):
        vector_db.create_collection(name, clip_dim=DIM, text_dim=8)
        vector_db.insert(name, rows(vectors(3, seed=1)))
    vector_db.close()
    folder = tmp_path / "milvus.db" / "collections" / "products" / "wal"
    aside = folder.rename(tmp_path / "aside")
    folder.write_text("in its place")
    vector_db = VectorDB(settings)
    assert len(next(vector_db.iterate_rows("other"))) == 3
    with pytest.raises(VectorDBUnavailable) as refused:
        vector_db.insert("products", rows(vectors(1, seed=2)))
    assert not isinstance(refused.value, CollectionGone)
    folder.unlink()
    aside.rename(folder)
    assert len(next(vector_db.iterate_rows("products"))) == 3
    vector_db.close()


FLUSHED_BETWEEN_LOOKS = """
import sys
from milvus_lite import MilvusLite
from milvus_lite.engine.collection import Collection
from milvus_lite.schema.types import CollectionSchema, DataType, FieldSchema
from tuwen import lite_search, lite_storage

lite_search.install()
lite_storage.install(durable=False)
number = DataType.INT64
fields = [FieldSchema("id", number, is_primary=True), FieldSchema("product_id", number)]
fields.append(FieldSchema("v", DataType.FLOAT_VECTOR, dim=2))
database = MilvusLite(sys.argv[1])
collection = database.create_collection("products", CollectionSchema(fields))
collection.load()
rows = [{"id": each, "product_id": each, "v": [1.0, each]} for each in range(20)]
collection.insert(rows[:10])
collection.flush()
collection.insert(rows[10:])
own = Collection._read_snapshot

def look_and_flush(self):
    seen = own(self)
    self._trigger_flush()
    return seen

Collection._read_snapshot = look_and_flush
search = {"top_k": 50, "anns_field": "v", "metric_type": "COSINE", "output_fields": ["product_id"]}
print(len(collection.search([[1.0, 0.0]], **search)[0]))
database.close()
"""


def test_a_flush_between_a_searchs_two_looks_hides_no_row(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FLUSHED_BETWEEN_LOOKS, str(tmp_path / "milvus.db")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout == "20\n", done.stderr


SLOWLY = """
import json, time
for _ in range(3):
    time.sleep(1.5)
    print(json.dumps({"goes_on": True}), flush=True)
print(json.dumps({"port": 1}), flush=True)
"""


def test_a_child_that_says_it_goes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite_process, "START_S", 4.0)
    for program, answer in ((SLOWLY, {"port": 1}), ("import time; time.sleep(60)", {})):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
            assert lite_process._answer_of(child) == answer


def test_a_child_whose_service_is_killed_while_it_opens_its_file_lets_go_of_it(filled: Path) -> None:
    [file] = filled.rglob("data_*.parquet")
    file.unlink()
    os.mkfifo(file)  # nobody writes: to open it takes for ever
    command, pipe = [sys.executable, "-m", "tuwen.lite_process", str(filled)], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == lite_process.GOES_ON
        child.stdin.close()
        child.wait(10)
    MilvusLite(str(filled)).close()

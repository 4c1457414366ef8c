"""The same cases on a Milvus Lite file and on a Milvus Lite server."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import numpy as np
import psutil
import pytest
from pymilvus import DataType, MilvusClient

from data_models import AttributeFilter
from tests.processes import ROOT, environment, wait_until
from tuwen.cores import stand_behind
from tuwen.errors import MilvusFileInUse, VectorDBUnavailable, VectorsRejected
from tuwen.settings import Settings
from vector_db import RowKey, VectorDB, VectorRow, filter_expression, new_row_token, token_made_at

DIM = 8
TOKEN = new_row_token()
ROWS, FAR_DIM = 1000, 256
# Of a Milvus Lite that starts with it; by itself it keeps as many rows as these in memory.
SMALL_MEMTABLE = "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES", str(256 * 1024)


@pytest.fixture(scope="module", params=["file", "server"])
def vector_db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorDB]:
    uri = request.getfixturevalue("milvus") if request.param == "server" else ""
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("milvus"), milvus_uri=uri)
    opened = VectorDB(settings)
    yield opened
    opened.close()


@pytest.fixture
def collection(vector_db: VectorDB) -> Iterator[str]:
    name = f"products_{uuid4().hex[:8]}"
    vector_db.create_collection(name, clip_dim=DIM, text_dim=DIM)
    yield name
    vector_db.drop_collection(name)


def segments_in(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("data/*.parquet"))


def row(number: int, **changes: Any) -> VectorRow:
    vector = np.zeros(DIM, np.float32)
    vector[number % DIM] = 1
    values: dict[str, Any] = {
        "product_id": number,
        "row_token": TOKEN + number,
        "image_clip_vector": vector,
        "text_clip_vector": vector,
        "text_bge_vector": vector,
        "image_path": "aa/a.png",
        "title": "红色布艺沙发",
        "category": None,
        "attributes": {},
    }
    return VectorRow(**(values | changes))


@pytest.mark.parametrize("is_new", [True, False])
def test_a_shops_rows_are_found_in_collections_of_before_too(vector_db: VectorDB, is_new: bool) -> None:
    name = f"products_{uuid4().hex[:8]}"
    if is_new:
        vector_db.create_collection(name, clip_dim=DIM, text_dim=DIM)
    else:
        create_as_before(vector_db, name)
    shops = ["default", "a", "b", "a", "A"]
    ids = vector_db.insert(name, [row(number, shop_id=shop_id) for number, shop_id in enumerate(shops)])

    def found(**filters: Any) -> list[int]:
        call = {"limit": 9, "filter_expression": filter_expression(**filters)}
        hits = vector_db.search(name, "image_clip_vector", [row(0).image_clip_vector], **call)[0]  # type: ignore[arg-type]
        return sorted(ids.index(hit.row.milvus_id) for hit in hits)

    assert found() == [0, 1, 2, 3, 4]
    assert [found(shop_id=each) for each in ("default", "a", "b", "A", "none")] == [[0], [1, 3], [2], [4], []]
    assert found(shop_id="a", attributes={"x": 1}) == found(shop_id="default", categories=["沙发"]) == []
    vector_db.drop_collection(name)


def create_as_before(vector_db: VectorDB, name: str) -> None:
    """Without a column for the shop, as versions made it that knew none."""
    schema = MilvusClient.create_schema(auto_id=True, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    for field in ("image_clip_vector", "text_clip_vector", "text_bge_vector"):
        schema.add_field(field, DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("product_id", DataType.INT64)
    schema.add_field("image_path", DataType.VARCHAR, max_length=2000)
    schema.add_field("title", DataType.VARCHAR, max_length=2000)
    schema.add_field("category", DataType.VARCHAR, max_length=400, nullable=True)
    client = vector_db._connected()
    client.create_collection(name, schema=schema)
    index = client.prepare_index_params()
    for field in ("image_clip_vector", "text_clip_vector", "text_bge_vector"):
        index.add_index(field, index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200})
    client.create_index(name, index_params=index)
    client.load_collection(name)


def test_rows_come_back_by_likeness_until_they_are_deleted(vector_db: VectorDB, collection: str) -> None:
    ids = vector_db.insert(collection, [row(number) for number in range(4)])
    assert len(set(ids)) == 4
    for field in ("image_clip_vector", "text_clip_vector", "text_bge_vector"):
        hits = vector_db.search(collection, field, [row(2).image_clip_vector], limit=3)[0]
        assert (hits[0].row.milvus_id, round(hits[0].score, 5)) == (ids[2], 1.0)
        assert len(hits) == 3
    vector_db.delete(collection, [ids[2], ids[3]], [0, 1])  # these ids are of other products
    vector_db.delete(collection, [ids[2], 123_456], [2])
    vector_db.delete(collection, [], [])
    assert ids[2] not in [
        h.row.milvus_id
        for h in vector_db.search(collection, "image_clip_vector", [row(2).image_clip_vector], limit=9)[0]
    ]
    left = [RowKey(ids[number], number, TOKEN + number) for number in (0, 1, 3)]
    for strong in (False, True):
        assert vector_db.existing_rows(collection, ids, strong=strong) == set(left)
    assert [each for page in vector_db.iterate_rows(collection, batch_size=2) for each in page] == left
    assert [each for page in vector_db.iterate_rows(collection, after=ids[0]) for each in page] == left[1:]


def test_filters_find_exactly_what_they_say(vector_db: VectorDB, collection: str) -> None:
    tricky = 'a"b\\c or true\n\r\t' + "".join(map(chr, (0, 1, 8, 12, 27, 127, 133, 0x2028, 0xFEFF, 0x1F600)))
    ids = vector_db.insert(
        collection,
        [
            row(0, category="沙发", attributes={"颜色": "红", "n": 1, "ok": True}),
            row(1, category=tricky, attributes={tricky: tricky}),
            row(2, attributes={"n": True, "ok": 1, "half": 1.0}),
        ],
    )

    def found(**filters: Any) -> set[int]:
        expression = filter_expression(**filters)
        vector = row(0).image_clip_vector
        hits = vector_db.search(collection, "image_clip_vector", [vector], limit=9, filter_expression=expression)[0]
        return {ids.index(hit.row.milvus_id) for hit in hits}

    assert found() == {0, 1, 2}
    assert found(categories=["沙发", "床"]) == {0}
    assert found(categories=[tricky]) == {1}
    assert found(categories_not=["沙發"]) == {1, 2}
    assert found(categories_not=["沙发", "床"], has_category=True) == {1}
    assert found(has_category=True) == {0, 1}
    assert found(has_category=False) == {2}
    assert found(has_category=False, categories_not=[tricky], attributes={"half": 1.0}) == {2}
    assert found(attributes={"颜色": "红", "n": 1, "ok": True}) == {0}
    assert found(attributes={"颜色": "蓝"}) == set()
    if vector_db.is_file:  # the tests' server is Milvus Lite as it comes, to which true is 1; to Milvus it is not
        assert found(attributes={"ok": True}) == found(attributes={"n": 1}) == {0}
        assert found(attributes={"n": True}) == found(attributes={"ok": 1.0}) == found(attributes={"half": 1}) == {2}
    assert found(attributes={tricky: tricky}) == {1}
    assert found(categories=['" or true or category == "']) == set()
    assert found(categories=["沙\u200b發"]) == found(categories=["沙发"]) == {0}


def test_attributes_are_filtered_by_lists_ranges_and_what_is_not_there(vector_db: VectorDB, collection: str) -> None:
    attributes: list[dict[str, Any]] = [
        {"size": "M", "weight": 1.5, "tags": ["new", 7], "note": None},
        {"size": "L", "weight": 3, "tags": ["new", "sale"]},
        {"size": 40, "weight": "3", "tags": "new"},
        {"weight": -2, "tags": [], "note": "", "deep": {"size": "M"}},
        {},
    ]
    ids = vector_db.insert(collection, [row(number, attributes=each) for number, each in enumerate(attributes)])

    def found(key: str, **conditions: Any) -> set[int]:
        expression = filter_expression(attributes={key: AttributeFilter(**conditions)})
        vector = row(0).image_clip_vector
        hits = vector_db.search(collection, "image_clip_vector", [vector], limit=9, filter_expression=expression)[0]
        return {ids.index(hit.row.milvus_id) for hit in hits}

    assert found("size", any_of=["M", 40, "40"]) == {0, 2}
    assert found("size", none_of=["M", 40]) == {1, 3, 4}
    assert found("size", any_of=["L", "M"], none_of=["M"]) == {1}
    assert found("weight", min=1.5) == {0, 1}
    assert found("weight", max=1.5) == {0, 3}
    assert found("weight", min=-2, max=-1.5) == {3}
    assert found("tags", contains_any=["sale", 7]) == {0, 1}
    assert found("tags", contains_all=["sale", "new"]) == {1}
    assert found("tags", contains_any=["'", '"]']) == set()
    assert found("note", is_set=True) == {3}
    assert found("note", is_set=False) == {0, 1, 2, 4}
    assert found("nowhere", is_set=False, none_of=[1]) == {0, 1, 2, 3, 4}
    expression = filter_expression(categories=["x"], attributes={"size": AttributeFilter(none_of=["M"]), "tags": "new"})
    assert expression == (
        'category in ["x"] and (not (exists attributes["size"]) or not (attributes["size"] == "M"))'
        ' and attributes["tags"] == "new"'
    )


def test_conditions_of_attributes_fit_the_rows_that_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them in segments, the last ones in memory still; each asked twice."""
    monkeypatch.setenv(*SMALL_MEMTABLE)
    vector_db = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    vector_db.create_collection("products", clip_dim=FAR_DIM, text_dim=DIM)
    random = Random(0)
    values: list[Any] = [None, True, 1, 1.0, "1", 2.5, "红", ["红", 1], []]
    attributes = [{"a": random.choice(values), "b": random.choice(values)} for _ in range(ROWS)]
    vectors = np.random.default_rng(0).standard_normal((ROWS, FAR_DIM)).astype(np.float32)
    rows = [
        row(number, image_clip_vector=vector, text_clip_vector=vector, category=str(number % 2), attributes=each)
        for number, (vector, each) in enumerate(zip(vectors, attributes, strict=True))
    ]
    ids = [each for begin in range(0, ROWS, 200) for each in vector_db.insert("products", rows[begin : begin + 200])]
    assert segments_in(tmp_path)

    def is_one(value: Any) -> bool:
        return not isinstance(value, bool) and value == 1

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    cases: list[tuple[AttributeFilter | str | int | bool, Callable[[Any], bool]]] = [
        (1, is_one),
        (True, lambda value: value is True),
        (AttributeFilter(any_of=["红", 1]), lambda value: is_one(value) or value == "红"),
        (AttributeFilter(none_of=["红", True]), lambda value: value is not True and value != "红"),
        (AttributeFilter(min=1, max=2.4), is_one),
        (AttributeFilter(min=2), lambda value: is_number(value) and value >= 2),
        (AttributeFilter(contains_any=["红", "蓝"]), lambda value: isinstance(value, list) and "红" in value),
        (AttributeFilter(is_set=False), lambda value: value is None),
    ]
    for (a, fits_a), (b, fits_b) in [*itertools.product(cases[:3], cases), *itertools.product(cases, cases[:3])]:
        expression = filter_expression(categories=["1"], attributes={"a": a, "b": b})
        expected = {
            number for number, each in enumerate(attributes) if number % 2 and fits_a(each["a"]) and fits_b(each["b"])
        }
        [hits] = vector_db.search(
            "products", "image_clip_vector", [vectors[0]], limit=ROWS, filter_expression=expression
        )
        assert {ids.index(hit.row.milvus_id) for hit in hits} == expected, expression
    vector_db.close()


def test_a_filter_that_fits_one_row_finds_it_however_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them in segments, the last ones in memory still."""
    monkeypatch.setenv(*SMALL_MEMTABLE)
    vector_db = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    vector_db.create_collection("products", clip_dim=FAR_DIM, text_dim=DIM)
    vectors = np.random.default_rng(0).standard_normal((ROWS, FAR_DIM)).astype(np.float32)
    rows = [
        row(number, image_clip_vector=vector, text_clip_vector=vector, category=str(number))
        for number, vector in enumerate(vectors)
    ]
    ids = [each for begin in range(0, ROWS, 200) for each in vector_db.insert("products", rows[begin : begin + 200])]
    assert segments_in(tmp_path)
    for number in range(0, ROWS, 20):
        expression = filter_expression(categories=[str(number)])
        far = -vectors[number]
        hits = vector_db.search("products", "image_clip_vector", [far], limit=1, filter_expression=expression)[0]
        assert [hit.row.milvus_id for hit in hits] == [ids[number]]
    vector_db.close()


def test_a_quantized_index_finds_a_row_by_its_own_vector(milvus: str, tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None, data_dir=tmp_path, milvus_uri=milvus, milvus_index_type="HNSW_SQ", milvus_shards=2
    )
    vector_db, name = VectorDB(settings), f"products_{uuid4().hex[:8]}"
    vector_db.create_collection(name, clip_dim=FAR_DIM, text_dim=DIM)
    vectors = np.random.default_rng(0).standard_normal((ROWS, FAR_DIM)).astype(np.float32)
    ids = vector_db.insert(name, [row(n, image_clip_vector=v, text_clip_vector=v) for n, v in enumerate(vectors)])
    found = vector_db.search(name, "image_clip_vector", list(vectors[::50]), limit=1)
    index = vector_db._ask(lambda client: client.describe_index(name, "image_clip_vector"))
    vector_db.drop_collection(name)
    vector_db.close()
    assert [hits[0].row.milvus_id for hits in found] == ids[::50]
    assert index["index_type"] == "HNSW_SQ"


def test_a_token_is_never_given_twice_and_tells_when_it_was_made() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    tokens = {new_row_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(before <= token_made_at(token) <= datetime.now(UTC) for token in tokens)
    assert all(0 < token < 2**63 for token in tokens)


def test_the_longest_chinese_title_fits(vector_db: VectorDB, collection: str) -> None:
    assert vector_db.insert(collection, [row(0, title="图" * 500, category="类" * 100)])
    with pytest.raises(VectorsRejected):  # pymilvus itself refuses, before the server is asked
        vector_db.insert(collection, [row(0, attributes={"n": 2**64})])
    assert vector_db.insert(collection, [row(0, title="㌢" * 500)])  # which is three characters each
    with pytest.raises(VectorsRejected, match="image_path"):
        vector_db.insert(collection, [row(0), row(1, image_path="图" * 2001)])
    assert sum(len(page) for page in vector_db.iterate_rows(collection)) == 2


def test_what_was_inserted_is_found_again_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    first = VectorDB(settings)
    first.create_collection("products", clip_dim=DIM, text_dim=DIM)
    ids = first.insert("products", [row(0), row(1)])
    first.close()
    for call in ("search", "existing_rows", "iterate_rows", "delete"):
        # Each may be the first to meet the unloaded collection.
        again = VectorDB(settings)
        if call == "search":
            found = {
                hit.row.milvus_id
                for hit in again.search("products", "text_bge_vector", [row(0).text_bge_vector], limit=9)[0]
            }
        elif call == "existing_rows":
            found = {each.milvus_id for each in again.existing_rows("products", ids)}
        elif call == "iterate_rows":
            found = {each.milvus_id for page in again.iterate_rows("products") for each in page}
        else:
            again.delete("products", [ids[0]], [0])
            found = {ids[0], *(each.milvus_id for each in again.existing_rows("products", ids))}
        assert found == set(ids), call
        again.close()


def test_a_server_that_is_down_is_named() -> None:
    down = VectorDB(Settings(_env_file=None, milvus_uri="http://127.0.0.1:9", milvus_timeout_s=1))
    with pytest.raises(VectorDBUnavailable, match="MILVUS_URI"):
        down.check()


def test_a_file_of_another_process_is_named(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    holder = VectorDB(settings)
    holder.check()
    program = "from tuwen.settings import Settings; from vector_db import VectorDB; VectorDB(Settings()).check()"
    other = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(DATA_DIR=tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert MilvusFileInUse.__name__ in other.stderr
    assert "another process has it" in other.stderr
    holder.close()


# --- Milvus Lite's own process ----------------------------------------------------------------------------------------


def lite_processes_of(pid: int, folder: Path) -> list[psutil.Process]:
    alive = [child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if str(folder) in " ".join(child.cmdline())]


def test_a_milvus_lite_that_was_killed_is_started_again_with_what_was_in_it(tmp_path: Path) -> None:
    db = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    db.create_collection("products", clip_dim=DIM, text_dim=DIM)
    ids = db.insert("products", [row(0), row(1)])
    [killed] = lite_processes_of(os.getpid(), tmp_path)
    if sys.platform == "linux":
        loaded = Path(f"/proc/{killed.pid}/maps").read_text()
        assert "pyarrow" in loaded
        assert "/pandas/" not in loaded  # 80 MiB, of which nothing is used there
    killed.kill()
    killed.wait(10)

    def found() -> bool:
        try:
            hits = db.search("products", "image_clip_vector", [row(1).image_clip_vector], limit=1)[0]
        except VectorDBUnavailable:  # whoever was at work when it ended
            return False
        return hits[0].row.milvus_id == ids[1]

    with ThreadPoolExecutor(1, initializer=stand_behind) as of_the_index:
        of_the_index.submit(wait_until, found, timeout_s=30, what="Milvus Lite to answer again").result()
    [started_again] = lite_processes_of(os.getpid(), tmp_path)
    assert started_again.nice() == psutil.Process().nice()  # it serves searches, whoever started it
    db.close()
    assert not killed.is_running()


OPENS_AND_STAYS = """
import sys, time
from vector_db import VectorDB
from tuwen.settings import Settings
VectorDB(Settings(_env_file=None, data_dir=sys.argv[1])).check()
print("open", flush=True)
time.sleep(600)
"""


def test_milvus_lite_ends_with_a_service_that_is_killed_and_the_next_one_has_its_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENS_AND_STAYS, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "open\n"
        [orphan] = lite_processes_of(service.pid, tmp_path)
        for signal_to_all in (signal.SIGINT, signal.SIGTERM):  # as a terminal and systemd send them
            orphan.send_signal(signal_to_all)
        service.kill()
    db = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    db.check()
    assert orphan not in lite_processes_of(os.getpid(), tmp_path)
    db.close()
    orphan.wait(10)


def test_a_milvus_lite_that_hangs_at_the_first_call_is_met_later(tmp_path: Path) -> None:
    db = VectorDB(Settings(_env_file=None, data_dir=tmp_path, milvus_timeout_s=1))
    assert db._lite is not None
    db._lite.start()
    [child] = lite_processes_of(os.getpid(), tmp_path)
    child.suspend()
    with pytest.raises(VectorDBUnavailable):
        db.check()
    child.resume()
    wait_until(lambda: answers(db), timeout_s=30, what="Milvus Lite to answer")
    assert lite_processes_of(os.getpid(), tmp_path) == [child]
    db.close()


def test_a_milvus_lite_that_cannot_start_again_is_waited_for(tmp_path: Path) -> None:
    """It was well before: what needs it must not give up, nor anybody move its file away."""
    db = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    db.check()
    file = Path(db._settings.milvus_address)
    aside = file.rename(tmp_path / "aside")
    file.write_text("in its place")
    [child] = lite_processes_of(os.getpid(), tmp_path)
    child.kill()
    child.wait(10)
    with pytest.raises(VectorDBUnavailable, match="can't be read"):
        db.check()
    file.unlink()
    aside.rename(file)
    wait_until(lambda: answers(db), timeout_s=30, what="Milvus Lite to answer")
    db.close()
    with pytest.raises(VectorDBUnavailable, match="stopping"):
        db.check()
    assert lite_processes_of(os.getpid(), tmp_path) == []


def test_a_relative_path_is_meant_from_the_folder_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # the child finds our modules all the same
    db = VectorDB(Settings(_env_file=None, milvus_uri="here.db"))
    db.check()
    db.close()
    assert (tmp_path / "here.db").is_dir()


def answers(db: VectorDB) -> bool:
    try:
        db.check()
    except VectorDBUnavailable:
        return False
    return True

"""The embedded default finds the nearest rows, all of them, whatever was filtered, deleted or written just now."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.contract.test_vector_db import SMALL_MEMTABLE, row, segments_in
from tests.servers import running_milvus
from tuwen.settings import Settings
from vector_db import VectorDB, VectorRow, filter_expression

ROWS, DIM = 4000, 64
SHARES = {"0.1 %": 1000, "1 %": 100, "10 %": 10, "50 %": 2}  # one row in so many
TWINS = 25  # rows with the very same vector


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((20, DIM))
    found = centres[chance.integers(0, 20, count)] + chance.standard_normal((count, DIM))
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def rows(of: NDArray[np.float32], first: int = 0) -> list[VectorRow]:
    return [
        row(number, image_clip_vector=each, text_clip_vector=each, category=category(number))
        for number, each in enumerate(of, start=first)
    ]


def category(number: int) -> str:
    """Each of SHARES' by its own digit of a number."""
    return " ".join(str(number % one_in == 0) for one_in in SHARES.values())


class Catalogue:
    def __init__(self, folder: Path) -> None:
        self.vector_db = VectorDB(Settings(_env_file=None, data_dir=folder, milvus_timeout_s=30))
        self.vector_db.create_collection("products", clip_dim=DIM, text_dim=8)
        self.vectors = vectors(ROWS, seed=1)
        self.vectors[:: ROWS // TWINS] = self.vectors[0]
        self.ids = np.array(self.insert(0, ROWS))
        self.is_there = np.ones(ROWS, bool)

    def insert(self, start: int, end: int) -> list[int]:
        """By hundreds: some are in segments then, some still in memory."""
        ids: list[int] = []
        for first in range(start, end, 100):
            ids += self.vector_db.insert("products", rows(self.vectors[first : first + 100], first))
        return ids

    def delete(self, numbers: np.ndarray) -> None:
        self.vector_db.delete("products", self.ids[numbers].tolist(), numbers.tolist())
        self.is_there[numbers] = False

    def nearest(self, queries: np.ndarray, limit: int, one_in: int | None = None) -> list[list[int]]:
        """Products, as the service finds them."""
        categories = [category(number) for number in range(1000) if one_in and number % one_in == 0]
        expression = filter_expression(categories=sorted(set(categories)))
        hits = self.vector_db.search(
            "products", "image_clip_vector", list(queries), limit=limit, filter_expression=expression
        )
        return [[hit.row.product_id for hit in each] for each in hits]

    def truly_nearest(self, queries: np.ndarray, limit: int, one_in: int = 1) -> list[list[int]]:
        counts = self.is_there & (np.arange(ROWS) % one_in == 0)
        cosines = np.where(counts, queries.astype(np.float64) @ self.vectors.T.astype(np.float64), -np.inf)
        order = np.lexsort((np.broadcast_to(self.ids, cosines.shape), -cosines), axis=1)
        return [list(each[: min(limit, int(counts.sum()))]) for each in order]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    folder = tmp_path_factory.mktemp("exact")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*SMALL_MEMTABLE)
        opened = Catalogue(folder)
    assert segments_in(folder) > 1
    yield opened
    opened.vector_db.close()


def recall(found: list[list[int]], wanted: list[list[int]]) -> float:
    return sum(len(set(f) & set(w)) for f, w in zip(found, wanted, strict=True)) / sum(map(len, wanted))


@pytest.mark.parametrize("share", SHARES)
def test_every_filter_finds_the_nearest(catalogue: Catalogue, share: str) -> None:
    queries = vectors(40, seed=2)
    found = catalogue.nearest(queries, 10, SHARES[share])
    assert recall(found, catalogue.truly_nearest(queries, 10, SHARES[share])) == 1.0
    assert [len(each) for each in found] == [min(10, -(-ROWS // SHARES[share]))] * 40


def test_pages_show_each_hit_once_and_skip_none(catalogue: Catalogue) -> None:
    """Each page is a search of its own with a higher limit, and others search beside it."""
    walks = np.concatenate([vectors(20, seed=3), catalogue.vectors[: 20 * ROWS // TWINS : ROWS // TWINS]])
    whole = catalogue.nearest(walks, 200)
    assert all(len(set(each)) == 200 for each in whole)
    for query, at_once in zip(walks, whole, strict=True):
        for end in range(10, 200, 10):
            assert catalogue.nearest(query[np.newaxis], end)[0] == at_once[:end]


def test_what_was_deleted_is_not_found_and_leaves_no_gap(catalogue: Catalogue) -> None:
    queries = vectors(10, seed=4)
    nearest = catalogue.truly_nearest(queries, 100)
    catalogue.delete(np.unique(np.concatenate(nearest)))
    found = catalogue.nearest(queries, 50)
    assert found == catalogue.truly_nearest(queries, 50)


def test_indexes_of_earlier_versions_are_dropped_and_a_torn_one_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or a kill, leaves an index's file short; its collection could not be loaded any more."""
    queries = vectors(5, seed=5)
    monkeypatch.setenv("MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES", str(512 * 1024))  # as earlier versions had it
    with running_milvus(tmp_path / "server") as address:
        server = VectorDB(Settings(_env_file=None, data_dir=tmp_path, milvus_uri=address))
        server.create_collection("products", clip_dim=DIM, text_dim=8)
        for first in range(0, ROWS, 500):
            server.insert("products", rows(vectors(500, seed=first), first))
        server.close()
    folder = tmp_path / "milvus.db"
    (tmp_path / "server" / "milvus").rename(folder)
    files = sorted(folder.rglob("*.*idx"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for _ in range(2):
        opened = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
        hits = opened.search("products", "image_clip_vector", list(queries), limit=5)
        assert [len(each) for each in hits] == [5] * 5
        assert opened.insert("products", rows(vectors(1, seed=9), ROWS))
        opened.close()
    assert sorted(folder.rglob("*.*idx")) == []


def test_of_thousands_with_one_picture_the_oldest_come_first(tmp_path: Path) -> None:
    opened = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    opened.create_collection("products", clip_dim=DIM, text_dim=8)
    alike = np.repeat(vectors(1, seed=6), 3000, axis=0)
    ids = [each for first in range(0, 3000, 500) for each in opened.insert("products", rows(alike[:500], first))]
    opened.delete("products", ids[:50], list(range(50)))
    for _ in range(2):
        hits = opened.search("products", "image_clip_vector", [alike[0]], limit=10)[0]
        assert [hit.row.product_id for hit in hits] == list(range(50, 60))
        opened.close()  # and from the disk
        opened = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    opened.close()


def test_what_is_still_in_memory_is_found_as_it_is_now(tmp_path: Path) -> None:
    """Which is put together once between two writes, for all searches."""
    vector_db = VectorDB(Settings(_env_file=None, data_dir=tmp_path, milvus_timeout_s=30))
    vector_db.create_collection("products", clip_dim=DIM, text_dim=8)
    of = vectors(20, seed=5)

    def nearest(expression: str = "") -> list[int]:
        found = vector_db.search("products", "image_clip_vector", [of[7]], limit=20, filter_expression=expression)
        return [hit.row.product_id for hit in found[0]]

    is_even = filter_expression(categories=[category(0), category(10), category(2)])
    ids = vector_db.insert("products", rows(of))
    assert nearest()[0] == 7
    assert set(nearest(is_even)) == set(range(0, 20, 2))
    vector_db.delete("products", [ids[7], ids[8]], [7, 8])
    assert set(nearest()) == set(range(20)) - {7, 8}
    assert set(nearest(is_even)) == set(range(0, 20, 2)) - {8}
    vector_db.insert("products", rows(of[7:8], first=30))
    assert nearest()[0] == 30
    assert set(nearest(is_even)) == set(range(0, 20, 2)) - {8} | {30}
    vector_db.close()


@pytest.mark.parametrize("torn", ["*.parquet", "schema.json"])
def test_a_damaged_collection_is_in_no_others_way(tmp_path: Path, torn: str) -> None:
    """One that is built, or was given up, and that nobody asks for."""
    opened = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    for name in ("products", "other"):
        opened.create_collection(name, clip_dim=DIM, text_dim=8)
        for first in range(0, ROWS, 500):
            opened.insert(name, rows(vectors(500, seed=first), first))
    opened.close()
    files = [file for file in tmp_path.rglob(torn) if "other" in file.parts]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:10])
    opened = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    assert len(opened.search("products", "image_clip_vector", list(vectors(1, seed=7)), limit=5)[0]) == 5
    opened.close()

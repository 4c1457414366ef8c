"""Exact search for Milvus Lite 3.2, inside its process, in the place of its own executor.

Its own walks over all rows in Python for each call (32 ms at 50,000 settled rows), and is quick only where a segment
has its HNSW graph, which is made anew with each compaction, behind what is written. One matrix product for all rows and
all queries of a call has a recall of 1 with any filter, is there with the first row, and takes 20 to 30 ms for one
query among 100,000 rows (docs/performance.md).
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from milvus_lite.engine import collection as engine
from milvus_lite.search.filter import evaluate_mask
from milvus_lite.search.indexed_filter import evaluate_segment_filter
from numpy.typing import NDArray

from tuwen import lite_filters
from tuwen.lite_filters import DYNAMIC_FIELDS

Vectors = NDArray[np.float32]

# float32 adds up 512 products in an order that depends on how many rows and queries there are. What is nearer to the
# last place than this is looked at again in float64, row by row, so that the order of hits is the same at every limit.
ROUNDING = 1e-5
# Where a filter leaves fewer than this share of a segment, its rows are picked out before the product.
SPARSE_SHARE = 0.25
# Rows of deleted products take places until a compaction removes them.
SPARE_ROWS = 8
CHUNK = 4096  # rows that are looked at again at a time
# Its index has no file.
SPARSE_FIELD = "title_bm25"


class _Source(NamedTuple):
    """A segment, or the rows that are still in memory."""

    pks: Sequence[Any]
    seqs: NDArray[np.uint64]
    vectors: Vectors
    """Of length 1 each."""
    pk_to_row: dict[Any, int]
    fitting: NDArray[np.intp] | None
    """The rows that the filter lets through; None: all."""
    places: Callable[[int], tuple[Any, int]]
    """Of a row: the Arrow table or batch that it is in, and where."""


def install() -> None:
    """For all collections of this process."""
    own_search, own_load = engine.execute_search_with_index, engine.Collection.load
    lite_filters.install()

    def execute(query_vectors: Vectors, **call: Any) -> list[list[dict[str, Any]]]:
        if call["metric_type"] != "COSINE" or call["partition_names"] or call["output_fields"] is None:
            return own_search(query_vectors=query_vectors, **call)  # type: ignore[no-any-return]
        return search_exactly(query_vectors, **call)

    def load(collection: Any) -> None:
        if collection.load_state != "loaded":
            _drop_needless_indexes(collection)
        own_load(collection)

    engine.execute_search_with_index, engine.Collection.load = execute, load


def _drop_needless_indexes(collection: Any) -> None:
    """Those that earlier versions made: they take memory, and a file of one that was cut off stops its collection."""
    try:
        for field in set(collection.list_indexes()) - {SPARSE_FIELD}:
            collection.drop_index(field)
    except OSError as error:  # a full disk; they are no harm until it is well
        print(f"Indexes of {collection.name} could not be dropped: {error}", file=sys.stderr)


def search_exactly(
    query_vectors: Vectors,
    *,
    segments: Iterable[Any],
    memtable: Any,
    delta_index: Any,
    top_k: int,
    vector_field: str,
    output_fields: Sequence[str],
    compiled_filter: Any,
    indexed_filter_plan: Any,
    project_record_fn: Callable[[dict[str, Any]], dict[str, Any]],
    **_: Any,
) -> list[list[dict[str, Any]]]:
    """For each query the nearest rows, best first: `id`, `distance` (1 − cosine) and `entity`."""
    sources = [
        _as_source(segment, vector_field, compiled_filter, indexed_filter_plan)
        for segment in segments
        if segment.num_rows
    ]
    sources.append(_in_memory(memtable, vector_field, compiled_filter))
    search = _Search([source for source in sources if _count(source)], delta_index, memtable.delete_index_snapshot())
    if not search.sources:
        return [[] for _ in query_vectors]
    queries = _of_length_one(np.asarray(query_vectors, np.float32))
    scores = np.concatenate([_scores(queries, source) for source in search.sources], axis=1)
    return [
        [
            {"id": pk, "distance": distance, "entity": project_record_fn(search.record(number, row, output_fields))}
            for distance, pk, number, row in search.nearest(query, row_scores, top_k)
        ]
        for query, row_scores in zip(queries, scores, strict=True)
    ]


class _Search:
    def __init__(self, sources: list[_Source], delta_index: Any, local_deletes: dict[Any, tuple[int, str]]) -> None:
        self.sources = sources
        self._starts = np.cumsum([0, *map(_count, sources)])
        self._delta_index = delta_index
        self._local_deletes = local_deletes
        """What was deleted and is not on the disk yet: when, and from which partition."""

    def nearest(self, query: Vectors, scores: Vectors, top_k: int) -> list[tuple[float, Any, int, int]]:
        """Distance, id, source and row of each, best first. `scores`: of all rows that fit."""
        found = len(scores)
        wanted = min(top_k + SPARE_ROWS, found)
        while True:
            places = _best(scores, wanted)
            numbers = np.searchsorted(self._starts, places, side="right") - 1
            rows = self._rows(numbers, places - self._starts[numbers])
            nearest = self._alive(self._in_order(query, numbers, rows), top_k)
            if len(nearest) == top_k or wanted == found:
                return nearest
            wanted = min(wanted * 2, found)

    def _rows(self, numbers: NDArray[np.intp], positions: NDArray[np.intp]) -> NDArray[np.intp]:
        """Of what is so far behind in each source's fitting rows."""
        for number in np.unique(numbers).tolist():
            fitting = self.sources[number].fitting
            if fitting is not None:
                of_source = numbers == number
                positions[of_source] = fitting[positions[of_source]]
        return positions

    def _in_order(
        self, query: Vectors, numbers: NDArray[np.intp], rows: NDArray[np.intp]
    ) -> Iterator[tuple[float, Any, int, int]]:
        """By distance, and by id where that is the same: thousands are, where products share a picture."""
        distances, ids = np.empty(len(rows)), np.empty(len(rows), np.int64)
        for number in np.unique(numbers).tolist():
            of_source, source = np.flatnonzero(numbers == number), self.sources[number]
            ids[of_source] = [source.pks[row] for row in rows[of_source].tolist()]
            for chunk in np.split(of_source, range(CHUNK, len(of_source), CHUNK)):
                distances[chunk] = 1.0 - (source.vectors[rows[chunk]].astype(np.float64) * query).sum(axis=1)
        for place in np.lexsort((ids, distances)).tolist():
            yield float(distances[place]), int(ids[place]), int(numbers[place]), int(rows[place])

    def _alive(self, in_order: Iterable[tuple[float, Any, int, int]], top_k: int) -> list[tuple[float, Any, int, int]]:
        return list(islice((each for each in in_order if self._is_alive(each[2], each[3])), top_k))

    def record(self, number: int, row: int, fields: Sequence[str]) -> dict[str, Any]:
        """These fields alone: a row's vectors as Python's floats would take longer than the search for it."""
        table, place = self.sources[number].places(row)
        names = [name for name in fields if name in table.schema.names]
        if len(names) < len(fields):
            names.append(DYNAMIC_FIELDS)
        return {name: table.column(name)[place].as_py() for name in names}

    def _is_alive(self, number: int, row: int) -> bool:
        """Neither deleted nor superseded."""
        pk, seq = self.sources[number].pks[row], int(self.sources[number].seqs[row])
        if self._delta_index.is_deleted(pk, seq) or (pk in self._local_deletes and self._local_deletes[pk][0] > seq):
            return False
        written = (source.seqs[source.pk_to_row[pk]] for source in self.sources if pk in source.pk_to_row)
        return all(int(each) <= seq for each in written)


def _as_source(segment: Any, vector_field: str, compiled_filter: Any, plan: Any) -> _Source:
    vectors, _ = segment.vector_data(vector_field)
    fitting = None
    if compiled_filter is not None:

        def evaluate(compiled: Any) -> Any:
            return evaluate_segment_filter(segment, compiled, plan if compiled is compiled_filter else None)

        fitting = np.flatnonzero(lite_filters.fitting_rows(segment.table, compiled_filter, evaluate, keep=True))
    return _Source(segment.pks, segment.seqs, vectors, segment.pk_to_row, fitting, lambda row: (segment.table, row))


def _in_memory(memtable: Any, vector_field: str, compiled_filter: Any) -> _Source:
    kept = _kept_of(memtable, with_table=compiled_filter is not None)
    if vector_field not in kept.vectors:
        kept.vectors[vector_field] = _vectors_at(kept, vector_field)
    fitting = None
    if compiled_filter is not None and kept.table is not None and len(kept.pks):
        table = kept.table
        mask = lite_filters.fitting_rows(table, compiled_filter, lambda each: evaluate_mask(each, table), keep=False)
        fitting = np.flatnonzero(mask)
    return _Source(kept.pks, kept.seqs, kept.vectors[vector_field], kept.pk_to_row, fitting, kept.place)


class _Kept(NamedTuple):
    """Rows that are still in memory, as they were at a version: to put them together took half of a search's time."""

    version: tuple[int, int]
    pks: Sequence[Any]
    seqs: NDArray[np.uint64]
    pk_to_row: dict[Any, int]
    places: Sequence[tuple[int, int]]
    batches: Sequence[Any]
    table: Any | None
    vectors: dict[str, Vectors]

    def place(self, row: int) -> tuple[Any, int]:
        number, place = self.places[row]
        return self.batches[number], place


def _kept_of(memtable: Any, *, with_table: bool) -> _Kept:
    kept: _Kept | None = getattr(memtable, "_tuwen_kept", None)
    version = _version(memtable)
    if kept is None or kept.version != version or (with_table and kept.table is None):
        pks, seqs, _, places, table = memtable.to_search_snapshot(vector_field=None, include_table=with_table)
        batches = memtable._insert_batches  # which only grows; its own snapshot makes a Python list of every vector
        kept = _Kept(version, pks, seqs, {pk: row for row, pk in enumerate(pks)}, places, batches, table, {})
        memtable._tuwen_kept = kept
    return kept


def _version(memtable: Any) -> tuple[int, int]:
    """An insert adds a batch, and none is ever taken away; between two of them what is deleted only gets more. Read
    before the rows are: what is written meanwhile makes it old at once."""
    return len(memtable._insert_batches), len(memtable._delete_index)


def _vectors_at(kept: _Kept, vector_field: str) -> Vectors:
    matrices = {
        number: _as_matrix(kept.batches[number].column(vector_field)) for number in {place[0] for place in kept.places}
    }
    rows = [matrices[number][row] for number, row in kept.places]
    return np.stack(rows) if rows else np.zeros((0, 1), np.float32)


def _as_matrix(column: Any) -> Vectors:
    """Of Arrow's lists of one length."""
    return np.asarray(column.flatten(), np.float32).reshape(len(column), -1)


def _count(source: _Source) -> int:
    return len(source.pks) if source.fitting is None else len(source.fitting)


def _scores(queries: Vectors, source: _Source) -> Vectors:
    """(queries, rows that fit)."""
    if source.fitting is None:
        return queries @ source.vectors.T
    if len(source.fitting) >= SPARSE_SHARE * len(source.pks):
        return (queries @ source.vectors.T)[:, source.fitting]
    return queries @ source.vectors[source.fitting].T


def _best(scores: Vectors, wanted: int) -> NDArray[np.intp]:
    """The places of the best, and of those that rounding alone may keep from being among them."""
    if not wanted:
        return np.empty(0, np.intp)
    last = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
    return np.flatnonzero(scores >= last - ROUNDING)


def _of_length_one(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths == 0, 1, lengths))

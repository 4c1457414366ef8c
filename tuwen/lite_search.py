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
from numpy.typing import NDArray

from tuwen import lite_filters
from tuwen.lite_filters import DYNAMIC_FIELDS
from tuwen.lite_rows import Segments, Source, Vectors, count, rows_in_memory, rows_of_segment

Record = dict[str, Any]

# float32 adds up 512 products in an order that depends on how many rows and queries there are. What is nearer to the
# last place than this is looked at again in float64, row by row, so that the order of hits is the same at every limit.
ROUNDING = 1e-5
# Where a filter leaves fewer than this share of a segment, its rows are picked out before the product.
SPARSE_SHARE = 0.25
# Rows of deleted products take places until a compaction removes them.
SPARE_ROWS = 8
CHUNK = 4096  # rows that are looked at again at a time
# Rows are cut into so many groups for each hit, of which only the best are compared first; fewer rows a group than
# that, and there is nothing to gain.
GROUPS_A_HIT, LEAST_GROUP = 8, 8
ID = "id"
# Its index has no file.
SPARSE_FIELD = "title_bm25"


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
    segments: Segments,
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
    memtable = segments.memtable  # not what is the collection's by now
    sources = [
        rows_of_segment(segment, vector_field, compiled_filter, indexed_filter_plan)
        for segment in segments
        if segment.num_rows
    ]
    sources.append(rows_in_memory(memtable, vector_field, compiled_filter))
    search = _Search([source for source in sources if count(source)], delta_index, memtable.delete_index_snapshot())
    if not search.sources:
        return [[] for _ in query_vectors]
    queries = _of_length_one(np.asarray(query_vectors, np.float32))
    scores = np.concatenate([_scores(source, queries) for source in search.sources])
    wanted = min(top_k + SPARE_ROWS, len(scores))
    found = []
    for number, places in enumerate(_best(scores, wanted)):
        nearest = search.nearest(queries[number], scores[:, number], top_k, places, wanted)
        entities = search.entities(nearest, output_fields, project_record_fn)
        found.append(
            [
                {"id": hit.pk, "distance": hit.distance, "entity": each}
                for hit, each in zip(nearest, entities, strict=True)
            ]
        )
    return found


class _Hit(NamedTuple):
    distance: float
    pk: Any
    source: int
    row: int


class _Search:
    def __init__(self, sources: list[Source], delta_index: Any, local_deletes: dict[Any, tuple[int, str]]) -> None:
        self.sources = sources
        self._starts = np.cumsum([0, *map(count, sources)])
        self._delta_index = delta_index
        self._local_deletes = local_deletes
        """What was deleted and is not on the disk yet: when, and from which partition."""

    def nearest(self, query: Vectors, scores: Vectors, top_k: int, places: NDArray[np.intp], wanted: int) -> list[_Hit]:
        """Best first. `scores`: of all rows that fit; `places`: of the `wanted` best, or more, among them."""
        while True:
            numbers = np.searchsorted(self._starts, places, side="right") - 1
            rows = self._rows(numbers, places - self._starts[numbers])
            nearest = self._alive(self._in_order(query, numbers, rows), top_k)
            if len(nearest) == top_k or wanted == len(scores):
                return nearest
            wanted = min(wanted * 2, len(scores))
            places = _best_of_one(scores, wanted)

    def _rows(self, numbers: NDArray[np.intp], positions: NDArray[np.intp]) -> NDArray[np.intp]:
        """Of what is so far behind in each source's fitting rows."""
        for number in np.unique(numbers).tolist():
            fitting = self.sources[number].fitting
            if fitting is not None:
                of_source = numbers == number
                positions[of_source] = fitting[positions[of_source]]
        return positions

    def _in_order(self, query: Vectors, numbers: NDArray[np.intp], rows: NDArray[np.intp]) -> Iterator[_Hit]:
        """By distance, and by id where that is the same: thousands are, where products share a picture."""
        distances, ids = np.empty(len(rows)), np.empty(len(rows), np.int64)
        for number in np.unique(numbers).tolist():
            of_source, source = np.flatnonzero(numbers == number), self.sources[number]
            ids[of_source] = [source.pks[row] for row in rows[of_source].tolist()]
            for chunk in np.split(of_source, range(CHUNK, len(of_source), CHUNK)):
                distances[chunk] = 1.0 - (source.vectors[rows[chunk]].astype(np.float64) * query).sum(axis=1)
        for place in np.lexsort((ids, distances)).tolist():
            yield _Hit(float(distances[place]), int(ids[place]), int(numbers[place]), int(rows[place]))

    def _alive(self, in_order: Iterable[_Hit], top_k: int) -> list[_Hit]:
        return list(islice((hit for hit in in_order if self._is_alive(hit.source, hit.row)), top_k))

    def entities(
        self, hits: Sequence[_Hit], fields: Sequence[str], project: Callable[[Record], Record]
    ) -> list[Record]:
        """These fields alone: a row's vectors as Python's floats would take longer than the search for it."""
        entities: list[Record] = [{} for _ in hits]
        for number in {hit.source for hit in hits}:
            source, mine = self.sources[number], [place for place, hit in enumerate(hits) if hit.source == number]
            rows = np.array([hits[place].row for place in mine])
            rows = rows if source.table_rows is None else source.table_rows[rows]
            names = [name for name in fields if name in source.table.schema.names]
            if len(names) < len(fields):
                names.append(DYNAMIC_FIELDS)
            columns = [source.table.column(name).take(rows).to_pylist() for name in names]
            for place, values in zip(mine, zip(*columns, strict=True), strict=True):
                record = dict(zip(names, values, strict=True))
                entities[place] = project(record) if DYNAMIC_FIELDS in record or ID in record else record
        return entities

    def _is_alive(self, number: int, row: int) -> bool:
        """Neither deleted nor superseded."""
        pk, seq = self.sources[number].pks[row], int(self.sources[number].seqs[row])
        if self._delta_index.is_deleted(pk, seq) or (pk in self._local_deletes and self._local_deletes[pk][0] > seq):
            return False
        written = (source.seqs[source.pk_to_row[pk]] for source in self.sources if pk in source.pk_to_row)
        return all(int(each) <= seq for each in written)


def _scores(source: Source, queries: Vectors) -> Vectors:
    """(rows that fit, queries): the other way round a product of so many rows takes a third longer."""
    if source.fitting is None:
        return source.vectors @ queries.T
    if len(source.fitting) >= SPARSE_SHARE * len(source.pks):
        return (source.vectors @ queries.T)[source.fitting]
    return source.vectors[source.fitting] @ queries.T


def _best(scores: Vectors, wanted: int) -> Iterator[NDArray[np.intp]]:
    """For each query the places of the best, and of those that rounding alone may keep from being among them.

    Of many rows only those are compared that reach the best of so many groups, one of which has each of the best.
    """
    size = len(scores) // (GROUPS_A_HIT * wanted) if wanted else 0
    if size < LEAST_GROUP:
        yield from (_best_of_one(column, wanted) for column in scores.T)
        return
    groups = len(scores) // size
    best_of_groups = scores[: groups * size].reshape(groups, size, -1).max(axis=1)
    reached = np.partition(best_of_groups, groups - wanted, axis=0)[groups - wanted] - ROUNDING
    places, of_query = np.nonzero(scores >= reached)
    order = np.argsort(of_query, kind="stable")
    ends = np.cumsum(np.bincount(of_query, minlength=scores.shape[1]))
    for number, mine in enumerate(np.split(places[order], ends[:-1])):
        yield mine[_best_of_one(scores[mine, number], wanted)]


def _best_of_one(scores: Vectors, wanted: int) -> NDArray[np.intp]:
    if not wanted:
        return np.empty(0, np.intp)
    last = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
    return np.flatnonzero(scores >= last - ROUNDING)


def _of_length_one(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths == 0, 1, lengths))

"""The rows of a Milvus Lite collection as a search meets them: those of its segments, and those still in memory."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from milvus_lite.search.filter import evaluate_mask
from milvus_lite.search.indexed_filter import evaluate_segment_filter
from numpy.typing import NDArray

from tuwen import lite_filters

Vectors = NDArray[np.float32]


class Segments(tuple[Any, ...]):
    """Those of one moment, and what was in memory then: a flush after the look would take its rows out of sight."""

    memtable: Any

    @classmethod
    def beside(cls, memtable: Any, segments: Iterable[Any]) -> Self:
        seen = cls(segments)
        seen.memtable = memtable
        return seen


class Source(NamedTuple):
    """A segment, or the rows that are still in memory."""

    pks: Sequence[Any]
    seqs: NDArray[np.uint64]
    vectors: Vectors
    """Of length 1 each."""
    pk_to_row: dict[Any, int]
    fitting: NDArray[np.intp] | None
    """The rows that the filter lets through; None: all."""
    table: Any
    table_rows: NDArray[np.intp] | None
    """Where in the Arrow table each row is; None: in the same order."""


def rows_of_segment(segment: Any, vector_field: str, compiled_filter: Any, plan: Any) -> Source:
    vectors, _ = segment.vector_data(vector_field)
    fitting = None
    if compiled_filter is not None:

        def evaluate(compiled: Any) -> Any:
            return evaluate_segment_filter(segment, compiled, plan if compiled is compiled_filter else None)

        fitting = np.flatnonzero(lite_filters.fitting_rows(segment.table, compiled_filter, evaluate, keep=True))
    return Source(segment.pks, segment.seqs, vectors, segment.pk_to_row, fitting, segment.table, None)


def rows_in_memory(memtable: Any, vector_field: str, compiled_filter: Any) -> Source:
    kept = _kept_of(memtable, with_table=compiled_filter is not None)
    if vector_field not in kept.vectors:
        kept.vectors[vector_field] = _vectors_at(kept, vector_field)
    fitting = None
    if compiled_filter is not None and kept.table is not None and len(kept.pks):
        table = kept.table
        mask = lite_filters.fitting_rows(table, compiled_filter, lambda each: evaluate_mask(each, table), keep=False)
        fitting = np.flatnonzero(mask)
    vectors = kept.vectors[vector_field]
    return Source(kept.pks, kept.seqs, vectors, kept.pk_to_row, fitting, kept.batches, kept.batch_rows)


class _Kept(NamedTuple):
    """Rows that are still in memory, as they were at a version: to put them together took half of a search's time."""

    version: tuple[int, int]
    pks: Sequence[Any]
    seqs: NDArray[np.uint64]
    pk_to_row: dict[Any, int]
    batches: Any
    """As they were written, one after another, as a table; and where in it each row is."""
    batch_rows: NDArray[np.intp]
    table: Any | None
    """The rows alone, in their order, for filters."""
    vectors: dict[str, Vectors]


def _kept_of(memtable: Any, *, with_table: bool) -> _Kept:
    kept: _Kept | None = getattr(memtable, "_tuwen_kept", None)
    version = _version(memtable)
    if kept is None or kept.version != version or (with_table and kept.table is None):
        pks, seqs, _, places, table = memtable.to_search_snapshot(vector_field=None, include_table=with_table)
        written = list(memtable._insert_batches)  # its own snapshot makes a Python list of every vector
        batches = pa.Table.from_batches(written) if written else memtable._data_schema.empty_table()
        starts = np.cumsum([0, *(batch.num_rows for batch in written)])
        batch_rows = np.array([starts[number] + row for number, row in places], np.intp)
        kept = _Kept(version, pks, seqs, {pk: row for row, pk in enumerate(pks)}, batches, batch_rows, table, {})
        memtable._tuwen_kept = kept
    return kept


def _version(memtable: Any) -> tuple[int, int]:
    """An insert adds a batch, and none is ever taken away; between two of them what is deleted only gets more. Read
    before the rows are: what is written meanwhile makes it old at once."""
    return len(memtable._insert_batches), len(memtable._delete_index)


def _vectors_at(kept: _Kept, vector_field: str) -> Vectors:
    chunks = [_as_matrix(chunk) for chunk in kept.batches.column(vector_field).chunks if len(chunk)]
    return np.concatenate(chunks)[kept.batch_rows] if chunks else np.zeros((0, 1), np.float32)


def _as_matrix(column: Any) -> Vectors:
    """Of Arrow's lists of one length."""
    return np.asarray(column.flatten(), np.float32).reshape(len(column), -1)


def count(source: Source) -> int:
    return len(source.pks) if source.fitting is None else len(source.fitting)

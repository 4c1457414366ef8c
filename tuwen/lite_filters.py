"""Filters by attributes for Milvus Lite 3.2, inside its process.

Its own reads each row of a table as a Python dictionary, vectors and all, for each search (50 ms for 1,000 rows). An
attribute has few values: so each row's is looked up once, as a number, and a condition asks the values alone. What a
condition means stays the engine's to say, but that true is not 1, as in JSON and in Milvus.
"""

import json
import operator
import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from milvus_lite.search.filter.ast import And, FieldRef, MetaAccess, PathAccess
from milvus_lite.search.filter.eval import python_backend
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# The column of what the schema does not name, and what of it is ours.
DYNAMIC_FIELDS, ATTRIBUTES = "$meta", "attributes"
# What is true of true and a number; the engine takes nothing for unknown.
OF_TWO_KINDS = {operator.eq: False, operator.ne: True}
MOST_KEYS = 32  # of a segment, four bytes a row each


class _Column(NamedTuple):
    """An attribute of all rows of a table."""

    values: list[Any]
    numbers: NDArray[np.int32]
    """Of each row, the place of its value among them."""


_kept: dict[int, dict[str, _Column]] = {}
"""By the table's id, for as long as there is the table, which nobody changes."""


def install() -> None:
    """For all collections of this process."""
    python_backend._CMP_OPS.update({sign: _typed(compare) for sign, compare in python_backend._CMP_OPS.items()})


def fitting_rows(table: Any, compiled: Any, evaluate: Callable[[Any], Mask], *, keep: bool) -> Mask:
    """`evaluate`: the engine's own, for what asks of no attribute alone. `keep`: the table will be asked again."""
    operands = compiled.ast.operands if isinstance(compiled.ast, And) else (compiled.ast,)
    keys = [_attribute_of(each) for each in operands]
    rest = tuple(operand for operand, key in zip(operands, keys, strict=True) if key is None)
    if len(rest) == len(operands):
        return evaluate(compiled)
    mask = np.ones(table.num_rows, np.bool_)
    if rest:
        ast = And(operands=rest, pos=compiled.ast.pos) if len(rest) > 1 else rest[0]
        knows_columns_alone = all(isinstance(each, FieldRef) for one in rest for each in _references(one))
        mask &= evaluate(replace(compiled, ast=ast, backend="arrow" if knows_columns_alone else compiled.backend))
    for operand, key in zip(operands, keys, strict=True):
        if key is not None:
            mask &= _fitting(_column(table, key, keep=keep), operand, key)
    return mask


def _fitting(column: _Column, condition: Any, key: str) -> Mask:
    outcomes = [_fits(condition, key, value) for value in column.values]
    return np.array(outcomes, np.bool_)[column.numbers]


def _fits(condition: Any, key: str, value: Any) -> bool:
    return bool(python_backend._eval_row(condition, {DYNAMIC_FIELDS: {ATTRIBUTES: {key: value}}}))


def _attribute_of(condition: Any) -> str | None:
    """The one attribute that it asks of, if that is all it asks of."""
    keys = {_key(reference) for reference in _references(condition)}
    return keys.pop() if len(keys) == 1 else None


def _key(reference: Any) -> str | None:
    if not isinstance(reference, PathAccess) or not isinstance(reference.base, MetaAccess):
        return None
    is_ours = reference.base.key == ATTRIBUTES and len(reference.path) == 1
    return reference.path[0] if is_ours and isinstance(reference.path[0], str) else None


def _references(node: Any) -> Iterator[Any]:
    """What of a row an expression asks for."""
    if isinstance(node, FieldRef | MetaAccess | PathAccess):
        yield node
    elif isinstance(node, tuple):
        for each in node:
            yield from _references(each)
    elif is_dataclass(node):
        for field in fields(node):
            yield from _references(getattr(node, field.name))


def _column(table: Any, key: str, *, keep: bool) -> _Column:
    kept = _kept.get(id(table), {})
    if key in kept:
        return kept[key]
    column = _numbered(table.column(DYNAMIC_FIELDS).to_pylist(), key)
    if keep:
        if id(table) not in _kept:
            weakref.finalize(table, _kept.pop, id(table), None)
        # Another thread may be at it: each puts another dictionary in its place, and nobody changes one.
        newest = dict(list(kept.items())[-MOST_KEYS + 1 :])
        _kept[id(table)] = newest | {key: column}
    return column


def _numbered(rows: list[Any], key: str) -> _Column:
    places: dict[str, int] = {}
    values: list[Any] = []
    numbers = np.empty(len(rows), np.int32)
    for row, dynamic in enumerate(rows):
        value = _value(dynamic, key)
        written = json.dumps(value)  # true is not 1 as a key, either, and a list may be one
        if written not in places:
            places[written] = len(values)
            values.append(value)
        numbers[row] = places[written]
    return _Column(values, numbers)


def _value(dynamic: Any, key: str) -> Any:
    known = json.loads(dynamic) if isinstance(dynamic, str) else dynamic
    attributes = known.get(ATTRIBUTES) if isinstance(known, dict) else None
    return attributes.get(key) if isinstance(attributes, dict) else None


def _typed(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compare_typed(left: Any, right: Any) -> Any:
        if isinstance(left, bool) != isinstance(right, bool):
            return OF_TWO_KINDS.get(compare)
        return compare(left, right)

    return compare_typed

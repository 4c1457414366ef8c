"""Filters by attributes for Milvus Lite 3.2, inside its process.

Its own reads each row of a table as a Python dictionary, vectors and all, for each search (50 ms for 1,000 rows). Here
each row's attributes are read once for all that a search asks of, and kept as numbers of values; a condition asks the
values alone. What it means is the engine's to say where it is none of those that `vector_db` writes, but that true is
not 1, as in JSON and in Milvus. All searches of a process go one after another: none may take long.
"""

import json
import operator
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cached_property, reduce
from sys import getsizeof
from typing import Any, NamedTuple

import numpy as np
from milvus_lite.search.filter.ast import (
    And,
    ArrayContainsOp,
    BoolLit,
    CmpOp,
    FieldRef,
    FloatLit,
    IntLit,
    IsNullOp,
    ListLit,
    MetaAccess,
    Not,
    Or,
    PathAccess,
    StringLit,
)
from milvus_lite.search.filter.eval import python_backend
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# The column of what the schema does not name, and what of it is ours.
DYNAMIC_FIELDS, ATTRIBUTES = "$meta", "attributes"
# A column of its own but in collections of before. It is kept as an attribute is, by a name that none has.
SHOP, AS_ATTRIBUTE = "shop_id", "\0shop_id"
# What is true of true and a number; the engine takes nothing for unknown.
OF_TWO_KINDS = {operator.eq: False, operator.ne: True}
ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
LITERALS = IntLit | FloatLit | StringLit | BoolLit
# Of a segment: four bytes a row each, and their values.
MOST_COLUMNS, MOST_BYTES = 32, 64 * 2**20
PLACE_BYTES = 100  # of a value's entry in a list and a dictionary
MEMBER_BYTES = 50  # for a character of a list's JSON: its members have entries, too


class _Truth(NamedTuple):
    """Of each value; where it is neither, the outcome is unknown, as for an attribute that is not there."""

    true: Mask
    false: Mask


class _Column:
    """An attribute of all rows of a table. None is where a row has none."""

    def __init__(self, rows: int) -> None:
        self.values: list[Any] = [None]
        self.numbers = np.zeros(rows, np.int32)
        """Of each row, the place of its value among them."""
        self._places: dict[Hashable, int] = {None: 0}
        self.size = self.numbers.nbytes

    def put(self, row: int, value: Any) -> None:
        known = _comparable(value)
        place = self._places.get(known)
        if place is None:
            place = self._places[known] = len(self.values)
            self.values.append(value)
            is_list = isinstance(value, list | dict)
            self.size += PLACE_BYTES + (MEMBER_BYTES * len(json.dumps(value)) if is_list else getsizeof(value))
        self.numbers[row] = place

    def fitting(self, condition: Any, key: str) -> Mask:
        return self._truth(condition, key).true[self.numbers]

    def _truth(self, node: Any, key: str) -> _Truth:
        if isinstance(node, Not):
            of_operand = self._truth(node.operand, key)
            return _Truth(of_operand.false, of_operand.true)
        if isinstance(node, And):
            each = [self._truth(operand, key) for operand in node.operands]
            return _Truth(_all(one.true for one in each), _any(one.false for one in each))
        if isinstance(node, Or):
            if (literals := _alternatives(node)) is not None:
                return self._equal(literals)
            each = [self._truth(operand, key) for operand in node.operands]
            return _Truth(_any(one.true for one in each), _all(one.false for one in each))
        return self._truth_of_one(node, key)

    def _truth_of_one(self, node: Any, key: str) -> _Truth:
        if isinstance(node, IsNullOp):
            is_there = ~self._at([0])
            return _Truth(is_there, ~is_there) if node.negate else _Truth(~is_there, is_there)
        if isinstance(node, ArrayContainsOp) and isinstance(node.values, ListLit) and node.mode in ("any", "all"):
            each = [self._at(self._places_by_member.get(_comparable(one.value), ())) for one in node.values.elements]
            found = _all(each) if node.mode == "all" else _any(each)
            return _Truth(found, ~found)
        if (
            isinstance(node, CmpOp)
            and isinstance(node.left, PathAccess | MetaAccess)
            and isinstance(node.right, LITERALS)
        ):
            literal = node.right.value
            if node.op == "==":
                return self._equal([literal])
            if node.op in ORDERS and _is_number(literal):
                return self._ordered(ORDERS[node.op], literal)
        outcomes = [python_backend._eval_row(node, {DYNAMIC_FIELDS: {ATTRIBUTES: {key: one}}}) for one in self.values]
        return _Truth(
            np.array([bool(one) for one in outcomes]), np.array([one is not None and not one for one in outcomes])
        )

    def _equal(self, literals: Iterable[Any]) -> _Truth:
        """To one of these."""
        places = (self._places.get(_comparable(literal)) for literal in literals)
        equal = self._at([place for place in places if place is not None])
        return _Truth(equal, ~equal & ~self._at([0]))

    def _ordered(self, compare: Callable[[Any, Any], Any], literal: float) -> _Truth:
        """Numbers alone have an order. float64 keeps it, but for integers beyond 2**53 that it makes equal."""
        fits: Mask = compare(self._as_floats, float(literal))
        for place in np.flatnonzero(self._as_floats == float(literal)).tolist():
            fits[place] = compare(self.values[place], literal)
        return _Truth(fits, ~fits & ~np.isnan(self._as_floats))

    def _at(self, places: Iterable[int]) -> Mask:
        mask = np.zeros(len(self.values), np.bool_)
        mask[list(places)] = True
        return mask

    @cached_property
    def _as_floats(self) -> NDArray[np.float64]:
        return np.array([float(value) if _is_number(value) else np.nan for value in self.values])

    @cached_property
    def _places_by_member(self) -> dict[Hashable, list[int]]:
        """Of lists."""
        places: dict[Hashable, list[int]] = {}
        for place, value in enumerate(self.values):
            for member in {_comparable(each) for each in value} if isinstance(value, list) else ():
                places.setdefault(member, []).append(place)
        return places


class _Kept(NamedTuple):
    """Of a table. Another thread may be at it: each puts another in its place, and nobody changes one."""

    keys: frozenset[str]
    """All that its rows have: what is nowhere is not looked for again."""
    columns: dict[str, _Column]
    """Asked last: last."""


_kept: dict[int, _Kept] = {}
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
    columns = _columns(table, dict.fromkeys(key for key in keys if key is not None), keep=keep)
    for operand, key in zip(operands, keys, strict=True):
        if key is not None:
            mask &= columns[key].fitting(operand, key)
    return mask


def _columns(table: Any, keys: Iterable[str], *, keep: bool) -> dict[str, _Column]:
    """Of each key; those that no row has are as good as empty."""
    kept = _kept.get(id(table))
    unknown = [key for key in keys if kept is None or (key in kept.keys and key not in kept.columns)]
    known = {} if kept is None else {key: kept.columns[key] for key in keys if key in kept.columns}
    if unknown:
        found, all_keys = _read(table.column(DYNAMIC_FIELDS).to_pylist(), unknown)
        known |= found
    else:
        all_keys = kept.keys if kept else frozenset()
    if keep:
        if id(table) not in _kept:
            weakref.finalize(table, _kept.pop, id(table), None)
        others = {} if kept is None else {key: each for key, each in kept.columns.items() if key not in known}
        _kept[id(table)] = _Kept(all_keys, _newest(others | known))
    absent = _Column(table.num_rows)
    return {key: known.get(key, absent) for key in keys}


def _newest(columns: dict[str, _Column]) -> dict[str, _Column]:
    newest = list(columns.items())[-MOST_COLUMNS:]
    while len(newest) > 1 and sum(column.size for _, column in newest) > MOST_BYTES:
        newest.pop(0)
    return dict(newest)


def _read(rows: list[Any], keys: Iterable[str]) -> tuple[dict[str, _Column], frozenset[str]]:
    """The columns of those keys that there are, and all keys that there are."""
    columns = {key: _Column(len(rows)) for key in keys}
    all_keys: set[str] = set()
    for row, dynamic in enumerate(rows):
        known = json.loads(dynamic) if isinstance(dynamic, str) else dynamic
        attributes = known.get(ATTRIBUTES) if isinstance(known, dict) else None
        if isinstance(known, dict) and known.get(SHOP) is not None:
            attributes = {**(attributes or {}), AS_ATTRIBUTE: known[SHOP]}
        if isinstance(attributes, dict):
            all_keys.update(attributes)
            for key in columns.keys() & attributes.keys():
                columns[key].put(row, attributes[key])
    return {key: column for key, column in columns.items() if key in all_keys}, frozenset(all_keys)


def _attribute_of(condition: Any) -> str | None:
    """The one attribute that it asks of, if that is all it asks of."""
    keys = {_key(reference) for reference in _references(condition)}
    return keys.pop() if len(keys) == 1 else None


def _key(reference: Any) -> str | None:
    if isinstance(reference, MetaAccess) and reference.key == SHOP:
        return AS_ATTRIBUTE
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


def _alternatives(node: Any) -> list[Any] | None:
    """The literals of `path == 1 or path == 2 …`, if that is all it is."""
    comparisons = [
        each
        for each in node.operands
        if isinstance(each, CmpOp) and each.op == "==" and isinstance(each.left, PathAccess)
    ]
    literals = [each.right.value for each in comparisons if isinstance(each.right, LITERALS)]
    return literals if len(literals) == len(node.operands) else None


def _comparable(value: Any) -> Hashable:
    """The same for what is equal: 1 and 1.0, but not true and 1. A list and an object, too, are one value each."""
    if isinstance(value, bool):
        return ("boolean", value)
    return ("json", json.dumps(value)) if isinstance(value, list | dict) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _any(masks: Iterable[Mask]) -> Mask:
    return reduce(np.logical_or, masks)


def _all(masks: Iterable[Mask]) -> Mask:
    return reduce(np.logical_and, masks)


def _typed(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compare_typed(left: Any, right: Any) -> Any:
        if isinstance(left, bool) != isinstance(right, bool):
            return OF_TWO_KINDS.get(compare)
        return compare(left, right)

    return compare_typed

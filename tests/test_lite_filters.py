"""What fits a condition, and how often the rows are read for it: all searches of a process wait for each other."""

import json
import operator
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from time import process_time
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from milvus_lite.search.filter import parse_expr
from milvus_lite.search.filter.ast import And, FieldRef, MetaAccess, PathAccess

from data_models import AttributeFilter, Scalar
from tuwen import lite_filters
from vector_db import filter_expression

VALUES: list[Any] = [
    *(None, True, False, 1, 1.0, "1", -2.5, 2**53, 2**53 + 1, "红", "[1]", "", [], [1], [1.0, "红"], [True], [[1]], {}),
    *({"1": 1}, [2**53 + 1]),
]


class Table:
    """Of a segment, as far as filters know one."""

    def __init__(self, attributes: Iterable[object]) -> None:
        rows = [json.dumps({"attributes": each, "image_path": "a.png"}) for each in attributes]
        self._table = pa.table({"$meta": rows})
        self.num_rows = len(rows)
        self.reads = 0

    def column(self, name: str) -> Any:
        self.reads += 1
        return self._table.column(name)

    def fitting(self, **wanted: Scalar | AttributeFilter) -> list[int]:
        ast = as_dynamic(parse_expr(filter_expression(attributes=wanted)))
        mask = lite_filters.fitting_rows(self, SimpleNamespace(ast=ast), refuse, keep=True)
        return [int(row) for row in mask.nonzero()[0]]


def refuse(condition: object) -> Any:
    raise AssertionError(f"{condition} was left to the engine")


def as_dynamic(node: Any) -> Any:
    """As the engine's compiler does: `attributes` is no column."""
    if isinstance(node, PathAccess) and isinstance(node.base, FieldRef):
        return replace(node, base=MetaAccess(node.base.name, node.base.pos))
    if isinstance(node, tuple):
        return tuple(map(as_dynamic, node))
    parts = ("left", "operand", "operands", "field", "value")
    is_leaf = isinstance(node, str | int | float | bool)
    return node if is_leaf else replace(node, **{p: as_dynamic(getattr(node, p)) for p in parts if hasattr(node, p)})


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(left: object, right: object) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


@pytest.mark.parametrize("literal", [1, 1.0, "1", True, -2.5, 2**53, 2**53 + 1, "红"], ids=repr)
def test_a_text_a_number_and_true_are_never_equal(literal: Any) -> None:
    table = Table({"a": value} if value is not None else {} for value in VALUES)

    def rows(fits: Any) -> list[int]:
        return [row for row, value in enumerate(VALUES) if fits(value)]

    assert table.fitting(a=literal) == rows(lambda value: same(value, literal))
    assert table.fitting(a=AttributeFilter(any_of=[literal, "x"])) == rows(lambda value: same(value, literal))
    assert table.fitting(a=AttributeFilter(none_of=[literal, "x"])) == rows(lambda value: not same(value, literal))
    if literal is not True:
        for name in ("contains_any", "contains_all"):
            assert table.fitting(a=AttributeFilter(**{name: [literal]})) == rows(
                lambda value: isinstance(value, list) and any(same(each, literal) for each in value)
            )
        assert table.fitting(a=AttributeFilter(contains_all=[literal, "x"])) == []
    if is_number(literal):
        for name, compare in (("min", operator.ge), ("max", operator.le)):
            assert table.fitting(a=AttributeFilter(**{name: literal})) == rows(
                lambda value, compare=compare: is_number(value) and compare(value, literal)
            )
    assert table.fitting(a=AttributeFilter(is_set=True, none_of=["x"])) == rows(lambda value: value is not None)


def test_what_a_search_asks_of_is_read_once_and_what_nobody_has_never_again() -> None:
    table = Table({f"key{number}": row, "colour": "red"} for row, number in product(range(10), range(40)))
    assert len(table.fitting(colour="red", key3=AttributeFilter(min=5))) == 5
    assert table.reads == 1
    for begin in (0, 20, 40):
        absent: dict[str, Scalar | AttributeFilter] = {f"none{begin + number}": 1 for number in range(20)}
        assert table.fitting(colour="red", **absent) == []
    everything = table.fitting(**{name: AttributeFilter(is_set=False) for name in absent})
    assert everything == list(range(table.num_rows))
    assert len(table.fitting(key3=AttributeFilter(min=5))) == 5
    assert table.reads == 1
    table.fitting(**{f"key{number}": 1 for number in range(20)})
    assert table.reads == 2


def test_so_much_is_kept_of_a_table_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite_filters, "MOST_BYTES", 20_000)
    table = Table({"long": f"{row}" * 100, "short": row % 2, "other": row % 2} for row in range(100))
    for _ in range(2):
        assert table.fitting(long="1" * 100, short=1) == [1]
    assert (table.reads, len(table.fitting(other=1))) == (2, 50)


def test_a_hundred_values_of_an_attribute_that_differs_in_each_row_are_looked_up() -> None:
    """It took 3 million comparisons, one after another: seconds."""
    rows = 30_000
    table = Table({"a": row} for row in range(rows))
    wanted: list[Scalar] = list(range(rows - 50, rows + 50))
    begin = process_time()
    assert table.fitting(a=AttributeFilter(any_of=wanted)) == list(range(rows - 50, rows))
    assert process_time() - begin < 1.5


def test_and_or_of_one_attribute_joins_as_the_engine_has_it() -> None:
    table = Table([{"a": 1}, {"a": 2}, {}])
    one, two = (as_dynamic(parse_expr(f'attributes["a"] == {each}')) for each in (1, 2))
    both = SimpleNamespace(ast=And(operands=(as_dynamic(parse_expr('not (attributes["a"] != 1)')), one), pos=0))
    assert lite_filters.fitting_rows(table, both, refuse, keep=True).tolist() == [True, False, False]
    like = SimpleNamespace(ast=as_dynamic(parse_expr('not (attributes["a"] == 1 and attributes["a"] < 2)')))
    assert lite_filters.fitting_rows(table, like, refuse, keep=True).tolist() == [False, True, False]
    assert two != one

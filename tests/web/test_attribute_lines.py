"""Attributes as people type them, and back."""

from typing import Any

import pytest

from web.attribute_lines import NotAnAttribute, attribute_lines, read_attribute_lines


def test_each_value_is_taken_for_what_it_looks_like() -> None:
    typed = """
        颜色：红
        座位数: 3
        宽: 1.5
        可拆洗: true
        标签: ["新品", "热卖"]
        条码: "0123"
        型号: 0123
        比例: 16:9
        "a:b" : x
    """
    assert read_attribute_lines(typed) == {
        "颜色": "红",
        "座位数": 3,
        "宽": 1.5,
        "可拆洗": True,
        "标签": ["新品", "热卖"],
        "条码": "0123",
        "型号": "0123",
        "比例": "16:9",
        "a:b": "x",
    }
    assert read_attribute_lines('{"颜色": "红",\n "座位数": 3}') == {"颜色": "红", "座位数": 3}
    assert read_attribute_lines(" \n") == {}


@pytest.mark.parametrize("line", ["没有冒号", ": 红", "颜色:", '{"a": 1', '"a', "颜色: 蓝\n颜色: 红"])
def test_what_is_no_attribute_is_named(line: str) -> None:
    with pytest.raises(NotAnAttribute) as refused:
        read_attribute_lines(f"{line}\n座位数: 3")
    assert refused.value.line == line.rsplit("\n", maxsplit=1)[-1]


@pytest.mark.parametrize(
    "value",
    [
        "红",
        "",
        " a ",
        "3",
        "true",
        "null",
        '"a"',
        "a\nb",
        "a\u2028",
        "NaN",
        3,
        1.0,
        1e300,
        True,
        None,
        [],
        ["a", 1],
        {"w": 1},
    ],
)
def test_what_is_stored_comes_back_as_it_was(value: Any) -> None:
    for name in ("a", " a ", "a: b", "", '"a"', "{a", "a\nb", "颜色：x"):
        attributes = {name: value, "z": 1}
        assert repr(read_attribute_lines(attribute_lines(attributes))) == repr(attributes)

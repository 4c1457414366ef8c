"""The beginning of an import's report has rows as they are, whatever is in them."""

import pytest

from tests.importing.files import csv_of
from web.import_report import first_rows

HEAD = ["line", "sku", "field", "reason", "severity"]


@pytest.mark.parametrize("inside", ["\u2028", "\x85", "\n", "\r\n", "\x0b"])
def test_a_row_is_one_whatever_is_in_it(inside: str) -> None:
    rows = [["2", f"A{inside}1", "price", f"is 'a{inside}b'", "error"], ["3", "B", "row", "is empty", "error"]]
    report = csv_of(HEAD, *rows, ["4", "C", "row", "is empty", "error"], encoding="utf-8-sig")
    assert [list(row.values()) for row in first_rows(report, 2)] == rows

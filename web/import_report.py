"""The report of an import, as a page shows its beginning."""

import csv
import io
import itertools


def first_rows(report: bytes, most: int) -> list[dict[str, str]]:
    """A row of the report may have several lines, and U+2028 ends none."""
    rows = csv.DictReader(io.StringIO(report.decode("utf-8-sig"), newline=""))
    return list(itertools.islice(rows, most))

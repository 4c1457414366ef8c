"""Rows of the first sheet of an XLSX workbook, a row at a time."""

import datetime
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from tuwen.errors import InvalidInput
from tuwen.importing.columns import BadRow, SourceRow, require_usable
from tuwen.importing.text_files import row_of_cells

WORKBOOK = "xl/workbook.xml"
MOST_ROWS = 1_048_576  # the format's own limit
# What openpyxl has in memory as a whole: the texts, and of a sheet one row.
LARGEST_PART_BYTES = {"xl/sharedStrings.xml": 128 * 1024 * 1024}
LARGEST_OTHER_BYTES, LARGEST_ROW_BYTES, CHUNK_BYTES = 16 * 1024 * 1024, 4 * 1024 * 1024, 256 * 1024
SHEETS = "xl/worksheets/"


def read_sheet_rows(file: IO[bytes], read_already: list[float]) -> Iterator[SourceRow | BadRow]:
    """`read_already[0]` becomes the share that is read. Raises InvalidInput."""
    try:
        _require_bounded(file)
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True)
        try:
            yield from _rows(workbook.worksheets[0], read_already)
        finally:
            workbook.close()
    except InvalidInput:
        raise
    # What it raises at a workbook that is damaged is whatever its parts met.
    except (
        zipfile.BadZipFile,
        InvalidFileException,
        SyntaxError,
        LookupError,
        ValueError,
        TypeError,
        OSError,
    ) as error:
        raise InvalidInput.in_field("file", f"is no XLSX workbook that can be read: {error}") from error


def _rows(sheet: Any, read_already: list[float]) -> Iterator[SourceRow | BadRow]:
    expected = min(max(sheet.max_row or 1, 1), MOST_ROWS)
    sheet.reset_dimensions()  # what a sheet says of its size may be anything
    columns: list[str] | None = None
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if number > MOST_ROWS:
            raise InvalidInput.in_field("file", f"has over {MOST_ROWS:,} rows, the limit of XLSX")
        read_already[0] = min(number / expected, 1.0)
        if all(cell is None or str(cell).strip() == "" for cell in cells):
            continue
        if columns is None:
            columns = ["" if cell is None else str(cell).strip() for cell in cells]
            require_usable(columns)
        else:
            yield row_of_cells(number, columns, [_plain(cell) for cell in cells])
    if columns is None:
        raise InvalidInput.in_field("file", "has nothing in its first sheet")


def _plain(cell: Any) -> Any:
    """JSON's types; a whole number is no fraction, as a sku that is a number would else be 1001.0."""
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53 else cell


def _require_bounded(file: IO[bytes]) -> None:
    with zipfile.ZipFile(file) as archive:
        for part in archive.infolist():
            if part.filename.startswith(SHEETS):
                _require_bounded_rows(archive, part)
                continue
            limit = LARGEST_PART_BYTES.get(part.filename, LARGEST_OTHER_BYTES)
            if part.filename.endswith((".xml", ".rels")) and part.file_size > limit:
                raise InvalidInput.in_field(
                    "file",
                    f"has {part.file_size:,} bytes in its part {part.filename}, the limit is {limit:,}; save it as CSV",
                )
    file.seek(0)


def _require_bounded_rows(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    since_row, tail = 0, b""
    with archive.open(part) as sheet:
        while chunk := sheet.read(CHUNK_BYTES):
            last = (tail + chunk).rfind(b"<row")
            since_row = since_row + len(chunk) if last < 0 else len(tail) + len(chunk) - last
            tail = chunk[-3:]
            if since_row > LARGEST_ROW_BYTES:
                raise InvalidInput.in_field(
                    "file", f"has over {LARGEST_ROW_BYTES:,} bytes in one row of its sheet; save it as CSV"
                )

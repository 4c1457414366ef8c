"""Rows of the first visible sheet of an XLSX workbook, a row at a time."""

import datetime
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast
from xml.parsers import expat

from openpyxl.reader.excel import ExcelReader
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.xml.constants import SHEET_MAIN_NS

from tuwen.errors import InvalidInput
from tuwen.importing.archives import Archive, Watched
from tuwen.importing.columns import MOST_DIGITS, BadRow, SourceRow, require_usable
from tuwen.importing.text_files import row_of_cells

WORKBOOK = "xl/workbook.xml"
MOST_ROWS = 1_048_576  # the format's own limit
MOST_PARTS = 10_000
# What openpyxl has in memory as a whole: the texts; all parts that are neither these nor a sheet; of a sheet one row.
LARGEST_TEXTS_BYTES, MOST_TEXT_TAGS = 128 * 1024 * 1024, 4_000_000
LARGEST_OTHERS_BYTES, MOST_OTHER_TAGS = 32 * 1024 * 1024, 400_000
LARGEST_ROW_BYTES = 4 * 1024 * 1024
LARGEST_AROUND_ROWS_BYTES = 16 * 1024 * 1024
ROW, ROW_DEPTH = f"{SHEET_MAIN_NS} row", 3
ZEROS = re.compile(r"0{2,}")


def read_sheet_rows(file: IO[bytes], read_already: list[float]) -> Iterator[SourceRow | BadRow]:
    """`read_already[0]` becomes the share that is read. Raises InvalidInput."""
    try:
        reader = _Reader(file)
        reader.read()
        workbook: Any = reader.wb
        try:
            sheets = workbook.worksheets
            visible = [sheet for sheet in sheets if sheet.sheet_state == "visible"]
            yield from _rows((visible or sheets)[0], read_already)
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
        AttributeError,
        RuntimeError,
        OSError,
        expat.ExpatError,
    ) as error:
        raise InvalidInput.in_field("file", f"is no XLSX workbook that can be read: {error}") from error


def _rows(sheet: Any, read_already: list[float]) -> Iterator[SourceRow | BadRow]:
    expected = min(max(sheet.max_row or 1, 1), MOST_ROWS)
    sheet.reset_dimensions()  # what a sheet says of its size may be anything
    columns: list[str] | None = None
    fields: dict[str, str] = {}
    for number, cells in enumerate(_cells(sheet), start=1):
        if number > MOST_ROWS:
            raise InvalidInput.in_field("file", f"has over {MOST_ROWS:,} rows, the limit of XLSX")
        read_already[0] = min(number / expected, 1.0)
        if all(cell is None or str(cell).strip() == "" for cell in cells):
            continue
        if columns is None:
            columns = ["" if cell is None else str(cell).strip() for cell in cells]
            fields = require_usable(columns)
        else:
            row = row_of_cells(number, columns, [_plain(cell) for cell in cells], fields)
            yield _with_keys_as_kept(row) if isinstance(row, SourceRow) else row
    if columns is None:
        raise InvalidInput.in_field("file", "has nothing in its first visible sheet")


def _cells(sheet: Any) -> Iterator[Sequence[Any]]:
    """Values; those of numbers that are written with leading zeros as texts with these. Their formats are looked at in
    workbooks alone that have such a one, as that takes time."""
    if not any(map(ZEROS.fullmatch, sheet.parent._number_formats)):
        yield from sheet.iter_rows(values_only=True)
        return
    for cells in sheet.iter_rows():
        yield [_with_zeros(cell) if type(cell.value) is int else cell.value for cell in cells]


def _with_zeros(cell: Any) -> Any:
    """Not of those with more digits than a spreadsheet keeps, some of whose zeros are none."""
    written, value = cell.number_format, cell.value
    is_code = 0 <= value < 10**MOST_DIGITS and ZEROS.fullmatch(written)
    return str(value).zfill(len(written)) if is_code else value


def _with_keys_as_kept(row: SourceRow) -> SourceRow:
    """Excel writes zeros for the digits behind the fifteenth: what it rounded is a float here, which no key can be."""
    for name in ("sku", "group_id"):
        key = row.fields.get(name)
        if isinstance(key, int) and len(str(key)) > MOST_DIGITS and not str(key)[MOST_DIGITS:].strip("0"):
            row.fields[name] = float(key)
    return row


def _plain(cell: Any) -> Any:
    """JSON's types; a whole number is no fraction, as a sku that is a number would else be 1001.0."""
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()  # as a spreadsheet has a day
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53 else cell


class _Reader(ExcelReader):  # type: ignore[misc]  # openpyxl has no types
    """A workbook says itself which part is what, whatever its name: so each is measured as what it is read for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        parts = _Parts(file)  # before openpyxl lists them, too
        super().__init__(file, read_only=True, data_only=True, keep_links=False)
        self.archive = parts

    def read_strings(self) -> None:
        others, self.archive.budget = self.archive.budget, _Budget(LARGEST_TEXTS_BYTES, MOST_TEXT_TAGS)
        super().read_strings()
        self.archive.budget = others

    def read_workbook(self) -> None:
        super().read_workbook()
        self.wb._archive = _Sheets(self._file)  # where openpyxl reads sheets from, and nothing else


class _Parts(Archive):
    """Those that openpyxl has in memory as a whole."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, MOST_PARTS)
        self.budget = _Budget(LARGEST_OTHERS_BYTES, MOST_OTHER_TAGS)
        self._opened = 0

    def open(self, name: Any, *_args: Any, **_options: Any) -> IO[bytes]:
        self._opened += 1  # a workbook may name one part any number of times
        if self._opened > MOST_PARTS:
            raise InvalidInput.in_field("file", f"has {self._opened:,} files in it, the limit is {MOST_PARTS:,}")
        return cast("IO[bytes]", Watched(self.unpack(self.getinfo(name)), self._new_watch()))

    def _new_watch(self) -> "_Xml":
        return _Held(self.budget)


class _Sheets(_Parts):
    def _new_watch(self) -> "_Xml":
        return _Sheet()


@dataclass
class _Budget:
    """Of several parts together."""

    bytes: int
    tags: int


class _Xml:
    """A part that may not define entities: a short one can stand for any number of elements."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._read = 0

    def __call__(self, data: bytes) -> None:
        self._read += len(data)
        if data:
            self._parser.Parse(data)

    def _refuse(self, *_declared: Any) -> None:
        raise InvalidInput.in_field("file", "has a document type declaration in it; save it as CSV")


class _Held(_Xml):
    """An element costs memory however short it is."""

    def __init__(self, budget: _Budget) -> None:
        super().__init__()
        self._budget = budget

    def __call__(self, data: bytes) -> None:
        super().__call__(data)
        self._budget.bytes -= len(data)
        self._budget.tags -= data.count(b"<") - data.count(b"</")
        if self._budget.bytes < 0 or self._budget.tags < 0:
            raise InvalidInput.in_field("file", "has too much besides its rows (texts, formats, names); save it as CSV")


class _Sheet(_Xml):
    """openpyxl forgets a row when it has read it, and nothing else. Where rows begin and end only a parser can say."""

    def __init__(self) -> None:
        super().__init__()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._depth = self._rows = self._of_rows = 0
        self._row_at: int | None = None

    def __call__(self, data: bytes) -> None:
        super().__call__(data)
        row = 0 if self._row_at is None else self._read - self._row_at
        if row > LARGEST_ROW_BYTES:
            raise InvalidInput.in_field(
                "file", f"has over {LARGEST_ROW_BYTES:,} bytes in one row of its sheet; save it as CSV"
            )
        if self._read - self._of_rows - row > LARGEST_AROUND_ROWS_BYTES:
            raise InvalidInput.in_field("file", "has too much besides its rows (texts, formats, names); save it as CSV")
        if self._rows > MOST_ROWS:
            raise InvalidInput.in_field("file", f"has over {MOST_ROWS:,} rows, the limit of XLSX")

    def _start(self, name: str, _attributes: Any) -> None:
        self._depth += 1
        if self._depth == ROW_DEPTH and name == ROW:
            self._row_at = self._parser.CurrentByteIndex
            self._rows += 1

    def _end(self, _name: str) -> None:
        if self._depth == ROW_DEPTH and self._row_at is not None:
            self._of_rows += self._parser.CurrentByteIndex - self._row_at
            self._row_at = None
        self._depth -= 1

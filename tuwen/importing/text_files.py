"""Rows of JSON lines and of CSV, whatever wrote them: which encoding, which delimiter. A line is read at a time."""

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple, NoReturn

from tuwen.errors import InvalidInput
from tuwen.importing.columns import BadRow, SourceRow, as_row, require_usable

LONGEST_ROW_BYTES = 1024 * 1024
SAMPLE_BYTES, CHUNK_BYTES = 1024 * 1024, 64 * 1024
DELIMITERS = ",;\t|，"
REPLACED = "\ufffd"
AS_TEXT = re.compile(r'="([^"]*)"')
TWO_BYTES = re.compile(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]")
# GB2312's common characters, by their sound. Other encodings that GB18030 would take, too, rarely look so.
COMMON = re.compile(rb"[\xb0-\xd7\xa3\xa1][\xa1-\xfe]")
LEAST_COMMON, MOST_LINES = 0.6, 0.5
USUAL, LEAST_USUAL = re.compile("[\u00c0-\u00ff\u0400-\u045f\u2000-\U0010ffff]"), 0.9
Rows = Iterator[SourceRow | BadRow]


class Line(NamedTuple):
    number: int
    text: str
    """Without its end. Has U+FFFD where it could not be read."""
    is_whole: bool
    """False: over `LONGEST_ROW_BYTES`, of which this is the beginning."""


def find_encoding(open_file: Callable[[], IO[bytes]]) -> str:
    """By its mark, or by the first part that is not ASCII. Raises InvalidInput."""
    with open_file() as file:
        beginning = file.read(CHUNK_BYTES)
        if beginning.startswith(codecs.BOM_UTF8):
            return "utf-8"
        if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        for encoding, zeros in (("utf-16-le", beginning[1::2]), ("utf-16-be", beginning[::2])):
            if zeros.count(0) > len(zeros) // 4:
                return encoding
        sample = beginning
        while sample.isascii() and (chunk := file.read(CHUNK_BYTES)):
            sample = sample[-1024:] + chunk
        sample += file.read(SAMPLE_BYTES)
        if file.read(1):  # the last line is cut off, maybe within a character
            sample = sample[: sample.rfind(b"\n")] if b"\n" in sample else sample
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    others = [line for line in lines if not _decodes(line, "utf-8")]
    mostly_utf8 = len(others) <= MOST_LINES * len(lines)
    # Short words of GB18030 may be UTF-8, too (图片 is), so that the lines that are not decide; but few of them in
    # what is no GB18030, or beside what UTF-8 makes words of, are lines that were broken, or came from another file.
    if not others or (mostly_utf8 and (_has_words_in_utf8(lines) or not _looks_like_gb18030(others))):
        return "utf-8"
    if _looks_like_gb18030(lines):
        return "gb18030"
    if mostly_utf8:
        return "utf-8"
    raise InvalidInput.in_field("file", "is neither UTF-8, UTF-16 nor GB18030 (GBK); save it as UTF-8")


def _has_words_in_utf8(lines: list[bytes]) -> bool:
    """Where the lines of UTF-8 are French, Russian or Chinese, and not what 图片 in GB18030 is in UTF-8: ͼƬ."""
    text = "".join(line.decode() for line in lines if _decodes(line, "utf-8"))
    return len(USUAL.findall(text)) >= LEAST_USUAL * sum(1 for each in text if not each.isascii())


def _looks_like_gb18030(lines: list[bytes]) -> bool:
    pairs = TWO_BYTES.findall(b"\n".join(lines))
    common = sum(1 for pair in pairs if COMMON.fullmatch(pair))
    decoded = sum(1 for line in lines if _decodes(line, "gb18030"))
    return decoded > MOST_LINES * len(lines) and common >= LEAST_COMMON * len(pairs)


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


class _InUtf8(io.RawIOBase):
    """Whose lines end in one byte, which those of UTF-16 do not."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = self._file.read(CHUNK_BYTES)
            self._left = self._decoder.decode(chunk, final=not chunk).encode("utf-8", "replace")
            if not chunk:
                break
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def read_lines(file: IO[bytes], encoding: str) -> Iterator[Line]:
    """Those that are too long to be a row are cut, and their rest is passed over."""
    by_lines: IO[bytes] = file
    if encoding.startswith("utf-16"):
        by_lines, encoding = io.BufferedReader(_InUtf8(file, encoding)), "utf-8"
    number = 0
    while data := by_lines.readline(LONGEST_ROW_BYTES + 1):
        number += 1
        is_whole = len(data) <= LONGEST_ROW_BYTES
        while not is_whole and (rest := by_lines.readline(LONGEST_ROW_BYTES)) and not rest.endswith(b"\n"):
            pass
        text = data[:LONGEST_ROW_BYTES].decode(encoding, "replace").removesuffix("\n").removesuffix("\r")
        yield Line(number, text.removeprefix("\ufeff") if number == 1 else text, is_whole)


def read_text_rows(lines: Iterator[Line]) -> Rows:
    """JSON lines or CSV, as the first line shows. Raises InvalidInput where nothing of it can be used."""
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        raise InvalidInput.in_field("file", "is empty")
    beginning = first.text.lstrip()
    if beginning.startswith("["):
        raise InvalidInput.in_field("file", "is one JSON array; write each product as an object in a line of its own")
    return _json_rows(first, lines) if beginning.startswith("{") else _csv_rows(first, lines)


def _json_rows(first: Line, lines: Iterator[Line]) -> Rows:
    line: Line | None = first
    while line is not None:
        if line.text.strip():
            yield _flaw_of(line) or _json_row(line)
        line = next(lines, None)


def _json_row(line: Line) -> SourceRow | BadRow:
    try:
        record = json.loads(line.text, parse_constant=_refuse_constant)
    except RecursionError:
        return BadRow(line.number, "nests too deep; flatten it")
    except ValueError as error:
        return BadRow(line.number, f"is not JSON: {error}")
    if not isinstance(record, dict):
        return BadRow(line.number, 'must be a JSON object, such as {"sku": "A1", "title": "..."}')
    if "\\u" in line.text and not _is_unicode(record):
        return BadRow(line.number, "has characters that are not Unicode (lone surrogates)")
    return as_row(line.number, record)


def _is_unicode(record: dict[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character, as only JSON can write one
        return False
    return True


def _csv_rows(first: Line, lines: Iterator[Line]) -> Rows:
    delimiter = max(DELIMITERS, key=first.text.count)
    if declared := re.fullmatch(r"sep=(.)", first.text.strip("\r\n\"' ")):  # a spreadsheet's own line
        delimiter, first = declared[1], next(lines, first)
    reading = _CsvReading(first, lines, delimiter)
    head = reading.next_record() or []
    if isinstance(head, BadRow):
        raise InvalidInput.in_field("file", f"can't be used: its first line {head.reason}")
    columns = [_as_shown(cell).strip() for cell in head]
    fields = require_usable(columns)
    while (record := reading.next_record()) is not None:
        if isinstance(record, BadRow):
            yield record
        elif any(cell.strip() for cell in record):
            yield row_of_cells(reading.line, columns, [_as_shown(cell) for cell in record], fields)


def _as_shown(cell: str) -> str:
    """What keeps a spreadsheet from taking 000779 for a number is no part of it: ="000779", or a tab in front."""
    cell = cell.lstrip("\t")
    written = AS_TEXT.fullmatch(cell) if cell.startswith("=") else None
    return written[1] if written else cell


def row_of_cells(line: int, columns: list[str], cells: list[Any], fields: dict[str, str]) -> SourceRow | BadRow:
    """`fields`: of `require_usable`. What an empty cell means is nothing, and not that something is to be empty."""
    if any(cell not in (None, "") for cell in cells[len(columns) :]):
        return BadRow(line, f"has {len(cells)} cells, and there are {len(columns)} columns")
    named = zip(columns, cells, strict=False)
    values = {column: cell for column, cell in named if column and cell is not None and str(cell).strip() != ""}
    unnamed = [cell for column, cell in zip(columns, cells, strict=False) if not column and cell not in (None, "")]
    if unnamed:
        return BadRow(line, f"has {str(unnamed[0])[:40]!r} in a column that has no name")
    return as_row(line, values, fields)


class _CsvReading:
    """A record at a time, which may have several lines. A quote that is never closed costs its own line alone."""

    def __init__(self, first: Line, lines: Iterator[Line], delimiter: str) -> None:
        self._waiting: deque[Line] = deque([first])
        self._lines = lines
        self._delimiter = delimiter
        self._taken: list[Line] = []
        self._flaw: BadRow | None = None
        self.line = 0
        """Where the last record began."""

    def next_record(self) -> Any:
        """Its cells, a BadRow, or None at the end."""
        self._taken, self._flaw = [], None
        reader = csv.reader(self._texts(), delimiter=self._delimiter, strict=True)
        try:
            record = next(reader, None)
        except csv.Error as error:
            self._flaw, record = self._flaw or _flaw_of_csv(self._taken[0], error), []
        if record is None:
            return None
        self.line = self._taken[0].number
        if self._flaw is not None and len(self._taken) > 1:
            self._waiting.extendleft(reversed(self._taken[1:]))
        return self._flaw or record

    def _texts(self) -> Iterator[str]:
        size = 0
        while (line := self._next_line()) is not None:
            self._taken.append(line)
            size += len(line.text)
            self._flaw = self._flaw or _flaw_of(line)
            if size > LONGEST_ROW_BYTES or (self._flaw and not line.is_whole):
                self._flaw = self._flaw or BadRow(self._taken[0].number, "opens a quote that nothing closes")
                raise csv.Error(self._flaw.reason)
            yield f"{line.text}\n"
        if len(self._taken) > 1:  # only inside a quote does a record want another line
            self._flaw = BadRow(self._taken[0].number, "opens a quote that nothing closes")

    def _next_line(self) -> Line | None:
        return self._waiting.popleft() if self._waiting else next(self._lines, None)


def _flaw_of(line: Line) -> BadRow | None:
    if not line.is_whole:
        return BadRow(line.number, f"is over {LONGEST_ROW_BYTES:,} bytes long")
    if REPLACED in line.text:
        return BadRow(
            line.number, f"has characters that can't be read, after {line.text.partition(REPLACED)[0][-20:]!r}"
        )
    return None


def _flaw_of_csv(line: Line, error: csv.Error) -> BadRow:
    if "\r" in line.text:
        return BadRow(line.number, "has line ends of CR alone; save it with CR LF or LF")
    return BadRow(line.number, f"is not CSV: {error}")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

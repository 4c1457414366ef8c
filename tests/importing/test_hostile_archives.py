"""Archives and workbooks that state something false of themselves: refused with a reason, and never in memory."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.importing.files import csv_of, xlsx_of, zip_of
from tests.importing.test_reading import good, read, refusal
from tuwen.errors import InvalidInput
from tuwen.importing import archives, source, spreadsheet
from tuwen.importing.source import Source

ROWS = csv_of(["sku", "title", "image"], ["A", "沙发", "a.png"])
SHEET, SHEET_TYPE = "xl/worksheets/sheet1.xml", b"application/vnd.openxmlformats-officedocument.spreadsheetml"
TEXTS = b'<Override PartName="/xl/other.bin" ContentType="' + SHEET_TYPE + b'.sharedStrings+xml"/></Types>'
MAIN = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
TOO_MUCH = "too much besides its rows"


def packed_with(kind: int, name: str, data: bytes, others: dict[str, bytes], stated: int | None = None) -> bytes:
    """`stated`: as its unpacked size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in others.items():
            archive.writestr(each, content)
        archive.writestr(name, data, compress_type=kind)
        if stated is not None:
            archive.infolist()[-1].file_size = stated
    return file.getvalue()


def workbook_parts() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(xlsx_of(["sku", "title"], ["1", "a"]))) as workbook:
        return {name: workbook.read(name) for name in workbook.namelist()}


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_python_cannot_unpack_in_pieces_is_refused(tmp_path: Path, kind: int) -> None:
    bomb = bytes(4_000_000)
    assert "pack it with deflate" in refusal(tmp_path, packed_with(kind, "rows.csv", bomb, {}))
    inner = packed_with(kind, SHEET, bomb, {n: d for n, d in workbook_parts().items() if n != SHEET})
    for workbook in (inner, zip_of({"a.xlsx": inner})):
        assert "pack it with deflate" in refusal(tmp_path, workbook)
    path = tmp_path / "file"
    path.write_bytes(packed_with(kind, "a.png", bomb, {"rows.csv": ROWS}, stated=1000))
    with Source(path) as source:
        assert len(list(source.rows())) == 1
        with pytest.raises(InvalidInput, match="pack it with deflate"):
            source.read_picture("a.png", 2000)


def test_a_picture_that_is_larger_than_it_says_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(packed_with(zipfile.ZIP_DEFLATED, "a.png", bytes(100_000), {"rows.csv": ROWS}, stated=1000))
    with Source(path) as source:
        assert len(list(source.rows())) == 1
        with pytest.raises(InvalidInput, match="the limit is 2,000"):
            source.read_picture("a.png", 2000)
        assert len(source.read_picture("a.png", 200_000)) == 100_000


def many_texts(_parts: dict[str, bytes]) -> dict[str, bytes]:
    texts = b"<sst " + MAIN + b">" + b"<si/>" * spreadsheet.MOST_TEXT_TAGS + b"</sst>"
    return {"[Content_Types].xml": _parts["[Content_Types].xml"].replace(b"</Types>", TEXTS), "xl/other.bin": texts}


def sheet_as_texts(parts: dict[str, bytes]) -> dict[str, bytes]:
    """In which rows are where no row ends."""
    types = parts["[Content_Types].xml"].replace(b"</Types>", TEXTS.replace(b"xl/other.bin", SHEET.encode()))
    texts = b"<sst " + MAIN + b">" + b"<si/><row/>" * spreadsheet.MOST_TEXT_TAGS + b"</sst>"
    return {"[Content_Types].xml": types, SHEET: texts}


def styles(parts: dict[str, bytes]) -> dict[str, bytes]:
    few = b"<xf/>" * (spreadsheet.MOST_OTHER_TAGS + 1) + b"</cellXfs>"
    return {"xl/styles.xml": parts["xl/styles.xml"].replace(b"</cellXfs>", few)}


def sheet_elsewhere(parts: dict[str, bytes]) -> dict[str, bytes]:
    """With marks of rows in its one row."""
    cells = b"<row>" + b"<!--<row>--><c/><row/>" * (spreadsheet.LARGEST_ROW_BYTES // 20) + b"</row></sheetData>"
    rels = "xl/_rels/workbook.xml.rels"
    moved = parts[rels].replace(b"worksheets/sheet1.xml", b"moved.bin")
    return {rels: moved, "xl/moved.bin": parts[SHEET].replace(b"</sheetData>", cells)}


def around_rows(parts: dict[str, bytes]) -> dict[str, bytes]:
    around = b"<x/><row/>" * (spreadsheet.LARGEST_AROUND_ROWS_BYTES // 4)
    return {SHEET: parts[SHEET].replace(b"</sheetData>", around + b"</sheetData>")}


def entities(parts: dict[str, bytes]) -> dict[str, bytes]:
    return {SHEET: b'<!DOCTYPE worksheet [<!ENTITY c "<c/><c/>">]>' + parts[SHEET].partition(b"?>")[2]}


@pytest.mark.parametrize(
    ("make", "reason"),
    [(many_texts, TOO_MUCH), (sheet_as_texts, TOO_MUCH), (styles, TOO_MUCH), (sheet_elsewhere, "in one row"),
     (around_rows, "rows"), (entities, "document type declaration")],
)  # fmt: skip
def test_a_part_is_measured_as_what_it_is_read_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., dict[str, bytes]], reason: str
) -> None:
    for limit in ("MOST_TEXT_TAGS", "MOST_OTHER_TAGS", "LARGEST_ROW_BYTES", "LARGEST_AROUND_ROWS_BYTES"):
        monkeypatch.setattr(spreadsheet, limit, 200_000)
    parts = workbook_parts()
    assert reason in refusal(tmp_path, zip_of(parts | make(parts)))


def test_sheets_with_a_prefix_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some programs write them."""
    rows = b"".join(
        b'<x:row r="%d"><x:c r="A%d" t="str"><x:v>%s</x:v></x:c><x:c r="B%d" t="str"><x:v>%s</x:v></x:c></x:row>'
        % (number, number, b"sku" if number == 1 else b"%d" % number, number, b"title" if number == 1 else b"a" * 100)
        for number in range(1, 501)
    )
    sheet = b"<x:worksheet " + MAIN.replace(b"xmlns=", b"xmlns:x=") + b"><x:sheetData>%s</x:sheetData></x:worksheet>"
    monkeypatch.setattr(spreadsheet, "LARGEST_ROW_BYTES", 20_000)
    assert len(rows) > 3 * spreadsheet.LARGEST_ROW_BYTES
    assert len(good(read(tmp_path, zip_of(workbook_parts() | {SHEET: sheet % rows})))) == 499


def directory_of(count: int, *, zip64: bool) -> bytes:
    """An archive that says that it has one file in it."""
    member = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    data = b"PK\x03\x04" + member * count
    size = len(member) * count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 4, 0)
    if not zip64:
        return data + end
    far = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, 4)
    far += struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data), 1)
    return data + far + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


@pytest.mark.parametrize("zip64", [False, True])
def test_members_are_counted_before_they_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zip64: bool
) -> None:
    listed = list[zipfile.ZipInfo]()
    decode = zipfile.ZipInfo._decodeExtra  # type: ignore[attr-defined]

    def count(member: zipfile.ZipInfo, *arguments: object) -> None:
        listed.append(member)
        decode(member, *arguments)

    monkeypatch.setattr(zipfile.ZipInfo, "_decodeExtra", count)
    many = directory_of(archives.MOST_MEMBERS + 1, zip64=zip64)
    assert "300,001 files" in refusal(tmp_path, many)
    assert listed == []
    parts = directory_of(spreadsheet.MOST_PARTS + 1, zip64=zip64)
    assert "10,001 files" in refusal(tmp_path, zip_of({"rows.xlsx": parts}))
    assert len(listed) == 1
    monkeypatch.setattr(archives, "LARGEST_DIRECTORY_BYTES", 1000)
    assert "directory of" in refusal(tmp_path, directory_of(100, zip64=zip64))
    assert len(listed) == 1


@pytest.mark.parametrize("stated", [None, 10])
def test_a_workbook_in_an_archive_is_unpacked_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: int | None
) -> None:
    monkeypatch.setattr(source, "LARGEST_WORKBOOK_BYTES", 100_000)
    monkeypatch.setattr(source, "CHUNK_BYTES", 1000)
    archive = packed_with(zipfile.ZIP_DEFLATED, "rows.xlsx", bytes(3_000_000), {}, stated)
    assert "a workbook of over 100,000 bytes" in refusal(tmp_path, archive)

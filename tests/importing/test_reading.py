"""Rows as spreadsheets and scripts write them: encodings, delimiters, prices, and what is wrong with a row."""

import io
import json
import random
import zipfile
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

from tests.importing.files import csv_of, json_lines_of, xlsx_of, zip_of
from tuwen.errors import InvalidInput
from tuwen.importing import spreadsheet, text_files
from tuwen.importing.rows import ImportRow, RowError, parse_price, read_row
from tuwen.importing.source import Source
from tuwen.settings import Settings

SETTINGS = Settings(_env_file=None)
HEAD = ["标题", "货号", "类目", "价格", "图片", "颜色"]
SOFA = ["红色布艺三人沙发", "A1", "沙发", "￥1,299.00", "a.jpg", "红"]


def read(tmp_path: Path, data: bytes) -> list[ImportRow | list[RowError]]:
    path = tmp_path / "file"
    path.write_bytes(data)
    with Source(path) as source:
        return [read_row(row, SETTINGS) for row in source.rows()]


def good(rows: list[ImportRow | list[RowError]]) -> list[ImportRow]:
    return [row for row in rows if isinstance(row, ImportRow)]


def reasons(rows: list[ImportRow | list[RowError]]) -> list[tuple[int, str, str]]:
    return [(each.line, each.field, each.reason) for row in rows if isinstance(row, list) for each in row]


def refusal(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(InvalidInput) as raised:
        read(tmp_path, data)
    return raised.value.detail


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "gbk"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_is_read_in_each_encoding_and_with_each_delimiter(tmp_path: Path, encoding: str, delimiter: str) -> None:
    [row] = good(read(tmp_path, csv_of(HEAD, SOFA, encoding=encoding, delimiter=delimiter)))
    assert (row.line, row.sku, row.changes.title, row.changes.category) == (2, "A1", "红色布艺三人沙发", "沙发")
    assert (row.changes.price, row.image, row.attributes) == (Decimal("1299.00"), "a.jpg", {"颜色": "红"})


def test_an_encoding_is_found_behind_many_lines_without_it(tmp_path: Path) -> None:
    plain = [[f"S{number}", "plain title"] for number in range(20_000)]
    rows = good(read(tmp_path, csv_of(["sku", "title"], *plain, ["A1", "红色布艺沙发"], encoding="gb18030")))
    assert (len(rows), rows[-1].changes.title) == (20_001, "红色布艺沙发")


GBK_WITH_LITTLE_CHINESE = {
    "pictures in a folder 图片, whose bytes are UTF-8, too": [
        ["货号", "品名", "图片"], *([f"ENC-{number}", "Sofa", f"图片\\{number}.png"] for number in range(50)),
    ],
    "all of it in the last line": [["sku", "title"], ["ENC-1", "红色布艺沙发"]],
}  # fmt: skip


@pytest.mark.parametrize("rows", GBK_WITH_LITTLE_CHINESE.values(), ids=GBK_WITH_LITTLE_CHINESE)
def test_gbk_is_found_where_there_is_little_of_it(tmp_path: Path, rows: list[list[str]]) -> None:
    found = good(read(tmp_path, csv_of(*rows, encoding="gbk").rstrip()))
    assert [[row.sku, row.changes.title, row.image][: len(rows[0])] for row in found] == rows[1:]


BROKEN = ["café".encode("cp1252"), "éclair doré à côté".encode()[:-1], "沙发".encode()[:-1]]
BROKEN += ["Café crème d".encode() + b"\x92une", "红色沙发".encode("gbk")]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("title", ["红色布艺沙发", "椅", "кресло красное", "Étagère en chêne"])
def test_utf8_with_a_broken_line_is_utf8(tmp_path: Path, title: str, broken: bytes) -> None:
    lines = csv_of(["sku", "title"], *([f"A{number}", title] for number in range(9)))
    rows = read(tmp_path, lines + b"B," + broken + b",\r\n")
    assert {row.changes.title for row in good(rows)} == {title}
    assert [line for line, _, _ in reasons(rows)] == [11]


def test_other_encodings_are_refused_and_not_taken_for_chinese(tmp_path: Path) -> None:
    for title, encoding in (("木製書櫃與椅子紅色布藝沙發", "big5"), ("Étagère en chêne brûlé", "cp1252")):
        assert "neither UTF-8" in refusal(tmp_path, csv_of(["sku", "title"], ["1", title], encoding=encoding))


def test_a_line_that_is_not_of_the_files_encoding_is_an_error_of_its_own(tmp_path: Path) -> None:
    lines = [csv_of([f"A{number}", "红色沙发"]) for number in range(3)]
    data = csv_of(["sku", "title"]) + lines[0] + csv_of(["B", "红色沙发"], encoding="gbk") + lines[1] + lines[2]
    rows = read(tmp_path, data)
    assert [row.sku for row in good(rows)] == ["A0", "A1", "A2"]
    assert [(line, field) for line, field, _ in reasons(rows)] == [(3, "row")]


def test_json_lines_with_null_blank_lines_and_windows_ends(tmp_path: Path) -> None:
    records = [
        {"sku": "1", "title": "沙发", "price": 19.9, "attributes": None, "材质": "布"},
        {"sku": 2, "title": "椅"},
    ]
    data = b"\xef\xbb\xbf" + b"\r\n\r\n".join(json_lines_of(each).strip() for each in records)
    first, second = good(read(tmp_path, data))
    assert (first.changes.price, first.changes.attributes, first.attributes) == (Decimal("19.9"), {}, {"材质": "布"})
    assert (second.line, second.sku) == (3, "2")


def test_every_bad_row_says_its_line_and_reason_and_ends_nothing(tmp_path: Path) -> None:
    lines = [
        b'{"sku": "1", "title": "a"}',
        b"{broken",
        b"[1]",
        b'{"sku": "2", "title": NaN}',
        b'{"sku": "3", "title": "b", "price": "cheap"}',
        b'{"sku": "4", "title": "c", "price": -1, "attributes": []}',
        b'{"sku": "5", "title": "' + b"x" * (2 * text_files.LONGEST_ROW_BYTES) + b'"}',
        b'{"sku": "6", "title": "d", "name": "e"}',
        b'{"sku": "7", "title": "f", "image": [' + b'"a.jpg", ' * 9 + b'"b.jpg"]}',
        b"[" * 200_000,
        b'{"sku": "8", "title": "g"}',
    ]
    rows = read(tmp_path, b"\n".join(lines))
    assert [row.sku for row in good(rows)] == ["1", "8"]
    found = reasons(rows)
    assert [(line, field) for line, field, _ in found] == [
        (2, "row"), (3, "row"), (4, "row"), (5, "price"), (6, "price"), (6, "attributes"), (7, "row"), (8, "row"),
        (9, "image"), (10, "row"),
    ]  # fmt: skip
    assert "'cheap'" in found[3][2]
    assert "title twice" in found[7][2]


def test_a_quote_that_nothing_closes_costs_its_own_line(tmp_path: Path) -> None:
    rows = read(tmp_path, b'sku,title\nA1,"open\nA2,x\nA3,"two\nlines"\nA4,y\n')
    assert [row.sku for row in good(rows)] == ["A2", "A4"]
    assert [(line, field) for line, field, _ in reasons(rows)] == [(2, "row"), (4, "title")]  # of several lines
    assert good(read(tmp_path, b'sku,title\nA1,"open\nA2,x\n'))[0].sku == "A2"
    assert (
        good(read(tmp_path, b'sku,title\nA3,x,"two, ""and""\nlines"\nA4,y,\n'.replace(b"title", b"title,foo")))[1].line
        == 4
    )


def test_cells_without_a_column_are_errors_and_not_dropped(tmp_path: Path) -> None:
    rows = read(tmp_path, b"sep=;\nsku;title;\n1;b;\n2;c;d\n3;e;;f\n")
    assert [row.sku for row in good(rows)] == ["1"]
    assert [line for line, _, _ in reasons(rows)] == [4, 5]


def test_a_workbook_is_read_whatever_it_says_of_its_size(tmp_path: Path) -> None:
    workbook = xlsx_of(
        ["货号", "标题", "价格", "尺寸"], [1001, "沙发", 1299.0, 3.5], [None] * 4, ["A2", "椅", None, None]
    )
    assert b"A1:D4" in zipfile.ZipFile(io.BytesIO(workbook)).read("xl/worksheets/sheet1.xml")
    for dimension in (b"A1:D4", b"A1:XFD1048576", b"A1"):
        files = {
            each: zipfile.ZipFile(io.BytesIO(workbook)).read(each)
            for each in zipfile.ZipFile(io.BytesIO(workbook)).namelist()
        }
        files["xl/worksheets/sheet1.xml"] = files["xl/worksheets/sheet1.xml"].replace(b"A1:D4", dimension)
        for data in (zip_of(files), zip_of({"dir/goods.xlsx": zip_of(files), "dir/a.jpg": b"a"})):
            first, second = good(read(tmp_path, data))
            assert (first.sku, first.changes.price, first.attributes) == ("1001", Decimal(1299), {"尺寸": 3.5})
            assert (second.line, second.sku) == (4, "A2")


def test_a_workbook_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    workbook = zipfile.ZipFile(io.BytesIO(xlsx_of(["sku", "title"], ["1", "a"])))
    files = {name: workbook.read(name) for name in workbook.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    wide = b"<row>" + b"<c/>" * spreadsheet.LARGEST_ROW_BYTES + b"</row></sheetData>"
    assert "in one row" in refusal(tmp_path, zip_of(files | {sheet: files[sheet].replace(b"</sheetData>", wide)}))
    far = b'<row r="999999999999"><c t="str"><v>x</v></c></row></sheetData>'
    assert "over 1,048,576 rows" in refusal(
        tmp_path, zip_of(files | {sheet: files[sheet].replace(b"</sheetData>", far)})
    )
    for name in ("xl/styles.xml", "docProps/core.xml"):
        much = files[name] + b" " * spreadsheet.LARGEST_OTHERS_BYTES
        assert "too much besides its rows" in refusal(tmp_path, zip_of(files | {name: much}))
    assert "no XLSX workbook" in refusal(tmp_path, zip_of(files | {sheet: b"<broken"}))


def test_what_is_no_catalogue_is_named(tmp_path: Path) -> None:
    for data, expected in (
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a,b\n1,2\n", "it has a, b"),
        (b"sku,title,name\n", "title, name"),
        (b"[{}]", "JSON array"),
        (b'sku,"title\n1,a\n', "its first line opens a quote"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", ".xls"),
        (b"PK\x03\x04broken", "can't be read"),
        (zip_of({"a.jpg": b""}), "it has none"),
        (zip_of({"a.csv": b"", "b.csv": b""}), "a.csv, b.csv"),
    ):
        assert expected in refusal(tmp_path, data)


def test_pictures_are_found_by_every_way_of_writing_their_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    rows = csv_of(["sku", "title"], ["1", "a"])
    path.write_bytes(
        zip_of({"shop/goods.csv": rows, "shop/图片/Sofa.JPG": b"sofa", "a/same.png": b"", "b/same.png": b""})
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo("椅子.png".encode("gbk").decode("cp437")), b"chair")
        archive.infolist()[-1].flag_bits = 0
    with Source(path) as source:
        assert len(list(source.rows())) == 1
        for name in (
            "图片/Sofa.JPG",
            r".\图片\sofa.jpg",
            "shop/图片/Sofa.JPG",
            r"C:\Users\我\图片\Sofa.jpg",
            "Sofa.JPG",
        ):
            assert source.read_picture(name, 100) == b"sofa", name
        for name, reason in (("none.jpg", "not in the archive"), ("same.png", "say in which folder")):
            with pytest.raises(InvalidInput, match=reason):
                source.read_picture(name, 100)
        with pytest.raises(InvalidInput, match="the limit is 3"):
            source.read_picture("Sofa.JPG", 3)


@pytest.mark.parametrize(
    ("written", "price"),
    [("￥1,299.00", "1299.00"), ("¥ 88", "88"), ("1299元", "1299"), ("1.299,00", "1299.00"), ("12,5", "12.5"),
     ("1,299", "1299"), ("RMB 5", "5"), ("US$5", "US$5"), (19.99, "19.99"), (0.1 + 0.2, "0.3"), (7, 7),
     ("0,999", "0,999"), ("0.999,00", "0.999,00"), ("0,99", "0.99")],
)  # fmt: skip
def test_prices(written: object, price: object) -> None:
    assert parse_price(written) == price


def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    rows = [["货号", "标题", "图片"], ["1", '红"色', "a.png"], ["2", "x\ny", ""]]
    archive = zip_of({"a.csv": csv_of(*rows, encoding="gb18030"), "a.png": b"x" * 500})
    whole = (
        archive,
        xlsx_of(*rows),
        csv_of(*rows, encoding="gb18030"),
        json_lines_of({"sku": "1", "x": [1, {"b": 2}]}),
    )
    chance = random.Random(7)
    for number in range(800):
        data = bytearray(whole[number % len(whole)])
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / "file").write_bytes(data)
        with suppress(InvalidInput), Source(tmp_path / "file") as source:
            for row in source.rows():
                read_row(row, SETTINGS)
            source.read_picture("a.png", 1000)


def test_attributes_that_nest_too_deep_are_an_error_of_their_row(tmp_path: Path) -> None:
    """MariaDB and MySQL would refuse the page that they stand in, and with it the import."""
    rows: list[dict[str, object]] = [{"sku": sku, "title": "桌子"} for sku in ("A1", "A2", "A3")]
    deep = json.loads("[" * 21 + "]" * 21)
    rows[0] |= {"attributes": {"a": deep}}
    rows[1] |= {"尺寸": deep}
    rows[2] |= {"attributes": {"a": deep[0]}}
    read_rows = read(tmp_path, json_lines_of(*rows))
    assert [row.sku for row in good(read_rows)] == ["A3"]
    assert [(line, reason) for line, _, reason in reasons(read_rows)] == [
        (line, "nest over 20 lists and objects in each other; flatten them") for line in (1, 2)
    ]

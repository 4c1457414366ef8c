"""What spreadsheets do to codes, days and sheets, and what their users pack: read as it was meant, or refused aloud."""

import datetime
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from tests.importing.files import csv_of, json_lines_of, xlsx_of, zip_of
from tests.importing.test_reading import good, read, reasons, refusal
from tuwen.api.messages import find_message
from tuwen.importing.replacing import NamedSkus
from tuwen.importing.source import Source

TITLED = ["货号", "标题"]


def workbook_of(change: Callable[[openpyxl.Workbook], None]) -> bytes:
    workbook, file = openpyxl.Workbook(), io.BytesIO()
    change(workbook)
    workbook.save(file)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        csv_of(TITLED, ["6.90123E+12", "a"], ["6.90123e+12", "b"], ["7E+12", "c"], ["A1E+5", "d"]),
        xlsx_of(TITLED, [6.90123456789012e17, "a"], [6901234567890120, "b"], [12345678901234500, "c"], ["A1E+5", "d"]),
        json_lines_of(*({"sku": sku, "title": "x"} for sku in (6.9e15, 6.9e20, "6.9E+15", "A1E+5"))),
    ],
)
def test_a_sku_that_lost_digits_is_refused(tmp_path: Path, data: bytes) -> None:
    rows = read(tmp_path, data)
    assert [row.sku for row in good(rows)] == ["A1E+5"]
    assert [field for _, field, _ in reasons(rows)] == ["sku"] * 3
    for _, _, reason in reasons(rows):
        message = find_message(reason)
        assert message is not None
        assert (message.code, "文本格式" in message.in_chinese) == ("lost_digits", True)
    skus = NamedSkus()
    with Source(tmp_path / "file") as source:
        skus.read(source.rows())
    assert len(skus.without) == 3  # so that nothing is deleted for it


def test_a_group_that_lost_digits_is_refused(tmp_path: Path) -> None:
    rows = read(tmp_path, csv_of([*TITLED, "SPU"], ["1", "a", "6.90123E+12"], ["2", "b", "6.9"]))
    assert [row.sku for row in good(rows)] == ["2"]
    assert [field for _, field, _ in reasons(rows)] == ["group_id"]
    rows = read(tmp_path, xlsx_of([*TITLED, "SPU"], ["1", "a", 6901234567890120], ["2", "b", 690]))
    assert [field for _, field, _ in reasons(rows)] == ["group_id"]


def test_a_format_of_zeros_makes_no_lost_digits_good(tmp_path: Path) -> None:
    def fill(workbook: openpyxl.Workbook) -> None:
        for row in (TITLED, [6901234567890120, "a"], [779, "b"]):
            workbook.active.append(row)
        for (cell,) in workbook.active["A2:A3"]:
            cell.number_format = "0" * 16

    rows = read(tmp_path, workbook_of(fill))
    assert [row.sku for row in good(rows)] == ["0000000000000779"]
    assert [field for _, field, _ in reasons(rows)] == ["sku"]


def test_skus_of_many_digits_that_are_whole_are_taken(tmp_path: Path) -> None:
    skus: list[object] = [6901234567890, 690123456789012, 6901234567890123, "6901234567890120"]
    whole = [str(sku) for sku in skus]
    assert [row.sku for row in good(read(tmp_path, xlsx_of(TITLED, *([sku, "a"] for sku in skus))))] == whole
    rows = json_lines_of(*({"sku": sku, "title": "a"} for sku in (6901234567890120, 10**17)))
    assert [row.sku for row in good(read(tmp_path, rows))] == ["6901234567890120", str(10**17)]


def test_leading_zeros_of_a_format_are_read(tmp_path: Path) -> None:
    def fill(workbook: openpyxl.Workbook) -> None:
        for row in ([*TITLED, "批号", "件数"], [779, "a", 12.0, 5], [1234567, "b", None, -1], ["A1", "c", 3, 2]):
            workbook.active.append(row)
        for cells, written in (("A2:A4", "000000"), ("C2:C4", "000"), ("D2:D4", "0")):
            for (cell,) in workbook.active[cells]:
                cell.number_format = written

    rows = good(read(tmp_path, workbook_of(fill)))
    assert [(row.sku, row.attributes) for row in rows] == [
        ("000779", {"批号": "012", "件数": 5}),
        ("1234567", {"件数": -1}),
        ("A1", {"批号": "003", "件数": 2}),
    ]


@pytest.mark.parametrize("cell", ['="000779"', "\t000779", '\t="000779"'])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_cells_that_are_kept_as_texts_are_their_texts(tmp_path: Path, cell: str, delimiter: str) -> None:
    table = [["货号", "标题", "型号", "批号"], [cell, "a", "=1+1", cell]]
    written = "".join(f"{delimiter.join(row)}\n" for row in table)
    for data in (written.encode(), csv_of(*table, delimiter=delimiter)):
        [row] = good(read(tmp_path, data))
        assert (row.sku, row.attributes) == ("000779", {"型号": "=1+1", "批号": "000779"})


def test_the_first_visible_sheet_is_read(tmp_path: Path) -> None:
    def fill(workbook: openpyxl.Workbook) -> None:
        workbook.active.append(["sku", "title", "说明"])
        workbook.active.sheet_state = "hidden"
        for row in (TITLED, ["A1", "沙发"]):
            workbook.create_sheet("商品").append(row) if "商品" not in workbook else workbook["商品"].append(row)
        workbook.active = 1

    assert [row.sku for row in good(read(tmp_path, workbook_of(fill)))] == ["A1"]


def test_a_chart_without_anything_is_refused_with_a_sentence(tmp_path: Path) -> None:
    workbook = workbook_of(lambda workbook: workbook.create_chartsheet("图"))
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    [sheet] = [name for name in files if name.startswith("xl/chartsheets/sheet")]
    namespace = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    files[sheet] = b'<chartsheet xmlns="%s"/>' % namespace
    assert "first visible sheet" in refusal(tmp_path, zip_of(files)) or "no XLSX" in refusal(tmp_path, zip_of(files))


def test_a_day_is_a_day_and_a_time_stays(tmp_path: Path) -> None:
    day, moment = datetime.datetime(2024, 1, 5), datetime.datetime(2024, 1, 5, 13, 30)
    [row] = good(read(tmp_path, xlsx_of([*TITLED, "上架", "更新"], ["1", "a", day, moment])))
    assert row.attributes == {"上架": "2024-01-05", "更新": "2024-01-05T13:30:00"}


@pytest.mark.parametrize("rows", ["goods.csv", "商品.xlsx"])
def test_an_archive_with_backslashes_is_one_with_folders(tmp_path: Path, rows: str) -> None:
    table = [[*TITLED, "图片"], ["1", "a", "图片\\a.png"]]
    path = tmp_path / "file"
    path.write_bytes(
        zip_of(
            {
                "店\\": b"",
                f"店\\{rows}": csv_of(*table) if rows.endswith(".csv") else xlsx_of(*table),
                f"店\\~${rows}": b"lock",
                "店\\图片\\a.png": b"sofa",
                "店\\图片\\说明.txt": b"",
                "other\\a.png": b"",
            }
        )
    )
    with Source(path) as source:
        assert len(list(source.rows())) == 1
        for name in ("图片\\a.png", "图片/a.png", "店/图片/a.png"):
            assert source.read_picture(name, 100) == b"sofa", name


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04broken", "是无法读取的 ZIP"),
        (b'sku,"title\n1,a\n', "无法使用，第一行有问题：有一个引号没有闭合"),
        (b"sku,title\r1,a\r2,b\r", "无法使用，第一行有问题：换行只有 CR；请另存为 CR LF 或 LF 换行"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_in_chinese(tmp_path: Path, data: bytes, said: str) -> None:
    message = find_message(refusal(tmp_path, data).removeprefix("file: "))
    assert message is not None
    assert message.in_chinese.startswith(said)

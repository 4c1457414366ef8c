"""Files through a running service: products come in, errors come out, and the same file again changes nothing."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.test_api import assert_problem
from tests.conftest import picture, wait_until_indexed
from tests.importing.files import (
    counts_of,
    csv_of,
    errors_of,
    import_file,
    json_lines_of,
    wait_for_job,
    xlsx_of,
    zip_of,
)
from tests.secrecy import assert_tells_nothing

HEAD = ["货号", "标题", "类目", "价格", "图片", "颜色"]


def product_of(client: httpx.Client, sku: str) -> Any:
    [product] = client.get("/product/list", params={"q": sku}).json()["items"]
    return product


def shop_of(prefix: str, count: int, **changes: Any) -> bytes:
    """An archive with so many products, each with a picture of its own."""
    rows = [
        {"sku": f"{prefix}-{number}", "title": f"{prefix} 商品 {number}", "price": number, "image": f"{number}.png"}
        | changes
        for number in range(count)
    ]
    pictures = {f"{number}.png": picture((number, 90, 200)) for number in range(count)}
    return zip_of({"products.jsonl": json_lines_of(*rows), **pictures})


def test_a_spreadsheet_of_a_chinese_windows_goes_in_and_its_errors_come_out(api: httpx.Client) -> None:
    rows = csv_of(
        HEAD,
        ["CN-1", "红色布艺三人沙发", "沙发", "￥1,299.00", r"图片\1.png", "红"],
        ["CN-2", "木椅", "", "", "2.png", ""],
        ["CN-3", "坏价格", "", "贵", "2.png", ""],
        ["CN-4", "没有图片", "", "", "", ""],
        ["=CN-5", "图片坏了", "", "", "bad.png", ""],
        ["CN-6", "", "", "", "2.png", ""],
        encoding="gb18030",
    )
    files = {"商品.csv": rows, "图片/1.png": picture("red"), "图片/2.png": picture("blue"), "bad.png": b"nothing"}
    job = import_file(api, zip_of(files))
    assert counts_of(job) == (2, 0, 0, 4)
    assert job["columns"] == dict(
        zip(HEAD, ["sku", "title", "category", "price", "image", "attributes.颜色"], strict=True)
    )
    errors = errors_of(api, job)
    assert [each[:3] for each in errors] == [
        ["4", "CN-3", "price"],
        ["5", "CN-4", "image"],
        ["6", "'=CN-5", "image"],
        ["7", "CN-6", "title"],
    ]
    in_chinese = api.get(job["errors_url"], headers={"Accept-Language": "zh-CN"}).text
    assert "是 '贵'，不是数字" in in_chinese
    assert "压缩包" not in in_chinese
    sofa = product_of(api, "CN-1")
    assert (sofa["price"], sofa["category"], sofa["attributes"]) == (1299.0, "沙发", {"颜色": "红"})
    wait_until_indexed(api)
    mended = csv_of(HEAD, ["CN-3", "好价格", "", "9", "2.png", ""], encoding="gb18030")
    assert counts_of(import_file(api, zip_of({"mended.csv": mended, "2.png": picture("blue")}))) == (1, 0, 0, 0)


def test_the_same_file_again_creates_changes_and_encodes_nothing(api: httpx.Client) -> None:
    archive = shop_of("AG", 30)
    assert counts_of(import_file(api, archive)) == (30, 0, 0, 0)
    wait_until_indexed(api)
    before = product_of(api, "AG-7")
    for mode in ("create", "upsert"):
        assert counts_of(import_file(api, archive, mode)) == (0, 0, 30, 0)
        assert product_of(api, "AG-7") == before


def test_upsert_changes_what_the_file_says_and_leaves_the_rest(api: httpx.Client) -> None:
    attributes = {"颜色": "红", "材质": "布"}
    assert counts_of(import_file(api, shop_of("UP", 4, category="沙发", attributes=attributes))) == (4, 0, 0, 0)
    wait_until_indexed(api)
    prices = xlsx_of(["SKU", "Price"], ["UP-0", 5.5], ["UP-1", 1], ["UP-9", 3])
    assert counts_of(import_file(api, prices, "upsert", "prices.xlsx")) == (0, 1, 1, 1)
    changed = product_of(api, "UP-0")
    assert (changed["price"], changed["title"], changed["category"]) == (5.5, "UP 商品 0", "沙发")
    assert (changed["attributes"], changed["index_status"], changed["version"]) == (attributes, "indexed", 2)
    rows = csv_of(["sku", "材质", "图片", "category"], ["UP-2", "皮", "new.png", ""], ["ＵＰ－3", "皮", "", "椅"])
    archive = zip_of({"a.csv": rows, "new.png": picture("black")})
    assert counts_of(import_file(api, archive, "upsert")) == (0, 2, 0, 0)
    changed = product_of(api, "UP-2")
    assert (changed["attributes"], changed["category"]) == ({"颜色": "红", "材质": "皮"}, "沙发")
    assert api.get(changed["image_url"]).content == picture("black")
    assert product_of(api, "UP-3")["category"] == "椅"
    cleared = json_lines_of({"sku": "UP-3", "category": None, "price": None, "attributes": None})
    assert counts_of(import_file(api, cleared, "upsert")) == (0, 1, 0, 0)
    changed = product_of(api, "UP-3")
    assert (changed["category"], changed["price"], changed["attributes"]) == (None, None, {})


def test_what_stands_twice_in_a_file_is_one_product(api: httpx.Client) -> None:
    rows = [
        {"sku": "TW-1", "title": "一", "image": "a.png"},
        {"sku": "TW-1 ", "title": "二", "image": "b.png"},
        {"sku": "TW-1", "title": "二", "image": "a.png"},
        {"sku": "TW-1", "title": "二", "image": "a.png"},
    ]
    files = {"a.jsonl": json_lines_of(*rows), "a.png": picture("red"), "b.png": picture("blue")}
    assert counts_of(import_file(api, zip_of(files), "upsert")) == (1, 2, 1, 0)
    assert counts_of(import_file(api, zip_of(files), "upsert")) == (0, 3, 1, 0)
    product = product_of(api, "TW-1")
    assert (product["title"], api.get(product["image_url"]).content) == ("二", picture("red"))
    assert counts_of(import_file(api, zip_of(files), "create")) == (0, 0, 4, 0)


def test_rows_without_a_sku_are_created_each_time_and_never_upserted(api: httpx.Client) -> None:
    archive = zip_of({"a.jsonl": json_lines_of({"title": "无货号的灯", "image": "a.png"}), "a.png": picture()})
    assert counts_of(import_file(api, archive)) == (1, 0, 0, 0)
    assert counts_of(import_file(api, archive)) == (1, 0, 0, 0)
    assert api.get("/product/list", params={"q": "无货号的灯"}).json()["total"] == 2
    job = import_file(api, archive, "upsert")
    assert counts_of(job) == (0, 0, 0, 1)
    assert errors_of(api, job)[0][2] == "sku"


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_what_is_exported_goes_back_and_changes_nothing(api: httpx.Client, file_format: str) -> None:
    rows: list[dict[str, object]] = [
        {"sku": f"EX-{file_format}-1", "title": '红色 "布艺", 沙发', "price": "1299.50", "image": "a.png"},
        {"sku": f"EX-{file_format}-2", "title": "木椅", "attributes": {"颜色": ["红"], "n": 1.5}, "image": "a.png"},
        {"sku": f"={file_format}", "title": "=1+1", "category": "-1", "image": "a.png"},
    ]
    import_file(api, zip_of({"a.jsonl": json_lines_of(*rows), "a.png": picture()}))
    exported = api.get("/product/export", params={"format": file_format})
    total = api.get("/product/list").json()["total"]
    job = import_file(api, exported.content, "upsert", f"a.{file_format}")
    created, updated, unchanged, failed = counts_of(job)
    assert (created, updated, unchanged + failed) == (0, 0, total)
    assert {reason for *_, field, reason in errors_of(api, job) if field != "sku"} == set()
    edited = exported.text.replace("1299.50", "999.00").encode()
    assert counts_of(import_file(api, edited, "upsert"))[:2] == (0, 1)


def test_half_characters_are_an_error_of_their_row(api: httpx.Client) -> None:
    image = '"image": "a.png"'
    lines = [
        r'{"sku": "HA-\ud8001", "title": "a", ' + image + "}",
        r'{"sku": "HA-2", "title": "a", "\ud800": "b", ' + image + "}",
        r'{"sku": "HA-3", "title": "a", "image": "http://a/\ud800"}',
        r'{"sku": "HA-4", "title": "a", "image": "\u0000"}',
        r'{"sku": "HA-5", "title": "a", ' + f'"{"x" * 500_000}": 1, {image}' + "}",
        r'{"sku": "HA-6", "title": "a", ' + image + "}",
    ]
    job = import_file(api, zip_of({"a.jsonl": "\n".join(lines).encode(), "a.png": picture()}))
    assert counts_of(job) == (1, 0, 0, 5)
    assert [(line, field) for line, _, field, _ in errors_of(api, job)] == [
        ("1", "row"), ("2", "row"), ("3", "row"), ("4", "image"), ("5", "attributes"),
    ]  # fmt: skip
    assert max(map(len, job["columns"])) == 100


def test_a_disk_that_cannot_be_written_is_said_and_nothing_is_begun(api: httpx.Client, api_folder: Path) -> None:
    folder = api_folder / "data" / "imports"
    folder.rename(folder.with_name("aside"))
    folder.touch()
    try:
        assert_tells_nothing(api.post("/product/import", files={"file": ("a.csv", b"x")}))
        assert "can't be kept (DATA_DIR)" in (api_folder / "api.log").read_text(encoding="utf-8")
    finally:
        folder.unlink()
        folder.with_name("aside").rename(folder)


def test_a_file_that_cannot_be_read_fails_its_job_with_the_reason(api: httpx.Client) -> None:
    job = import_file(api, b"a,b\n1,2\n")
    assert (job["status"], "name its columns" in job["error"]) == ("failed", True)
    assert errors_of(api, job) == []
    assert_problem(api.post(f"{job['status_url']}/cancel"), 409, None, "failed already")


def test_what_is_no_upload_is_refused_and_leaves_nothing(api: httpx.Client, api_folder: Path) -> None:
    path = "/product/import"
    assert_problem(api.post(path, content=b"x"), 415, None, "multipart/form-data")
    assert_problem(api.post(path, files={"image": ("a.csv", b"x")}), 422, "image", "the form has a field 'file' alone")
    two = [("file", ("a.csv", b"x")), ("file", ("b.csv", b"y"))]
    assert_problem(api.post(path, files=two), 422, "file", "comes twice")
    assert_problem(api.post(path, params={"mode": "replace"}, files={"file": ("a.csv", b"x")}), 422, "mode", "create")
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    begun = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nsku'
    assert_problem(api.post(path, content=begun, headers=headers), 400, None, "ends before")
    assert_problem(api.post(path, content=b"--b--\r\n", headers=headers), 422, "file", "is missing")
    assert_problem(api.get(f"{path}/987654"), 404, None, "987654")
    assert_problem(api.get(f"{path}/987654/errors"), 404, None, "987654")
    assert list((api_folder / "data" / "imports").iterdir()) == []


def test_an_import_is_cancelled_and_what_is_in_stays(api: httpx.Client) -> None:
    lines = b"".join(b'{"sku": "CA-%d", "title": "x"}\n' % number for number in range(100_000))
    job = api.post("/product/import", files={"file": ("a.jsonl", lines)}).json()
    assert api.post(f"{job['status_url']}/cancel").status_code == 204
    assert api.post(f"{job['status_url']}/cancel").status_code == 204
    job = wait_for_job(api, job)
    time.sleep(0.5)
    assert api.get(job["status_url"]).json() == job

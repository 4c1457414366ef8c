"""The page of imports, in a real browser: a spreadsheet goes in, its errors come back, and it goes in mended."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.conftest import broken_picture, create_product, picture, wait_until_indexed
from tests.importing.files import csv_of, zip_of
from tests.web.test_pages import DESKTOP, browser, open_tab, row, running_pages, while_it_is_live  # noqa: F401  # a fixture
from tuwen.importing.columns import fields_of
from web.texts import IMPORT_TEMPLATES, Language

HEAD = ["货号", "标题", "分类", "价格", "图片", "颜色"]


@pytest.fixture(scope="module")
def pages_url(api: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_pages(tmp_path_factory.mktemp("web"), str(api.base_url).rstrip("/")) as url:
        yield url


@pytest.fixture
def tab(browser: BrowserContext, tmp_path: Path) -> Iterator[Page]:  # noqa: F811
    with open_tab(browser, DESKTOP, tmp_path / "page.png") as page:
        yield page


def send(page: Page, name: str, data: bytes, mode: str = "", *, dry_run: bool = False, percent: str = "") -> None:
    kind = "application/zip" if name.endswith(".zip") else "text/csv"
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": kind, "buffer": data})
    expect(page.get_by_text(name).first).to_be_visible()
    if mode:
        page.get_by_text(mode, exact=True).click()
    if dry_run:
        page.get_by_text("试运行：只统计，不改动").click()
    if percent:
        page.get_by_test_id("stNumberInputField").fill(percent)
    page.get_by_role("button", name="开始导入").click()


def expect_counts(page: Page, *counts: str) -> None:
    expect(page.get_by_test_id("stMetricValue")).to_have_text(counts)


def test_a_spreadsheet_and_its_photos_go_in_and_its_errors_are_mended(
    tab: Page, pages_url: str, api: httpx.Client
) -> None:
    rows = [[f"IM-{n}", f"商品 {n}", "沙发", "￥1,299.00", rf"图片\{n}.png", "红"] for n in range(4)]
    rows[2][3] = "贵"
    pictures = {f"图片/{n}.png": picture((n, 60, 90)) for n in range(3)}
    tab.goto(f"{pages_url}/import_products")
    expect(tab.get_by_role("button", name="开始导入")).to_be_visible()  # a fold that is opened before closes again
    tab.get_by_text("文件里可以有哪些列").click()
    expect(tab.get_by_text("SPU（group_id）")).to_be_visible()
    with tab.expect_download() as downloading:
        tab.get_by_role("button", name="下载模板（CSV）").click()
    assert Path(downloading.value.path()).read_text(encoding="utf-8-sig").startswith("货号,标题,")
    tab.get_by_role("button", name="开始导入").click()
    expect(tab.get_by_text("请先选择文件。")).to_be_visible()
    send(tab, "商品.zip", zip_of({"商品.csv": csv_of(HEAD, *rows, encoding="gb18030"), **pictures}))
    expect(tab.get_by_text("2 行没有导入，另有 0 条提醒")).to_be_visible()
    expect_counts(tab, "2", "0", "0", "2")
    with tab.expect_download() as downloading:
        tab.get_by_role("button", name="下载清单（CSV）").click()
    report = Path(downloading.value.path()).read_text(encoding="utf-8-sig")
    said = [(each["line"], each["sku"], each["field"]) for each in csv.DictReader(io.StringIO(report))]
    assert said == [("4", "IM-2", "price"), ("5", "IM-3", "image")]
    assert "不是数字" in report
    rows[2][3] = "99"
    pictures["图片/3.png"] = picture((3, 60, 90))
    send(tab, "改好.zip", zip_of({"商品.csv": csv_of(HEAD, *rows, encoding="gb18030"), **pictures}), "按文件更新")
    expect(tab.get_by_text("所有行都已导入。")).to_be_visible()
    expect_counts(tab, "2", "0", "2", "0")
    assert api.get("/product/list", params={"q": "IM-2"}).json()["items"][0]["price"] == 99


def test_a_dry_run_says_what_would_be_deleted_and_how_much_may(tab: Page, pages_url: str, api: httpx.Client) -> None:
    file = csv_of(["货号", "标题"], ["DR-0", "留下"])
    products = [create_product(api, f"商品 {n}", picture((n, 1, 1)), sku=f"DR-{n}") for n in range(4)]
    total = api.get("/product/list").json()["total"]
    ways = "按文件更新，并删除文件里没有的商品"
    tab.goto(f"{pages_url}/import_products")
    send(tab, "少.csv", file, ways, dry_run=True)
    expect(tab.get_by_text("什么也没有删除")).to_be_visible()
    expect(tab.get_by_text(f"最多可以删除 {total // 2} 件。", exact=True)).to_be_visible()
    tab.goto(f"{pages_url}/import_products")
    send(tab, "少二.csv", file, ways, dry_run=True, percent="99")
    said = f"将会删除 {total - 1} 件文件中没有的商品。 最多可以删除 {int(total * 0.99)} 件。"
    expect(tab.get_by_text(said, exact=True)).to_be_visible()
    expect(tab.get_by_text("这是试运行：什么都没有改动。")).to_be_visible()
    assert api.get("/product/list").json()["total"] == total
    for product in products:
        api.delete(f"/product/{product['product_id']}").raise_for_status()


@pytest.mark.parametrize("language", IMPORT_TEMPLATES)
def test_the_template_has_the_columns_that_are_explained(language: Language) -> None:
    first, *rows = csv.reader(io.StringIO(IMPORT_TEMPLATES[language]))
    field_of = fields_of(first)
    fields = [field_of.get(column) for column in first]
    assert fields == ["sku", "title", "category", "price", "image", "group_id", None, None]
    assert {len(row) for row in rows} == {len(first)}
    assert len({row[fields.index("group_id")] for row in rows}) == 1  # two variants of one


def test_an_import_is_followed_and_cancelled(tab: Page, pages_url: str) -> None:
    lines = b"".join(b'{"sku": "CN-%d", "title": "x"}\n' % number for number in range(200_000))
    tab.goto(f"{pages_url}/import_products")
    send(tab, "many.jsonl", lines)
    with while_it_is_live(tab):
        expect(tab.get_by_text("导入中")).to_be_visible()
        tab.get_by_role("button", name="取消").click()
        expect(tab.get_by_text("已取消，已导入的保留")).to_be_visible()


def test_all_that_failed_are_indexed_again(tab: Page, pages_url: str, api: httpx.Client, api_folder: Path) -> None:
    product = create_product(api, "坏盘上的凳子", picture("navy"))
    wait_until_indexed(api)
    with broken_picture(api_folder, product):
        api.post(f"/product/{product['product_id']}/reindex").raise_for_status()
        wait_until_indexed(api)
    assert api.post("/product/retry-failed", params={"reason_contains": "no such"}).json() == {
        "queued": 0,
        "more": False,
    }
    tab.goto(f"{pages_url}/manage_products")
    expect(row(tab, product["title"])).to_contain_text("索引失败")
    tab.get_by_role("button", name="重新索引所有失败的商品").click()
    expect(tab.get_by_text("1 件失败的商品已重新排队。")).to_be_visible()
    wait_until_indexed(api)
    assert api.get(f"/product/{product['product_id']}").json()["index_status"] == "indexed"

"""The pages in a real browser: Chromium, a real Streamlit process, a real API with tiny random models.

Random models know nothing, so what is asserted is what holds for any model: a product's own picture or title finds it
first, with a score of 1.
"""

import ast
import json
import re
import string
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, expect, sync_playwright

from data_models import SearchMode
from tests.conftest import broken_picture, create_product, picture, wait_until_indexed
from tests.processes import (
    ROOT,
    answers,
    environment,
    free_port,
    listening_addresses,
    require_program,
    running,
    running_api,
    wait_until,
)
from web.frame import PAGES
from web.texts import TEXTS

CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 45_000
RUNNING_PAGE = "[data-testid=stApp]:not([data-test-script-state=notRunning])"
DESKTOP, PHONE = (1280, 900), (400, 800)
SAME_SCORE = re.compile(r"相似度 (1\.000|0\.99\d)")
PRODUCTS: tuple[tuple[str, str, str, str, dict[str, object]], ...] = (
    ("红色布艺沙发", "red", "沙发", "1999.00", {"可拆洗": False, "标签": ["新品", "热卖"]}),
    ("黑色木椅子", "black", "椅凳", "299.00", {"可拆洗": True, "标签": ["新品"]}),
    ("白色玻璃餐桌", "white", "桌几", "899.00", {"可拆洗": False}),
    ("蓝色现代台灯", "blue", "灯具", "159.00", {}),
    ("绿色皮质沙发", "green", "沙发", "2599.00", {"标签": ["热卖"]}),
)
GROUP = "SOFA-1"  # of the sofas


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """One fresh profile for all, so that Streamlit's scripts load once; a session is a tab's, not the profile's."""
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=require_program("chromium", "chromium-browser", "google-chrome"), args=CHROMIUM_FLAGS
        )
        context = chromium.new_context()
        context.set_default_timeout(TIMEOUT_MS)
        yield context
        context.close()
        chromium.close()


@contextmanager
def running_pages(folder: Path, api_url: str, **settings: object) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "streamlit", "run", "web_demo.py"]
    command += [f"--server.port={port}", "--server.fileWatcherType=none"]
    env = environment(API_URL=api_url, **settings)
    with running(command, folder / "web.log", env=env, ready=lambda: answers(f"{url}/_stcore/health")):
        yield url


@pytest.fixture(scope="module")
def catalogue(api: httpx.Client) -> httpx.Client:
    for title, color, category, price, attributes in PRODUCTS:
        fields = {"category": category, "price": price, "attributes": json.dumps(attributes)}
        fields |= {"group_id": GROUP} if category == "沙发" else {}
        create_product(api, title, picture(color), sku=f"SKU-{color}", **fields)
    wait_until_indexed(api)
    return api


@pytest.fixture(scope="module")
def pages_url(catalogue: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_pages(tmp_path_factory.mktemp("web"), str(catalogue.base_url).rstrip("/")) as url:
        yield url


@contextmanager
def open_tab(browser: BrowserContext, size: tuple[int, int], screenshot: Path) -> Iterator[Page]:
    """Its last state is kept as a picture to look at.

    Whatever is done or looked at waits until Streamlit has run the page for what was done before: a run draws the page
    anew, and on a busy machine a click would go to what is about to be replaced.
    """
    tab = browser.new_page()
    tab.set_viewport_size({"width": size[0], "height": size[1]})
    tab.add_locator_handler(tab.locator(RUNNING_PAGE), lambda: None)
    try:
        yield tab
        expect(tab.get_by_test_id("stException")).to_have_count(0)
    finally:
        tab.screenshot(path=screenshot, full_page=True)
        tab.close()


@contextmanager
def while_it_is_live(tab: Page) -> Iterator[None]:
    """A part of the page runs by itself now, again and again: there is no end of a run to wait for."""
    running = tab.locator(RUNNING_PAGE)
    tab.remove_locator_handler(running)
    yield
    tab.add_locator_handler(running, lambda: None)


@pytest.fixture
def tab(browser: BrowserContext, tmp_path: Path) -> Iterator[Page]:
    with open_tab(browser, DESKTOP, tmp_path / "page.png") as page:
        yield page


def png(color: str) -> FilePayload:
    return {"name": f"{color}.png", "mimeType": "image/png", "buffer": picture(color)}


def upload(page: Page | Locator, *files: FilePayload, field: int = 0) -> None:
    page.locator("input[type=file]").nth(field).set_input_files(files)


def hit(page: Page, rank: int) -> Locator:
    return page.locator(f".st-key-hit_{rank}")


def row(page: Page, title: str) -> Locator:
    return page.locator("[class*=st-key-product_]").filter(has_text=title)


def search_text(page: Page, label: str, text: str) -> None:
    box = page.get_by_label(label, exact=True)
    box.fill(text)
    box.press("Enter")


def tick(page: Page, value: str, count: int) -> None:
    page.get_by_test_id("stCheckbox").filter(has_text=re.compile(rf"^{re.escape(value)} \({count}\)$")).click()


def chips(page: Page) -> Locator:
    return page.locator("[class*=_chips]")


def open_options(page: Page) -> None:
    page.get_by_text("数量与显示方式").click()
    # A list that opens while the box around it still grows is closed again at once.
    page.wait_for_function("document.getAnimations().every(each => each.playState !== 'running')")


def expect_pictures_loaded(page: Page, scope: str) -> None:
    """Every picture has really come, decoded, and is a square."""
    page.wait_for_function(
        """scope => { const all = [...document.querySelectorAll(scope + ' img')];
        return all.length > 0 && all.every(i => i.naturalWidth > 0 && i.naturalWidth === i.naturalHeight) }""",
        arg=scope,
    )


# --- Search ----------------------------------------------------------------------------------------------------------


def test_the_pages_listen_on_this_machine_alone(pages_url: str) -> None:
    assert listening_addresses(int(pages_url.rpartition(":")[2])) == {"127.0.0.1"}


def test_home_says_what_is_there_and_that_all_parts_are_up(tab: Page, pages_url: str, catalogue: httpx.Client) -> None:
    tab.goto(f"{pages_url}/")
    expect(tab.get_by_role("heading", name="图文：多模态商品搜索")).to_be_visible()
    total = catalogue.get("/product/list").json()["total"]
    expect(tab.get_by_test_id("stMetric").filter(has_text=re.compile("^商品"))).to_contain_text(str(total))
    expect(tab.get_by_text("全部正常")).to_be_visible()
    for part in ("数据库", "向量库", "消息队列", "模型", "图片存储"):
        expect(tab.get_by_test_id("stMain").get_by_text(part, exact=True).first).to_be_visible()
    tab.get_by_test_id("stMain").get_by_role("link", name="以文搜图").click()
    expect(tab.get_by_role("heading", name="以文搜图")).to_be_visible()


def test_a1_an_uploaded_picture_finds_its_own_product_first(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/image_to_image")
    upload(tab, png("blue"))
    expect(hit(tab, 1)).to_contain_text("蓝色现代台灯")
    expect(hit(tab, 1)).to_contain_text(SAME_SCORE)
    expect(hit(tab, 1)).to_contain_text("灯具 · 159.00")
    expect(hit(tab, 5)).to_be_visible()
    expect_pictures_loaded(tab, ".st-key-hit_grid")


def test_a1_similar_products_of_a_hit_leave_the_product_itself_out(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/text_to_image")
    search_text(tab, "想找什么", "红色布艺沙发")
    first = hit(tab, 1)
    title = first.locator(".tuwen-title").inner_text()
    first.get_by_role("link", name="找相似").click()
    expect(tab).to_have_url(re.compile(r"/image_to_image\?product_id=\d+$"))
    expect(tab.locator(".st-key-query_picture")).to_contain_text(title)
    expect(hit(tab, 4)).to_be_visible()
    expect(tab.locator("[class*=st-key-hit_]").filter(has_text=title)).to_have_count(0)
    other = hit(tab, 2).locator(".tuwen-title").inner_text()
    first_address = tab.url
    hit(tab, 2).get_by_role("link", name="找相似").click()
    expect(tab.locator(".st-key-query_picture")).to_contain_text(other)
    expect(tab).not_to_have_url(first_address)
    tab.get_by_test_id("stSidebar").get_by_text("English", exact=True).click()
    expect(tab.locator(".st-key-query_picture")).to_contain_text(f"Compared with this product: {other}")


def test_a1_words_beside_the_picture_say_what_else_is_wanted(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/image_to_image")
    upload(tab, png("blue"))
    expect(hit(tab, 1)).to_contain_text("蓝色现代台灯")
    search_text(tab, "还要（可不填）", "绿色皮质")
    expect(hit(tab, 1)).to_contain_text("绿色皮质沙发")
    search_text(tab, "还要（可不填）", "")
    expect(hit(tab, 1)).to_contain_text("蓝色现代台灯")


def test_what_a_query_was_read_as_stands_above_the_hits(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/hybrid")
    search_text(tab, "想找什么", "红色沙发 不要布艺")
    expect(tab.get_by_text("优先：红色 · 排在后面：布艺")).to_be_visible()
    search_text(tab, "想找什么", "台灯")
    expect(hit(tab, 1)).to_contain_text("台灯")
    expect(tab.get_by_text("优先")).to_have_count(0)


def test_why_a_hit_is_one_is_told_on_request(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/hybrid")
    search_text(tab, "想找什么", "黑色木椅子")
    expect(hit(tab, 1)).to_contain_text("黑色木椅子")
    hit(tab, 1).get_by_role("button", name="为什么").click()
    reasons = tab.get_by_role("dialog")
    expect(reasons).to_contain_text("为什么找到：黑色木椅子")
    for way in ("标题含义", "图片", "词语"):
        expect(reasons.get_by_role("row").filter(has_text=way)).to_be_visible()
    expect(reasons.get_by_text("把相似度调整为")).to_be_visible()  # 黑色, 木
    expect(reasons.get_by_text("红色处遮住后")).to_be_visible()
    expect(reasons.locator("img")).to_have_count(1)
    tab.wait_for_function("document.querySelector('[role=dialog] img').naturalWidth > 0")


def test_a2_a_title_finds_its_own_product_first_and_options_narrow_the_rest(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/text_to_text")
    search_text(tab, "想找什么", "绿色皮质沙发")
    expect(hit(tab, 1)).to_contain_text("绿色皮质沙发")
    expect(hit(tab, 1)).to_contain_text(SAME_SCORE)
    expect(tab.get_by_text(re.compile(r"显示 5 个结果，用时 \d+ 毫秒"))).to_be_visible()
    expect(tab.get_by_text("按符合条件的全部 5 件统计")).to_be_visible()
    tick(tab, "沙发", 2)
    expect(tab.get_by_text("显示 2 个结果")).to_be_visible()
    expect(tab.get_by_text("按符合条件的全部 2 件统计")).to_be_visible()
    tick(tab, "灯具", 1)  # which is still counted: within a facet any of what is chosen fits
    expect(tab.get_by_text("显示 3 个结果")).to_be_visible()
    search_text(tab, "最高价", "2000")
    expect(tab.get_by_text("显示 2 个结果")).to_be_visible()
    expect(hit(tab, 3)).to_have_count(0)
    chips(tab).get_by_role("button", name="分类: 灯具").click()
    expect(tab.get_by_text("显示 1 个结果")).to_be_visible()
    expect(hit(tab, 1)).to_contain_text("红色布艺沙发")
    search_text(tab, "最低价", "3000")
    expect(tab.get_by_text("price_min 大于 price_max")).to_be_visible()
    chips(tab).get_by_role("button", name="全部清除").click()
    expect(tab.get_by_text("显示 5 个结果")).to_be_visible()
    expect(tab.get_by_label("最低价", exact=True)).to_have_value("")


def test_facets_of_attributes_narrow_and_stay_from_page_to_page(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/text_to_image")
    search_text(tab, "想找什么", "红色布艺沙发")
    tick(tab, "新品", 2)  # a member of a list
    tick(tab, "是", 1)  # true
    expect(tab.get_by_text("显示 1 个结果")).to_be_visible()
    expect(hit(tab, 1)).to_contain_text("黑色木椅子")
    for label in ("标签: 新品", "可拆洗: 是", "全部清除"):
        expect(chips(tab).get_by_role("button", name=label)).to_be_visible()
    expect(chips(tab).get_by_role("button")).to_have_count(3)
    tab.get_by_test_id("stSidebar").get_by_role("link", name="以文搜文").click()
    expect(tab.get_by_role("heading", name="以文搜文")).to_be_visible()  # the page before has a box of the same name
    search_text(tab, "想找什么", "沙发")
    expect(tab.get_by_text("显示 1 个结果")).to_be_visible()
    tick(tab, "否", 1)
    expect(tab.get_by_text("显示 2 个结果")).to_be_visible()
    chips(tab).get_by_role("button", name="标签: 新品").click()
    expect(tab.get_by_text("显示 3 个结果")).to_be_visible()


def test_one_of_each_group_opens_its_variants_and_prices_order_the_hits(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/text_to_text")
    search_text(tab, "想找什么", "绿色皮质沙发")
    expect(hit(tab, 5)).to_be_visible()
    tab.get_by_text("每组只显示一件").click()
    expect(tab.get_by_text("显示 4 个结果")).to_be_visible()
    expect(hit(tab, 5)).to_have_count(0)
    hit(tab, 1).get_by_role("button", name="2 个款式").click()
    variants = tab.get_by_role("dialog")
    expect(variants).to_contain_text("SOFA-1 的各个款式")
    expect(variants.locator(".tuwen-title:not(.tuwen-facts)")).to_have_text(["红色布艺沙发", "绿色皮质沙发"])
    expect_pictures_loaded(tab, "[role=dialog]")
    variants.get_by_role("button", name="Close").click()
    tab.get_by_role("combobox", name="排序").click()
    tab.get_by_role("option", name="价格从低到高").click()
    expect(hit(tab, 1)).to_contain_text("159.00")
    expect(hit(tab, 4)).to_contain_text("1,999.00")
    expect(hit(tab, 4)).to_contain_text("2 个款式")


def test_a3_a_picture_finds_titles_with_their_thumbnails(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/image_to_text")
    upload(tab, png("red"))
    expect(hit(tab, 5)).to_be_visible()
    expect(hit(tab, 1)).to_contain_text("相似度")
    expect_pictures_loaded(tab, ".st-key-hit_1")


def test_a4_an_example_query_finds_pictures_and_more_of_them(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/text_to_image")
    open_options(tab)
    slider = tab.get_by_role("slider", name="每次显示几个")
    expect(slider).to_have_value("20")
    slider.press("Home")
    expect(slider).to_have_value("1")
    tab.get_by_role("radio", name="a white bookcase").click()
    expect(tab.get_by_label("想找什么", exact=True)).to_have_value("a white bookcase")
    expect(hit(tab, 1)).to_be_visible()
    expect(hit(tab, 2)).to_have_count(0)
    for rank in (2, 3):
        tab.get_by_role("button", name="更多结果").click()
        expect(hit(tab, rank)).to_be_visible()
    shown = tab.locator(".st-key-hit_grid .tuwen-title")
    expect(shown).to_have_count(3)  # a card comes before its title
    titles = shown.all_inner_texts()
    assert len(set(titles)) == 3
    expect_pictures_loaded(tab, ".st-key-hit_grid")


def test_nothing_fits_is_said_and_the_nearest_are_shown_on_request(
    tab: Page, pages_url: str, catalogue: httpx.Client
) -> None:
    measured = {"queries": 20, "hits": 100, "threshold": 0.5, "auroc": 0.9, "log_loss": 0.3, "calibration_error": 0.02}
    by_words = {"weights": {"intercept": -4.0, "words": 8.0}, "fitted_on": measured}
    collection = catalogue.get("/calibration").json()["collection"]
    catalogue.put("/calibration/hybrid", json={"collection": collection, **by_words}).raise_for_status()

    def is_used() -> bool:
        asked = {"mode": "hybrid", "text": "红色布艺沙发", "relevance": True}
        return catalogue.post("/search", json=asked).json()["hits"][0]["relevance"] is not None

    wait_until(is_used, timeout_s=30, what="the calibration to be used")
    tab.goto(f"{pages_url}/hybrid")
    search_text(tab, "想找什么", "量子力学教科书第三版")
    expect(tab.get_by_text("没有合适的商品。")).to_be_visible()
    expect(hit(tab, 1)).to_have_count(0)
    tab.get_by_role("button", name="仍然显示最接近的 5 件").click()
    expect(hit(tab, 5)).to_be_visible()
    expect(tab.get_by_text("没有合适的商品。")).to_be_visible()
    search_text(tab, "想找什么", "红色布艺沙发")
    expect(hit(tab, 1)).to_contain_text("红色布艺沙发")
    expect(tab.get_by_text("没有合适的商品。")).to_have_count(0)


def test_the_apis_refusal_stands_in_its_own_words(tab: Page, pages_url: str, catalogue: httpx.Client) -> None:
    not_a_picture = b"a text file, whatever its name says"
    files = {"image": ("picture", not_a_picture)}
    mode, in_chinese = {"mode": "image_to_image"}, {"Accept-Language": "zh"}
    refusal = catalogue.post("/search", data=mode, files=files, headers=in_chinese).json()["detail"]
    tab.goto(f"{pages_url}/image_to_image")
    upload(tab, {"name": "text.png", "mimeType": "image/png", "buffer": not_a_picture})
    expect(tab.get_by_role("alert")).to_contain_text(refusal)
    upload(tab, png("black"))
    expect(hit(tab, 1)).to_contain_text("黑色木椅子")
    expect(tab.get_by_role("alert")).to_have_count(0)


# --- Generation ------------------------------------------------------------------------------------------------------


def test_a5_a_prompt_becomes_a_picture_with_similar_products_and_then_a_product(
    tab: Page, pages_url: str, catalogue: httpx.Client
) -> None:
    tab.goto(f"{pages_url}/generate")
    tab.get_by_label("提示词", exact=True).fill("红色的沙发")
    tab.get_by_text("张数、尺寸与步数").click()
    tab.get_by_label("种子", exact=True).fill("7")
    tab.get_by_label("去噪步数", exact=True).fill("100")
    tab.get_by_role("button", name="开始绘制").click()
    with while_it_is_live(tab):
        expect(tab.get_by_text("绘制中")).to_be_visible(timeout=90_000)  # its process starts first
        expect(tab.get_by_role("progressbar")).to_be_visible()
        expect(tab.get_by_text("AI 生成 · 种子 7")).to_be_visible(timeout=90_000)
    expect_pictures_loaded(tab, "[class*=st-key-generated_]")
    expect(tab.locator("[class*=st-key-hit_1similar]")).to_contain_text("相似度")

    tab.get_by_text("存为商品", exact=True).click()
    title = tab.get_by_label("标题（必填）")
    expect(title).to_have_value("红色的沙发")
    title.fill("红色的沙发 设计稿")
    tab.get_by_role("button", name="添加", exact=True).click()
    expect(tab.get_by_text("已建立索引，可以搜到了")).to_be_visible()
    [saved] = catalogue.get("/product/list", params={"q": "设计稿"}).json()["items"]
    assert saved["image_is_generated"] is True
    catalogue.delete(f"/product/{saved['product_id']}")


def test_a5_a_drawing_is_cancelled_and_bad_input_is_refused_in_the_apis_words(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/generate")
    tab.get_by_role("button", name="开始绘制").click()
    expect(tab.get_by_role("alert").filter(has_text="prompt")).to_be_visible()
    tab.get_by_label("提示词", exact=True).fill("一把椅子")
    tab.get_by_text("张数、尺寸与步数").click()
    tab.get_by_label("宽（像素）", exact=True).fill("512")
    tab.get_by_label("高（像素）", exact=True).fill("512")
    tab.get_by_label("去噪步数", exact=True).fill("100")
    tab.get_by_role("button", name="开始绘制").click()
    with while_it_is_live(tab):
        tab.get_by_role("button", name="取消").click()
        expect(tab.get_by_text("任务已取消。")).to_be_visible()


# --- Products --------------------------------------------------------------------------------------------------------


def test_products_are_listed_and_filtered(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/manage_products")
    for title, *_ in PRODUCTS:
        expect(row(tab, title)).to_contain_text("已索引")
    expect_pictures_loaded(tab, "[class*=st-key-product_]")
    expect(row(tab, "红色布艺沙发")).to_contain_text(f"沙发 · 1,999.00 · SKU-red · 组号 {GROUP}")
    search_text(tab, "标题、SKU 或组号", GROUP)
    expect(row(tab, "木椅子")).to_have_count(0)
    expect(tab.get_by_text("第 1 / 1 页，共 2 件")).to_be_visible()
    tick(tab, "热卖", 2)
    tick(tab, "新品", 1)
    expect(tab.get_by_text("第 1 / 1 页，共 2 件")).to_be_visible()
    tick(tab, "2,000 – 4,999.99", 1)
    expect(row(tab, "绿色皮质沙发")).to_be_visible()
    expect(row(tab, "红色布艺沙发")).to_have_count(0)
    chips(tab).get_by_role("button", name="全部清除").click()
    expect(row(tab, "红色布艺沙发")).to_be_visible()
    tab.get_by_role("combobox", name="索引状态").click()
    tab.get_by_role("option", name="索引失败").click()
    expect(tab.get_by_text("没有符合条件的商品。")).to_be_visible()


def fill_in_with_mistakes(dialog: Locator, title: str) -> None:
    dialog.get_by_label("标题（必填）").fill(title)
    dialog.get_by_label("SKU").fill("SKU-red")
    dialog.get_by_label("价格").fill("459.5")
    dialog.get_by_label("组号（SPU）", exact=True).fill(" ＢＣ-1")
    dialog.get_by_label("属性（每行一个）", exact=True).fill("材质： 木\n层数: 3\n没有冒号的一行")
    upload(dialog, png("orange"))
    expect(dialog.get_by_text("orange.png")).to_be_visible()
    dialog.get_by_role("button", name="添加", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("这一行不是“名称: 值”：没有冒号的一行")
    dialog.get_by_label("属性（每行一个）", exact=True).fill("材质： 木\n层数: 3")
    dialog.get_by_role("button", name="添加", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("另一件商品已经使用 sku 'SKU-red'")


def test_a_product_is_added_changed_and_deleted(tab: Page, pages_url: str, catalogue: httpx.Client) -> None:
    title = "橙色复古书柜 *新款* $9$"
    tab.goto(f"{pages_url}/manage_products")
    tab.get_by_role("button", name="添加商品").click()
    dialog = tab.get_by_role("dialog")
    fill_in_with_mistakes(dialog, title)
    dialog.get_by_label("SKU").fill("SKU-orange")
    dialog.get_by_role("button", name="添加", exact=True).click()
    expect(tab.get_by_text("已建立索引，可以搜到了")).to_be_visible()
    expect(dialog).to_have_count(0)
    expect(row(tab, title)).to_contain_text("已索引")

    row(tab, title).get_by_role("link", name="详情").click()
    expect(tab.get_by_label("标题（必填）")).to_have_value(title)
    expect(tab.get_by_label("属性（每行一个）", exact=True)).to_have_value("材质: 木\n层数: 3")
    expect(tab.get_by_label("组号（SPU）", exact=True)).to_have_value("BC-1")
    tab.get_by_label("价格").fill("")
    tab.get_by_label("分类").fill("柜架")
    upload(tab, png("purple"))
    expect(tab.get_by_text("purple.png")).to_be_visible()
    upload(tab, png("olive"), png("navy"), field=1)
    expect(tab.get_by_text("navy.png")).to_be_visible()
    tab.get_by_role("button", name="保存修改").click()
    expect(tab.get_by_text("已建立索引，可以搜到了")).to_be_visible()
    further = tab.locator(".st-key-further_pictures")
    expect(further.get_by_role("img")).to_have_count(2)
    expect_pictures_loaded(tab, ".st-key-further_pictures")
    further.locator("[class*='st-key-remove_'] button:visible").last.click()
    expect(further.get_by_role("img")).to_have_count(1)
    further.locator("[class*='st-key-main_'] button:visible").click()

    def as_stored() -> Any:
        return catalogue.get("/product/list", params={"q": "SKU-orange"}).json()["items"][0]

    # Changed with its fields, by two pictures, by one less, and by their order.
    wait_until(lambda: (as_stored()["version"], as_stored()["index_status"]) == (6, "indexed"), what="the new order")
    stored = as_stored()
    assert (stored["price"], stored["category"], stored["attributes"]) == (None, "柜架", {"材质": "木", "层数": 3})
    assert (stored["version"], stored["title"]) == (6, title)
    assert [image["position"] for image in stored["images"]] == [1, 2]
    hits = catalogue.post("/search", data={"mode": "image_to_image"}, files={"image": ("x", picture("purple"))}).json()
    assert hits["hits"][0]["product"]["product_id"] == stored["product_id"]

    tab.get_by_role("button", name="删除商品").click()
    expect(tab.get_by_role("dialog")).to_contain_text(title)
    tab.get_by_role("dialog").get_by_role("button", name="确认删除").click()
    expect(tab.get_by_text(f"商品 {stored['product_id']} 已删除。")).to_be_visible()
    expect(tab.get_by_role("heading", name="商品管理")).to_be_visible()
    expect(row(tab, title)).to_have_count(0)
    assert catalogue.get(f"/product/{stored['product_id']}").status_code == httpx.codes.NOT_FOUND


def test_a_product_that_failed_is_indexed_again_once_its_reason_is_mended(
    tab: Page, pages_url: str, catalogue: httpx.Client, api_folder: Path
) -> None:
    product = create_product(catalogue, "坏盘上的茶几", picture("olive"))
    wait_until_indexed(catalogue)
    with broken_picture(api_folder, product):
        catalogue.post(f"/product/{product['product_id']}/reindex").raise_for_status()
        wait_until_indexed(catalogue)
        tab.goto(f"{pages_url}/manage_products")
        failed = row(tab, product["title"])
        expect(failed).to_contain_text("索引失败")
        expect(failed).to_contain_text("图片已损坏或不完整")
        failed.get_by_role("button", name="重新索引").click()
        expect(tab.get_by_text("图片已损坏或不完整")).to_have_count(2)  # as a message, and in the row again
    failed.get_by_role("button", name="重新索引").click()
    expect(tab.get_by_text("已建立索引，可以搜到了")).to_be_visible()
    expect(failed).to_contain_text("已索引")
    expect(failed.get_by_role("button", name="重新索引")).to_have_count(0)
    catalogue.delete(f"/product/{product['product_id']}").raise_for_status()


def test_a_product_that_is_not_there_is_said_so(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/edit_product?product_id=999999")
    expect(tab.get_by_text("没有商品 999999。")).to_be_visible()
    tab.get_by_role("link", name="返回商品列表").click()
    expect(tab.get_by_role("heading", name="商品管理")).to_be_visible()


# --- Frame -----------------------------------------------------------------------------------------------------------


def test_english_stays_chosen_from_page_to_page(tab: Page, pages_url: str) -> None:
    tab.goto(f"{pages_url}/text_to_text")
    search_text(tab, "想找什么", "白色玻璃餐桌")
    expect(hit(tab, 1)).to_contain_text("白色玻璃餐桌")
    sidebar = tab.get_by_test_id("stSidebar")
    sidebar.get_by_text("English", exact=True).click()
    expect(tab.get_by_label("What to look for")).to_have_value("白色玻璃餐桌")
    expect(hit(tab, 1)).to_contain_text("score 1.000")
    sidebar.get_by_role("link", name="Products", exact=True).click()
    expect(tab.get_by_role("heading", name="Products")).to_be_visible()
    expect(row(tab, "白色玻璃餐桌")).to_contain_text("indexed")
    ours = tab.locator("label:not([class*=_facets] label)")  # in the facets stand the catalogue's words
    assert not re.search("[一-鿿]", "".join(ours.all_inner_texts()).replace("中文", ""))


def test_a_phone_shows_two_cards_a_row_and_nothing_sticks_out(
    browser: BrowserContext, pages_url: str, tmp_path: Path
) -> None:
    with open_tab(browser, PHONE, tmp_path / "phone.png") as phone:
        phone.goto(f"{pages_url}/text_to_image")
        search_text(phone, "想找什么", "红色布艺沙发")
        expect(hit(phone, 3)).to_be_visible()
        # At one moment: what stands above the cards may still be growing.
        boxes = phone.locator(".st-key-hit_1, .st-key-hit_2, .st-key-hit_3").evaluate_all(
            "cards => cards.map(card => card.getBoundingClientRect().toJSON())"
        )
        first, second, third = boxes
        assert first["y"] == second["y"] < third["y"]
        assert second["right"] <= PHONE[0]
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_without_an_api_every_page_says_how_to_start_it(browser: BrowserContext, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with (
        running_pages(tmp_path, address) as url,
        open_tab(browser, DESKTOP, tmp_path / "down.png") as page,
    ):
        page.goto(f"{url}/text_to_image")  # the first visit to this process, and straight to a page of it
        expect(page.get_by_role("heading", name="以文搜图")).to_be_visible()
        for name in ("home", *(entry.name for entry in PAGES)):
            title = TEXTS[f"page_{name}"].zh
            page.get_by_test_id("stSidebar").get_by_role("link", name=title).click()
            expect_how_to_start_the_api(page, title, address)
        page.goto(f"{url}/edit_product?product_id=1")  # which no navigation leads to
        expect_how_to_start_the_api(page, TEXTS["page_edit_product"].zh, address)


def expect_how_to_start_the_api(page: Page, title: str, address: str) -> None:
    expect(page).to_have_title(re.compile(title))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(f"连不上 API。它的地址由设置 API_URL 给出，现在是 {address}。")
    expect(alert).to_contain_text("fastapi run main.py")


def test_pages_ask_for_a_key_where_one_is_needed(
    browser: BrowserContext, tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    key_file = tmp_path / "key"
    key_file.touch()
    with (
        running_api(tmp_path / "api", **tiny_models) as api_url,
        httpx.Client(base_url=api_url, timeout=30, trust_env=False) as client,
        running_pages(tmp_path, api_url, API_KEY_FILE=key_file) as url,
        open_tab(browser, DESKTOP, tmp_path / "page.png") as page,
    ):
        create_product(client, "红色布艺沙发", picture("red"), category="沙发")
        wait_until_indexed(client)
        made = client.post("/keys", json={"name": "visitor", "scopes": ["search"]}).json()
        page.goto(f"{url}/text_to_text")
        search_text(page, "想找什么", "红色布艺沙发")
        expect(page.get_by_role("alert").first).to_contain_text("这里需要 API 密钥")
        field = page.get_by_test_id("stSidebar").get_by_label("API 密钥")
        field.fill("密钥")
        field.press("Enter")
        expect(page.get_by_role("alert").first).to_contain_text("这不是 API 密钥")
        field.fill("tuwen_wrong")
        field.press("Enter")
        expect(page.get_by_role("alert").first).to_contain_text("没有这个 API 密钥")
        field.fill(made["key"])
        field.press("Enter")
        page.get_by_test_id("stSidebar").get_by_role("link", name=TEXTS["page_manage_products"].zh).click()
        expect(page.get_by_text("红色布艺沙发").first).to_be_visible()
        assert all(shown.startswith("data:") or "/media/" in shown for shown in sources_of_pictures(page))
        page.get_by_test_id("stSidebar").get_by_role("link", name=TEXTS["page_home"].zh).click()
        expect(page.get_by_text("红色布艺沙发")).to_have_count(0)
        expect(page.get_by_test_id("stMetricValue").first).to_have_text("1")
        key_file.write_text(made["key"] + "\n", encoding="utf-8")  # from here on the pages have one
        page.goto(url)
        expect(page.get_by_test_id("stMetricValue").first).to_have_text("1")
        expect(page.get_by_label("API 密钥")).to_have_count(0)


def sources_of_pictures(page: Page) -> list[str]:
    """They come from the pages' own server, which has fetched them with the key."""
    pictures = page.get_by_test_id("stImage").locator("img")
    expect(pictures.first).to_be_visible()
    sources: list[str] = pictures.evaluate_all("pictures => pictures.map(picture => picture.src)")
    assert sources
    return sources


# --- Words -----------------------------------------------------------------------------------------------------------


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_stands_in_both_languages(key: str) -> None:
    text = TEXTS[key]
    assert text.zh.strip()
    assert text.en.strip()
    assert not re.search("[一-鿿]", text.en)
    assert placeholders(text.zh) == placeholders(text.en)


def test_every_page_and_every_mode_has_its_words() -> None:
    """Their keys are put together at run time, so that a missing one would be met in the browser alone."""
    keys = {f"{kind}_{page.name}" for page in PAGES for kind in ("page", "home")}
    keys |= {page.group for page in PAGES} | {f"ask_{mode}" for mode in SearchMode}
    assert keys - set(TEXTS) == set()
    assert {path.stem for path in ROOT.glob("pages/*.py")} == {page.name for page in PAGES} | {"home", "edit_product"}


def used_keys() -> set[str]:
    """Of every call of t(); a key with a part put in at run time becomes a pattern."""
    keys = set()
    for source in [*ROOT.glob("web/*.py"), *ROOT.glob("pages/*.py")]:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "t":
                key = node.args[0]
                if isinstance(key, ast.Constant):
                    keys.add(re.escape(str(key.value)))
                elif isinstance(key, ast.JoinedStr):
                    parts = (re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"\w+" for p in key.values)
                    keys.add("".join(parts))
    return keys


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    patterns = used_keys()
    unused = [key for key in TEXTS if not any(re.fullmatch(pattern, key) for pattern in patterns)]
    missing = [pattern for pattern in patterns if not any(re.fullmatch(pattern, key) for key in TEXTS)]
    assert (unused, missing) == ([], [])


def test_the_documentation_loads_nothing_from_elsewhere(catalogue: httpx.Client, tab: Page) -> None:
    base = str(catalogue.base_url).rstrip("/")
    asked, complaints = list[str](), list[str]()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.goto(f"{base}/docs")
    expect(tab.get_by_text("Can it search?")).to_be_visible()
    assert {f"{base}/docs/swagger-ui-bundle.js", f"{base}/openapi.json"} <= set(asked)
    assert [url for url in asked if not url.startswith((f"{base}/", "data:"))] == []
    assert complaints == []  # of the content security policy, too

"""The built-in generator through the real service: what A5's promises come to on the demo catalogue."""

import base64
import io
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.processes import processor_seconds, wait_until
from tests.promises import require_in_time

DRAWING = "tuwen.generation.worker"
DRAWN_WITHIN_S = 30.0  # of the processor
PATIENCE_S = 300.0  # on a machine that has much other work
SLOWED_AT_MOST = 2.0
SEARCHES, TURNS = 100, 3
SEEDS_DIFFER_BY = 5.0  # of 255, in the mean of all pixels, most of them the white ground
OWN_CATEGORY_SHARE, OWN_TITLE_SHARE = 0.6, 0.8
# Spread over those products (about 525 of 820) whose real picture does what is asked of the drawn one: by exact search
# 49 of these 50 do. The ten nearest of the others are mostly of other categories, which have near-twins of them.
TITLES = (
    "橙色黑纹标准篮球",
    "黑色皮质商务公文包 金色锁扣",
    "绿叶球形小树盆栽 灰色圆筒花盆",
    "黑色头戴式耳机 棕色内垫",
    "绿叶尖叶小盆栽 红陶花盆",
    "黑色户外吊灯 方形灯笼链条款",
    "白色落地柱式暖气片 宽140cm",
    "银色壁装淋浴花洒 圆形墙面开关",
    "浅木色圆面实木高脚吧凳",
    "藏青色毛巾 银色壁挂横杆毛巾架",
    "黑色皮质躺椅 胡桃木壳可旋转",
    "灰色横条靠背餐椅 无扶手细脚",
    "玻璃法压壶 黑色手柄咖啡壶",
    "深蓝色五门两厢轿车",
    "白色双门双抽屉中岛橱柜 浅木色台面",
    "富贵竹盆栽 黑色圆盆室内绿植",
    "复古米黄色手提收音机 圆形喇叭",
    "蓝色硬壳手提箱 银边行李箱",
    "白色英式单位墙壁插座 三孔",
    "白色圆座吧台椅 弧形靠背灰色立柱",
    "天蓝色复古轿车 椭圆进气口无镀铬保险杠",
    "红色消防栓 户外地上式",
    "黑色铁艺栏杆 竖条阳台护栏",
    "黑色复古门廊壁灯 玻璃灯笼弯臂",
    "黄色双门圆顶甲壳虫轿车",
    "长发女士人物模特 深灰色短袖连衣裙 站姿",
    "男士人物模特 黑色外套卡其裤 仰卧姿",
    "男士人物模特 条纹毛衣牛仔裤 盘腿坐姿",
    "红棕色实木方形高脚吧台桌 交叉横档",
    "黑色木质长方形餐桌 方腿桌子",
    "黑色木框餐椅 米黄色坐垫 镂空靠背",
    "白色滚筒洗衣机 黑色圆形门圈",
    "蓝色布艺折叠双人沙发床 几何线条纹 收起款",
    "白色圆润厚边方芯墙壁旋钮调光开关",
    "白色圆润厚边墙壁双开开关 方形灰色双按键",
    "白色右转箭头路面标线",
    "黑色半玻璃工业风单开门 双竖格玻璃",
    "白色椭圆独立式浴缸 银色落地龙头",
    "黑色长柄圆汤勺 厨房盛汤勺",
    "绿色条纹宽叶盆栽 红陶花盆绿植",
    "棕色木质办公文件柜 中间玻璃门书柜",
    "白色圆润厚边方芯美式两扁孔墙壁插座 A型",
    "白色兔子 竖耳坐姿宠物兔",
    "白色圆角面板圆芯电视天线插座",
    "日式无腿和室椅 红棕木靠背灰绿坐垫",
    "白色陶瓷壁挂式小便池 挂墙小便器",
    "直角方形白框灰芯欧式两圆孔插座 C型",
    "烤牛排 焦香网格纹牛扒",
    "木框玻璃面长方形茶几 黑色铁艺桌腿",
    "黑色电视遥控器 彩色按键长条形",
)


def submit(shop: httpx.Client, **body: Any) -> dict[str, Any]:
    job: dict[str, Any] = shop.post("/generate", json=body).raise_for_status().json()
    return job


def result(shop: httpx.Client, job: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    def has_ended() -> bool:
        return shop.get(job["status_url"]).json()["status"] not in ("queued", "running")

    wait_until(has_ended, timeout_s=timeout_s, what=f"job {job['job_id']} to end")
    ended: dict[str, Any] = shop.get(job["status_url"]).json()
    assert ended["status"] == "done", ended["error"]
    return ended


def test_a_red_sofa_is_drawn_in_time(shop: httpx.Client) -> None:
    started, before_s = time.monotonic(), processor_seconds(DRAWING)
    [image] = result(shop, submit(shop, prompt="红色的沙发", seed=0), timeout_s=PATIENCE_S)["images"]
    waited_s, took_s = time.monotonic() - started, processor_seconds(DRAWING) - before_s
    print(f"drawn in {waited_s:.1f} s, by {took_s:.1f} s of the processor, the model's loading among them")
    assert 0 < took_s < DRAWN_WITHIN_S
    assert "沙发" in Counter(hit["product"]["category"] for hit in image["similar"])


def test_three_seeds_differ_to_the_eye(shop: httpx.Client) -> None:
    images = result(shop, submit(shop, prompt="红色的沙发", seed=0, num_images=3), timeout_s=PATIENCE_S)["images"]
    pixels = [np.asarray(Image.open(io.BytesIO(shop.get(image["image_url"]).content)), np.float32) for image in images]
    differences = [float(np.abs(one - other).mean()) for one, other in itertools.combinations(pixels, 2)]
    print(f"three seeds differ by {differences}")
    assert min(differences) >= SEEDS_DIFFER_BY


@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="it draws fifty pictures: make test-long")
def test_pictures_of_titles_are_of_their_category_and_agree_with_their_title(shop: httpx.Client) -> None:
    jobs = [submit(shop, prompt=title, seed=number) for number, title in enumerate(TITLES)]
    products = [product_of(shop, title) for title in TITLES]
    rng = np.random.default_rng(0)
    own_category = own_title = 0
    for number, (product, job) in enumerate(zip(products, jobs, strict=True)):
        [image] = result(shop, job, timeout_s=300)["images"]
        picture = shop.get(image["image_url"]).raise_for_status().content
        nearest = find(shop, picture, mode="image_to_image", top_k=10)
        counts = Counter(hit["product"]["category"] for hit in nearest)
        own_category += counts.pop(product["category"], 0) > max(counts.values(), default=0)
        other = products[(number + int(rng.integers(1, len(products)))) % len(products)]
        own_title += image["agreement"] > agreement(shop, picture, other)
    print(f"own category {own_category} of {len(TITLES)}, own title {own_title} of {len(TITLES)}")
    assert own_category >= OWN_CATEGORY_SHARE * len(TITLES)
    assert own_title >= OWN_TITLE_SHARE * len(TITLES)


def product_of(shop: httpx.Client, title: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = shop.get("/product/list", params={"q": title}).json()["items"]
    [product] = (product for product in found if product["title"] == title)
    return product


def agreement(shop: httpx.Client, picture: bytes, product: dict[str, Any]) -> float:
    """CLIP's cosine of a picture and a product's title: its score in A3."""
    filters = {"attributes": {"title_en": product["attributes"]["title_en"]}}
    [hit] = find(shop, picture, mode="image_to_text", top_k=1, filters=filters)
    assert hit["product"]["product_id"] == product["product_id"]
    score: float = hit["score"]
    return score


def find(shop: httpx.Client, picture: bytes, **body: Any) -> list[dict[str, Any]]:
    body["image_base64"] = base64.b64encode(picture).decode()
    hits: list[dict[str, Any]] = shop.post("/search", json=body).raise_for_status().json()["hits"]
    return hits


def test_searches_keep_their_share_of_the_processor(shop: httpx.Client) -> None:
    """Text searches that no cache answers, while a queue of pictures is drawn, against the same before.

    In turns, since a machine's other work comes and goes.
    """
    idle, busy = [], []
    for turn in range(TURNS):
        idle.append(search_p95_ms(shop, f"空闲{turn}"))
        with drawing(shop):
            busy.append(search_p95_ms(shop, f"忙碌{turn}"))
    print(f"search p95 in ms: {np.round(idle)} idle, {np.round(busy)} while drawing")
    require_in_time(float(np.median(busy)) / 1000, SLOWED_AT_MOST * float(np.median(idle)) / 1000, "a search")


@contextmanager
def drawing(shop: httpx.Client) -> Iterator[None]:
    """A queue of pictures is drawn from the beginning of the block to its end."""
    jobs = [submit(shop, prompt="红色的沙发", seed=seed, num_images=4, steps=100) for seed in range(5)]

    def status(job: dict[str, Any]) -> str:
        return str(shop.get(job["status_url"]).json()["status"])

    wait_until(lambda: shop.get(jobs[0]["status_url"]).json()["progress"] > 0, timeout_s=PATIENCE_S, what="a step")
    yield
    assert status(jobs[-1]) in ("queued", "running"), "drawing ended too early"
    for job in reversed(jobs):
        shop.delete(job["status_url"])
    wait_until(lambda: all(status(job) != "running" for job in jobs), timeout_s=PATIENCE_S, what="drawing to stop")


def search_p95_ms(shop: httpx.Client, word: str) -> float:
    took = []
    for number in range(SEARCHES):
        body = {"mode": "text_to_image", "text": f"{word}的家具 {number}"}
        started = time.perf_counter()
        shop.post("/search", json=body).raise_for_status()
        took.append(time.perf_counter() - started)
    return float(np.percentile(took, 95)) * 1000

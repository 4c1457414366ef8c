"""The main job, whole, on both ways to run it: embedded, and as the compose file's services on real servers."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from pymilvus import MilvusClient

from tests.conftest import create_product, picture, wait_until_indexed
from tests.end_to_end.compose_services import Engines, running_compose_services
from tests.processes import running_api, wait_until

COLORS = {
    "红色布艺沙发": "red",
    "蓝色木椅": "blue",
    "绿色玻璃餐桌": "green",
    "黑色铁艺书柜": "black",
    "白色现代床": "white",
}


@pytest.fixture(scope="module", params=["embedded", "servers"])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as running_stack:
        if request.param == "embedded":
            url = running_stack.enter_context(running_api(folder, **tiny_models))
            yield running_stack.enter_context(httpx.Client(base_url=url, timeout=30, trust_env=False))
        else:
            engines = Engines(*(request.getfixturevalue(name) for name in ("mariadb", "kafka", "milvus")))
            yield running_stack.enter_context(running_compose_services(folder, engines, tiny_models))


def _search(client: httpx.Client, **request: Any) -> list[dict[str, Any]]:
    response = client.post("/search", json=request)
    assert response.status_code == 200, response.text
    hits: list[dict[str, Any]] = response.json()["hits"]
    return hits


def test_products_go_in_and_every_mode_finds_them(stack: httpx.Client) -> None:
    created = {
        title: create_product(stack, title, picture(color), category="家具", price="99.50")
        for title, color in COLORS.items()
    }
    assert all(product["index_status"] == "pending" for product in created.values())
    wait_until_indexed(stack)

    for title, color in COLORS.items():
        product_id = created[title]["product_id"]
        (a2, *_) = _search(stack, mode="text_to_text", text=title)
        assert (a2["product"]["product_id"], round(a2["score"], 3)) == (product_id, 1.0)
        files = {"image": ("query.png", picture(color))}
        a1 = stack.post("/search", data={"mode": "image_to_image"}, files=files).json()["hits"]
        assert (a1[0]["product"]["product_id"], round(a1[0]["score"], 3)) == (product_id, 1.0)
    for mode, query in (
        ("text_to_image", {"text": "红色"}),
        ("image_to_text", {"product_id": created["蓝色木椅"]["product_id"]}),
    ):
        hits = _search(stack, mode=mode, **query)
        assert len(hits) == len(COLORS) - ("product_id" in query)
        assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
        assert hits == sorted(hits, key=lambda hit: -hit["score"])
        assert all(hit["product"]["index_status"] == "indexed" and hit["product"]["milvus_id"] for hit in hits)


@pytest.mark.parametrize("stack", ["servers"], indirect=True)
def test_a_requests_id_goes_through_the_queue_into_the_workers_log(
    stack: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> None:
    headers, files = {"X-Request-ID": "traced-through-kafka"}, {"image": ("a.png", picture("gold"))}
    made = stack.post("/product", data={"title": "黄色抱枕"}, files=files, headers=headers).json()
    wait_until_indexed(stack)
    logs = (tmp_path_factory.getbasetemp() / "servers0").glob("worker-*.log")
    assert "traced-through-kafka]: Indexed 1 products" in "".join(log.read_text(encoding="utf-8") for log in logs)
    stack.delete(f"/product/{made['product_id']}").raise_for_status()


def test_a_title_becomes_a_picture_and_the_picture_a_product(stack: httpx.Client) -> None:
    jobs = [
        stack.post("/generate", json={"prompt": "红色布艺沙发", "seed": seed, "steps": 5}).json() for seed in range(4)
    ]
    for job in jobs:
        wait_until(
            lambda job=job: stack.get(job["status_url"]).json()["status"] == "done",  # type: ignore[misc]
            timeout_s=60,
            what="the pictures to be drawn",
        )
    [image] = stack.get(jobs[0]["status_url"]).json()["images"]
    assert len({stack.get(job["status_url"]).json()["images"][0]["image_url"] for job in jobs}) == len(jobs)
    form = {"title": "生成的沙发", "generated_image_id": str(image["image_id"])}
    product = stack.post("/product", data=form).raise_for_status().json()
    wait_until_indexed(stack)
    nearest = stack.get(jobs[0]["status_url"]).json()["images"][0]["similar"][0]
    assert (nearest["product"]["product_id"], round(nearest["score"], 3)) == (product["product_id"], 1.0)
    stack.delete(f"/product/{product['product_id']}")


def test_an_update_is_seen_and_a_deleted_product_never_returned(stack: httpx.Client) -> None:
    product = create_product(stack, "棕色皮质单人沙发", picture("brown"))
    path = f"/product/{product['product_id']}"
    wait_until_indexed(stack)
    assert stack.patch(path, data={"title": "紫色复古灯"}).json()["version"] == 2
    wait_until(
        lambda: _search(stack, mode="text_to_text", text="紫色复古灯")[0]["product"]["title"] == "紫色复古灯",
        timeout_s=10,
        what="the new title to be found",
    )
    wait_until_indexed(stack)
    assert stack.delete(path).status_code == 204
    found = _search(stack, mode="text_to_text", text="紫色复古灯", top_k=100)
    assert product["product_id"] not in [hit["product"]["product_id"] for hit in found]
    assert stack.get(path).status_code == 404


def test_filters_and_pages_cut_the_same_ranking(stack: httpx.Client) -> None:
    for number in range(6):
        attributes = json.dumps({"颜色": "红", "号": number, 'quoted "key"': True})
        create_product(
            stack,
            f"餐桌{number}",
            picture(size=(40 + number, 40)),
            category="桌几",
            price=str(10 * number),
            attributes=attributes,
        )
    wait_until_indexed(stack)
    filters = {
        "category": ["桌几"],
        "price_min": 10,
        "price_max": 40,
        "attributes": {"颜色": "红", 'quoted "key"': True},
    }
    hits = _search(stack, mode="text_to_text", text="餐桌", filters=filters)
    assert {hit["product"]["title"] for hit in hits} == {f"餐桌{number}" for number in (1, 2, 3, 4)}
    pages = [
        _search(stack, mode="text_to_text", text="餐桌", filters=filters, top_k=2, offset=offset) for offset in (0, 2)
    ]
    assert pages[0] + pages[1] == hits
    assert [hit["rank"] for hit in pages[1]] == [3, 4]
    assert (
        _search(stack, mode="text_to_text", text="餐桌", filters={"attributes": {"号": 3}})[0]["product"]["title"]
        == "餐桌3"
    )


def test_health_says_that_every_part_is_up(stack: httpx.Client) -> None:
    health = stack.get("/health").json()
    assert health["status"] == "ok"
    assert {part["status"] for part in health["components"].values()} == {"ok"}
    assert health["demo_models"] is False


@pytest.mark.parametrize("stack", ["servers"], indirect=True)
def test_a_collection_that_is_dropped_comes_back_by_itself(stack: httpx.Client, milvus: str) -> None:
    """Neither API nor workers are started again; the next reconciliation of an interval is ten minutes away."""
    query = {"mode": "text_to_text", "text": "复古铁艺台灯"}
    product_id = create_product(stack, query["text"])["product_id"]
    wait_until_indexed(stack)
    collection = stack.post("/search", json=query).json()["index"]["collection"]
    administrator = MilvusClient(uri=milvus)
    administrator.drop_collection(collection)
    administrator.close()
    statuses = set()

    def is_found() -> bool:
        answer = stack.post("/search", json=query)
        statuses.add(answer.status_code)
        hits = answer.json()["hits"] if answer.is_success else []
        return bool(hits) and hits[0]["product"]["product_id"] == product_id

    wait_until(is_found, timeout_s=60, what="the product to be found again")
    assert statuses == {200, 503}
    wait_until_indexed(stack)
    listed = stack.get("/product/list", params={"page_size": 200}).json()["items"]
    assert [item["title"] for item in listed if item["index_status"] != "indexed"] == []
    for item in listed:
        (best, *_) = _search(stack, mode="text_to_text", text=item["title"])
        assert best["product"]["title"] == item["title"]
    assert create_product(stack, "绿色布艺餐椅")["index_status"] == "pending"
    wait_until_indexed(stack)
    assert _search(stack, mode="text_to_text", text="绿色布艺餐椅")[0]["product"]["title"] == "绿色布艺餐椅"

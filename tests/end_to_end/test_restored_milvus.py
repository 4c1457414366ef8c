"""Milvus of yesterday beside the database of today: ids come again, and nobody is shown a stranger."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.conftest import create_product, wait_until_indexed
from tests.processes import running_api, wait_until

KEPT, LOST, NEW = (
    [f"{kind}{number}" for number in range(4)] for kind in ("红色布艺沙发", "黑色铁艺书柜", "绿色玻璃餐桌")
)


@contextmanager
def shop(folder: Path, models: dict[str, str]) -> Iterator[httpx.Client]:
    """Each time a process of its own: Milvus Lite keeps what it has read for as long as its process lives."""
    with running_api(folder, **models) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


def add(client: httpx.Client, titles: list[str]) -> set[str]:
    """The Milvus ids that they got."""
    for title in titles:
        create_product(client, title)
    wait_until_indexed(client)
    items = client.get("/product/list", params={"page_size": 100}).json()["items"]
    return {item["milvus_id"] for item in items if item["title"] in titles}


def first(client: httpx.Client, title: str) -> tuple[str, float]:
    hits = client.post("/search", json={"mode": "text_to_text", "text": title}).json()["hits"]
    return (hits[0]["product"]["title"], round(hits[0]["score"], 3)) if hits else ("", 0.0)


def test_ids_that_milvus_gives_again_show_no_strangers_and_all_is_found_in_the_end(
    tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    milvus, backup = tmp_path / "data" / "milvus.db", tmp_path / "backup"
    unmended = tiny_models | {"RECONCILE_INTERVAL_S": "0"}
    with shop(tmp_path, tiny_models) as client:
        add(client, KEPT)
    shutil.copytree(milvus, backup)
    with shop(tmp_path, tiny_models) as client:
        ids = add(client, LOST)
    shutil.rmtree(milvus)
    shutil.copytree(backup, milvus)
    with shop(tmp_path, unmended) as client:  # the fence alone
        assert add(client, NEW) & ids, "no id came again, and this shows nothing"
        assert [first(client, title) for title in KEPT + NEW] == [(title, 1.0) for title in KEPT + NEW]
    with shop(tmp_path, tiny_models) as client:  # and reconciliation, at the start
        for title in LOST:
            wait_until(lambda title=title: first(client, title) == (title, 1.0), what=f"{title} to be found")  # type: ignore[misc]
        assert [first(client, title) for title in KEPT + NEW] == [(title, 1.0) for title in KEPT + NEW]

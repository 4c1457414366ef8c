"""The models are changed, and changed back, while people search and write. LONG_TESTS=1: with the demo catalogue.

The long form takes more than the 400 s after which a test counts as hanging: `-o faulthandler_timeout=3600`.
"""

import json
import os
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli import DEMO_CATALOGUE
from clients import catalogue_import
from tests.conftest import create_product, picture, wait_until_indexed
from tests.demo.test_demo_command import run_cli
from tests.processes import ROOT, running_api, running_api_process, wait_until

pytestmark = pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="they take minutes: make test-long")
SEARCHES_PER_S = 20
IDLE_S = 30.0
WRITE_EVERY_S = 3.0  # the fill must be faster than the writes, or it never comes to an end


@dataclass
class Load:
    """What came of the searches: when, with which status, after how many seconds, from which index."""

    answers: list[tuple[float, int, float, str]] = field(default_factory=list)
    titles: dict[int, str] = field(default_factory=dict)
    """What was written, and acknowledged."""

    def p95(self, since: float, until: float) -> float:
        return statistics.quantiles([s for at, _, s, _ in self.answers if since <= at < until], n=20)[18]


@contextmanager
def load(url: str, texts: list[str], until: threading.Event) -> Iterator[Load]:
    """20 searches a second, begun whatever the others do, and writes."""
    result = Load()
    client = httpx.Client(base_url=url, timeout=60, trust_env=False, limits=httpx.Limits(max_connections=200))

    def search(text: str) -> None:
        started = time.monotonic()
        answer = client.post("/search", json={"mode": "text_to_text", "text": text})
        index = answer.json()["index"]["collection"] if answer.is_success else ""
        result.answers.append((started, answer.status_code, time.monotonic() - started, index))

    def searches() -> None:
        threads, started, number = [], time.monotonic(), 0
        while not until.wait(max(0.0, started + number / SEARCHES_PER_S - time.monotonic())):
            threads.append(threading.Thread(target=search, args=[f"{texts[number % len(texts)]} {number}"]))
            threads[-1].start()
            number += 1
        for thread in threads:
            thread.join()

    def writes() -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            number = 0
            while not until.wait(WRITE_EVERY_S):
                number += 1
                title = f"红色布艺沙发 {number}"
                created = create_product(client, title, picture("red", (64, 32 + number % 64)))
                result.titles[created["product_id"]] = title
                if number % 2:
                    renamed = client.patch(f"/product/{created['product_id']}", data={"title": f"蓝色{title}"})
                    assert renamed.is_success, renamed.text
                    result.titles[created["product_id"]] = f"蓝色{title}"

    threads = [threading.Thread(target=each) for each in (searches, writes)]
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        until.set()
        for thread in threads:
            thread.join()
        client.close()


@pytest.fixture
def second_models(tmp_path: Path) -> dict[str, str]:
    """Other models than those of the service: the demo's picture model, told apart by a file."""
    shutil.copytree(ROOT / "models" / "demo-clip-2", tmp_path / "copy")
    (tmp_path / "copy" / "of-another-day.json").write_text("{}")
    return {"clip_model": str(tmp_path / "copy"), "text_model": str(ROOT / "models" / "demo-bge")}


def fill(client: catalogue_import.ServiceClient) -> list[str]:
    items = catalogue_import.read_catalogue(DEMO_CATALOGUE)
    catalogue_import.load_catalogue(client, items, lambda _: None)
    wait_until_indexed(client, timeout_s=600)
    return [item.title for item in items]


def test_models_change_and_change_back_under_searches_and_writes(tmp_path: Path, second_models: dict[str, str]) -> None:
    with running_api(tmp_path) as url, catalogue_import.open_client(url) as client:
        texts = fill(client)
        with load(url, texts, threading.Event()) as seen:
            started = time.monotonic()
            time.sleep(IDLE_S)  # what is compared with: the same load without the change
            idle_until = time.monotonic()
            job = client.post("/reindex", json=second_models).raise_for_status().json()

            def state() -> dict[str, Any]:
                time.sleep(0.5)  # whoever asks all the time is a load of its own
                found: dict[str, Any] = client.get(job["status_url"]).json()
                return found

            wait_until(
                lambda: state()["status"] not in ("queued", "running"),
                timeout_s=1800,
                what="the change to end",
            )
            busy_until = time.monotonic()
            ended = state()
            assert (ended["status"], ended["phase"]) == ("done", "switched"), ended
            wait_until(
                lambda: seen.answers[-1][3] == ended["collection"], timeout_s=5, what="searches by the new index"
            )
            time.sleep(2)
            before_rollback = time.monotonic()
            rolled_back = client.post("/reindex/rollback").raise_for_status().json()
            wait_until(lambda: seen.answers[-1][3] == rolled_back["collection"], timeout_s=5, what="the way back")
            rollback_s = time.monotonic() - before_rollback
        idle, busy = seen.p95(started, idle_until), seen.p95(idle_until, busy_until)
        print(json.dumps({
            "searches": len(seen.answers), "writes": len(seen.titles), "products": ended["total"],
            "reindex_s": round(busy_until - idle_until, 1), "rate_per_s": ended["rate_per_s"],
            "p95_idle_ms": round(idle * 1000), "p95_busy_ms": round(busy * 1000), "rollback_s": round(rollback_s, 2),
        }))  # fmt: skip
        assert {status for _, status, _, _ in seen.answers} == {200}
        assert rollback_s < 5
        assert busy < 2 * idle
        # What was written before, during and after the switch is all found by the index that came back.
        wait_until_indexed(client, timeout_s=300)

        def is_found(product_id: int, title: str) -> bool:
            query = {"mode": "text_to_text", "text": title, "top_k": 100}
            hits = client.post("/search", json=query).json()["hits"]
            return product_id in {hit["product"]["product_id"] for hit in hits if hit["score"] > 0.999}

        for product_id, title in seen.titles.items():
            wait_until(lambda: is_found(product_id, title), timeout_s=60, what=f"{title} to be found")  # noqa: B023
        assert run_cli("reindex", "--drop-retired", API_URL=url).returncode == 0
        again = run_cli("reindex", "--drop-retired", API_URL=url)
        assert "nothing, there was none" in again.stdout
        refused = run_cli("reindex", "--rollback", API_URL=url)
        assert (refused.returncode, "no retired index" in refused.stderr) == (1, True)


def test_a_change_whose_process_is_killed_is_taken_up_by_the_next(
    tmp_path: Path, second_models: dict[str, str]
) -> None:
    with running_api_process(tmp_path) as (url, process), catalogue_import.open_client(url) as client:
        items = catalogue_import.read_catalogue(DEMO_CATALOGUE)[:60]
        catalogue_import.load_catalogue(client, items, lambda _: None)
        wait_until_indexed(client, timeout_s=300)
        job = client.post("/reindex", json=second_models).raise_for_status().json()
        wait_until(lambda: client.get(job["status_url"]).json()["done"] >= 8, timeout_s=120, what="the fill")
        os.killpg(process.pid, signal.SIGKILL)
    with running_api(tmp_path) as url, catalogue_import.open_client(url) as client:
        wait_until(lambda: client.get(job["status_url"]).json()["status"] == "done", timeout_s=400, what="the switch")
        ended = client.get(job["status_url"]).json()
        assert (ended["phase"], ended["live_count"], ended["new_count"]) == ("switched", 60, 60)
        for item in items:
            hits = client.post("/search", json={"mode": "text_to_text", "text": item.title}).json()["hits"]
            assert item.sku in {hit["product"]["sku"] for hit in hits}

"""The service while Milvus hangs: searches are refused in time, and nothing else notices."""

import http.client
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import freeze, running_api, wait_until
from tests.promises import require_in_time
from tests.servers import running_milvus_process

TIMEOUT_S = 2.0
SEARCHERS = 40
LONG = bool(os.environ.get("LONG_TESTS"))
FROZEN_S = 60.0 if LONG else 8.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[tuple[str, int]]:
    """The API's address, and the process of its Milvus."""
    folder = tmp_path_factory.mktemp("frozen-shop")
    with (
        running_milvus_process(folder / "milvus") as (milvus, process),
        running_api(folder, **tiny_models, MILVUS_URI=milvus, MILVUS_TIMEOUT_S=TIMEOUT_S) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        create_product(client, "红色沙发")
        wait_until_indexed(client)
        yield url, process.pid


class Caller:
    """Asks again and again, and notes what came after how many seconds."""

    def __init__(self, url: str, call: Callable[[httpx.Client], httpx.Response], until: threading.Event) -> None:
        self.answers: list[tuple[int, float]] = []
        self._url, self._call, self._until = url, call, until

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._until.is_set():
                started = time.monotonic()
                status = self._call(client).status_code
                self.answers.append((status, time.monotonic() - started))

    def slowest(self) -> float:
        return max(seconds for _, seconds in self.answers)

    def statuses(self) -> set[int]:
        return {status for status, _ in self.answers}


def search(client: httpx.Client) -> httpx.Response:
    return client.post("/search", json={"mode": "text_to_text", "text": "红色沙发"})


def create(client: httpx.Client) -> httpx.Response:
    return client.post("/product", data={"title": "新商品"}, files={"image": ("p.png", picture("blue"))})


def draw(client: httpx.Client) -> httpx.Response:
    job = client.post("/generate", json={"prompt": "沙发", "steps": 1})
    client.delete(job.json()["status_url"])
    return job


def seconds_until_live(url: str, for_s: float) -> list[float]:
    """Runs in a process of its own: forty searchers' threads in one Python hold each other up for longer than that."""
    seconds: list[float] = []
    end = time.monotonic() + for_s
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    while (started := time.monotonic()) < end:
        connection.request("GET", "/health/live")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b'{"status":"ok"}')
        seconds.append(time.monotonic() - started)
        time.sleep(0.01)
    return seconds


def test_searches_are_refused_in_time_and_everything_else_goes_on(shop: tuple[str, int]) -> None:
    url, milvus = shop
    thawed = threading.Event()
    searchers = [Caller(url, search, thawed) for _ in range(SEARCHERS)]
    others: dict[str, Caller] = {
        "ready": Caller(url, lambda client: client.get("/health/ready"), thawed),
        "create": Caller(url, create, thawed),
        "list": Caller(url, lambda client: client.get("/product/list"), thawed),
        "generate": Caller(url, draw, thawed),
    }
    freeze(milvus)
    try:
        with (
            ThreadPoolExecutor(SEARCHERS + len(others)) as pool,
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own_process,
        ):
            live = own_process.submit(seconds_until_live, url, FROZEN_S)
            runs = [pool.submit(caller.run) for caller in [*searchers, *others.values()]]
            thawed.wait(FROZEN_S)
            thawed.set()
            for run in runs:
                run.result()
    finally:
        os.kill(milvus, signal.SIGCONT)
    report: dict[str, Any] = {name: f"{caller.slowest():.2f} s" for name, caller in others.items()}
    slowest_search = max(searcher.slowest() for searcher in searchers)
    slowest_live = max(live.result())
    print(f"slowest beside {SEARCHERS} searchers: live {slowest_live:.2f} s, search {slowest_search:.2f} s, {report}")
    assert set().union(*(searcher.statuses() for searcher in searchers)) == {503}
    # What asks no Milvus takes as long as the machine lets it: so much later a refusal may be, too.
    require_in_time(slowest_search, TIMEOUT_S + 1 + others["list"].slowest())
    assert others["ready"].statuses() == {503}
    require_in_time(slowest_live, 0.1 if LONG else 1.0)  # the short form runs beside other tests
    for name, statuses in (("create", {201}), ("list", {200}), ("generate", {200, 202})):
        assert others[name].statuses() <= statuses, name  # 200: drawn already
        require_in_time(others[name].slowest(), 2.0, name)
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        wait_until(lambda: search(client).is_success, timeout_s=30, what="searches to work again")
        wait_until_indexed(client, timeout_s=60)


def test_a_queue_that_is_down_takes_no_api_out_of_the_load_balancer(
    tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    settings = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    with (
        running_api(tmp_path, ready_path="/health/ready", **tiny_models, **settings) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        assert client.get("/health").status_code == httpx.codes.SERVICE_UNAVAILABLE
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["components"]["queue"]["status"]) == (httpx.codes.OK, "down")
        assert client.get("/health/live").json() == {"status": "ok"}
        assert create(client).status_code == httpx.codes.CREATED

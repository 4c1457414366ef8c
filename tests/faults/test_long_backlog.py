"""Thousands of products that have been pending for an hour: they are queued again and indexed, and no write notices."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from orm_models import ProductRow, utc_now
from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import ROOT, environment, running, running_api, wait_until
from tests.servers import new_mysql_database
from tuwen.database.engine import Database

PRODUCTS = 20_000
INDEXED_WITHIN_S = 3600.0
PAUSE_S = 0.2
PLANTED_AT_ONCE = 2000


@contextmanager
def running_worker(folder: Path, **settings: object) -> Iterator[None]:
    log = folder / "worker.log"
    env = environment(DATA_DIR=folder / "data", **settings)
    with running([sys.executable, str(ROOT / "worker.py")], log, env=env, ready=lambda: "Consuming" in log.read_text()):
        yield


def plant(dsn: str) -> None:
    """As those that are there already, pending for an hour, their messages lost."""
    database = Database(dsn)
    try:
        with database.read() as session:
            columns = [column for column in ProductRow.__table__.columns if column.name != "id"]
            some = [dict(row._mapping) for row in session.execute(sa.select(*columns))]
        hour_ago = utc_now() - timedelta(hours=1)
        pending = {"index_status": "pending", "indexed_at": None, "created_at": hour_ago, "updated_at": hour_ago}
        rows = [some[n % len(some)] | pending | {"title": f"商品 {n}"} for n in range(PRODUCTS)]
        for start in range(0, PRODUCTS, PLANTED_AT_ONCE):
            with database.write() as session:
                session.execute(sa.insert(ProductRow), rows[start : start + PLANTED_AT_ONCE])
    finally:
        database.close()


class Writer:
    """Creates a product now and then, and notes what came after how many seconds."""

    def __init__(self, url: str) -> None:
        self.answers: list[tuple[int, float]] = []
        self._url = url
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._done.set()
            self._thread.join()

    def percentile(self, share: float) -> float:
        seconds = sorted(each for _, each in self.answers)
        return seconds[int(share * (len(seconds) - 1))]

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._done.wait(PAUSE_S):
                started = time.monotonic()
                files = {"image": ("p.png", picture("blue"))}
                status = client.post("/product", data={"title": f"新商品 {started}"}, files=files).status_code
                self.answers.append((status, time.monotonic() - started))


@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="it takes minutes: make test-long")
@pytest.mark.parametrize("stack", ["embedded", "servers"])
def test_a_long_backlog_is_indexed_and_holds_no_write_up(
    stack: str, request: pytest.FixtureRequest, tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    settings: dict[str, Any] = {**tiny_models}
    dsn = f"sqlite:///{tmp_path / 'data' / 'tuwen.db'}"
    if stack == "servers":
        dsn = new_mysql_database(request.getfixturevalue("mariadb"))
        servers = {"MILVUS_URI": "milvus", "KAFKA_BOOTSTRAP_SERVERS": "kafka"}
        settings |= {name: request.getfixturevalue(fixture) for name, fixture in servers.items()}
        settings |= {"DATABASE_URL": dsn, "KAFKA_IDEMPOTENT_PRODUCER": "false", "IMAGE_STORE_URL": tmp_path / "images"}
    with open_shop(tmp_path, stack, settings) as client:
        for color in ("red", "green", "white"):
            create_product(client, f"{color} 沙发", picture(color))
        wait_until_indexed(client)
    plant(dsn)
    with open_shop(tmp_path, stack, settings) as client:
        started, writer = time.monotonic(), Writer(str(client.base_url))
        with writer.running():
            wait_until(lambda: pending(client) < PRODUCTS / 2, timeout_s=INDEXED_WITHIN_S, what="half of them")
            print(f"half of {PRODUCTS} after {time.monotonic() - started:.0f} s")
            wait_until(lambda: pending(client) <= 5, timeout_s=INDEXED_WITHIN_S, what="nearly all of them")
        wait_until_indexed(client)
        seconds = time.monotonic() - started
        found = client.post("/search", json={"mode": "text_to_text", "text": f"商品 {PRODUCTS - 1}"}).json()
        by_status = {
            status: client.get("/product/list", params={"index_status": status}).json()["total"]
            for status in ("pending", "indexed", "failed")
        }
    print(
        f"{stack}: {PRODUCTS} products in {seconds:.0f} s; {len(writer.answers)} creates, "
        f"p50 {writer.percentile(0.5):.3f} s, p99 {writer.percentile(0.99):.3f} s, "
        f"slowest {writer.percentile(1):.3f} s; a search took {found['took_ms']}"
    )
    assert {status for status, _ in writer.answers} == {201}
    assert writer.percentile(0.99) < 1.0
    assert by_status == {"pending": 0, "indexed": PRODUCTS + 3 + len(writer.answers), "failed": 0}
    assert found["hits"]


def pending(client: httpx.Client) -> int:
    time.sleep(0.2)
    total: int = client.get("/product/list", params={"index_status": "pending"}).json()["total"]
    return total


@contextmanager
def open_shop(folder: Path, stack: str, settings: dict[str, Any]) -> Iterator[httpx.Client]:
    with ExitStack() as opened:
        url = opened.enter_context(running_api(folder, ready_path="/health/ready", **settings))
        if stack == "servers":
            opened.enter_context(running_worker(folder, **settings))
        yield opened.enter_context(httpx.Client(base_url=url, timeout=60, trust_env=False))

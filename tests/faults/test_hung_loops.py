"""Background loops that hang are told from those that are idle, or wait for what is down."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.faults.test_hung_pictures import hanging
from tests.processes import ROOT, freeze, running_api_process, wait_until
from tests.servers import running_milvus_process

LOOPS = {
    "generation",
    "index models",
    "index watch",
    "ingestion",
    "outbox relay of generation-jobs",
    "outbox relay of product-events",
    "outbox relay of product-events.dlq",
    "presence",
    "reconciliation",
    "reindex",
    "twins",
}
LONGEST_PROMISE_S = 180  # of a call of the model


class Loops:
    """As the container's health check sees them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> tuple[int, str]:
        command = [sys.executable, str(ROOT / "deploy" / "healthcheck.py"), "loops"]
        env = os.environ | {"HEARTBEAT_DIR": str(self._folder)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def due(self) -> dict[str, float]:
        return {file.stem: file.stat().st_mtime for file in self._folder.iterdir()}

    def wait_for_a_round(self, of: set[str]) -> None:
        before = self.due()
        wait_until(lambda: all(self.due()[name] != before[name] for name in of), what=f"{of} to go round")

    def stands_still(self, name: str) -> bool:
        """While others go round, twice."""
        before = self.due()[name]
        for _ in range(2):
            self.wait_for_a_round(LOOPS - {"presence", name})
        return self.due()[name] == before


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    freeze(process.pid)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="it waits for promises to run out: make test-long")
def test_a_loop_that_hangs_is_noticed_and_one_that_waits_is_not(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    folder = tmp_path / "loops"
    loops = Loops(folder)
    with (
        running_milvus_process(tmp_path / "milvus") as (milvus, milvus_process),
        running_api_process(tmp_path, **tiny_models, MILVUS_URI=milvus, MILVUS_TIMEOUT_S=1, HEARTBEAT_DIR=folder) as (
            url,
            process,
        ),
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        assert set(loops.due()) == LOOPS
        loops.wait_for_a_round(LOOPS - {"presence"})  # idle; that one goes round every ten seconds
        assert loops.check() == (0, "")

        with stopped(process):
            time.sleep(65)
            assert loops.check()[0] == 1
        wait_until(lambda: loops.check()[0] == 0, what="the loops to be heard of again")

        with stopped(milvus_process):
            create_product(client, "红色沙发")
            wait_until(lambda: client.get("/health").status_code == 503, what="Milvus to be missed")
            time.sleep(65)
            loops.wait_for_a_round(LOOPS - {"presence"})
        wait_until_indexed(client)

        product = create_product(client, "蓝色灯", picture("blue"))
        wait_until_indexed(client)
        with hanging(tmp_path / "data" / product["image_url"].removeprefix("/")):
            client.patch(f"/product/{product['product_id']}", data={"title": "绿色灯"}).raise_for_status()
            wait_until(lambda: loops.stands_still("ingestion"), what="ingestion to hang")
            time.sleep(LONGEST_PROMISE_S)
            wait_until(lambda: loops.check() == (1, "Not heard of in time: ingestion\n"), what="ingestion to be missed")
        wait_until(lambda: loops.check() == (0, ""), what="ingestion to go on")

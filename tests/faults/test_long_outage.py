"""Milvus away for longer than a consumer may be idle by its defaults, over the full stack: all are back at once."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import create_product, wait_until_indexed
from tests.faults.stack import Supervised, running_full
from tests.processes import wait_until

OUTAGE_S = 330.0  # aiokafka's own limit is 300
BACK_AFTER_S = 10.0

OUTAGES: dict[str, tuple[Callable[[Supervised], None], Callable[[Supervised], None]]] = {
    "gone": (Supervised.kill, Supervised.start),
    "frozen": (lambda milvus: milvus.signal(signal.SIGSTOP), lambda milvus: milvus.signal(signal.SIGCONT)),
}


@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="Milvus is away for minutes: make test-long")
@pytest.mark.parametrize("outage", OUTAGES)
def test_all_are_back_at_once_after_a_long_outage(outage: str, tmp_path: Path, tiny_models: dict[str, str]) -> None:
    begin, end = OUTAGES[outage]
    with running_full(tmp_path, tiny_models) as stack, httpx.Client(base_url=stack.urls[0], timeout=30) as client:
        create_product(client, "红色沙发")
        wait_until_indexed(client)
        milvus = next(process for process in stack.processes if process.name == "milvus")
        begin(milvus)
        away_until = time.monotonic() + OUTAGE_S
        while time.monotonic() < away_until:
            create_product(client, "新商品")
            time.sleep(OUTAGE_S / 20)
        end(milvus)
        started = time.monotonic()
        wait_until(
            lambda: client.post("/search", json={"mode": "text_to_text", "text": "红色沙发"}).is_success,
            timeout_s=60,
            what="searches to work again",
        )
        searched = time.monotonic() - started
        wait_until_indexed(client, timeout_s=120)
        indexed = time.monotonic() - started
        print(
            f"Milvus {outage} for {OUTAGE_S:.0f} s: searches after {searched:.1f} s, all indexed after {indexed:.1f} s"
        )
        assert max(searched, indexed) < BACK_AFTER_S

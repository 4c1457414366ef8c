"""A picture store that hangs, as a frozen network folder does: pictures wait, and nothing else notices."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import create_product, wait_until_indexed
from tests.processes import running_api, wait_until
from tuwen.search.explaining import TIMEOUT_S, TURN_WAIT_S

READERS = 20  # more than the threads for pictures
MARGIN_S = 5.0


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """Reading it waits until the end."""
    kept, pipe = path.read_bytes(), path.with_suffix(".fifo")
    os.mkfifo(pipe)
    path.unlink()
    os.link(pipe, path)
    try:
        yield
    finally:
        path.unlink()
        path.write_bytes(kept)
        os.close(os.open(pipe, os.O_RDWR))  # whoever waits in it gets an end of file


def test_a_hung_picture_store_silences_no_other_route(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    with (
        running_api(tmp_path, **tiny_models) as url,
        httpx.Client(base_url=url, timeout=5, trust_env=False) as client,
    ):
        product = create_product(client, "红色沙发")
        wait_until_indexed(client)
        picture_url = product["image_url"]
        with hanging(tmp_path / "data" / picture_url.removeprefix("/")):
            readers = [threading.Thread(target=read_and_give_up, args=[url + picture_url]) for _ in range(READERS)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()  # all of them hang in there by now
            query = {"mode": "text_to_text", "text": "红色沙发"}
            assert client.post("/search", json=query).json()["hits"]
            for path in (
                "/health/live",
                "/health/ready",
                "/product/list",
                f"/product/{product['product_id']}",
                "/metrics",
            ):
                assert client.get(path).is_success, path
            assert create_product(client, "蓝色灯")["index_status"] == "pending"


@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="it waits out a deadline: make test-long")
def test_searches_that_ask_why_come_in_time_without_the_pictures_they_would_show(
    tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    """One at a time waits for the store, up to its deadline, the others for their turn; no plain search waits."""
    with (
        running_api(tmp_path, **tiny_models) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        product = create_product(client, "红色沙发")
        wait_until_indexed(client)
        plain = {"mode": "text_to_image", "text": "红色沙发"}

        def asked(query: Mapping[str, object]) -> tuple[list[str], float]:
            started = time.monotonic()
            answer = client.post("/search", json=query).raise_for_status().json()
            assert answer["hits"][0]["product"]["product_id"] == product["product_id"]
            return answer["missing"], time.monotonic() - started

        assert asked({**plain, "explain": True})[0] == []
        with (
            hanging(tmp_path / "data" / product["thumbnail_url"].removeprefix("/")),
            ThreadPoolExecutor(3) as pool,
        ):
            waiting = [pool.submit(asked, {**plain, "explain": True}) for _ in range(3)]
            assert asked(plain)[1] < MARGIN_S
            answers = [each.result() for each in waiting]
            assert [missing for missing, _ in answers] == [["relevance_maps"]] * 3
            *others, longest_s = sorted(took_s for _, took_s in answers)
            assert max(others) < TURN_WAIT_S + MARGIN_S < longest_s < TIMEOUT_S + MARGIN_S
        # What hung in the store has ended with it.
        wait_until(lambda: asked({**plain, "explain": True})[0] == [], what="maps again")


def read_and_give_up(url: str) -> None:
    try:
        httpx.get(url, timeout=1, trust_env=False)
    except httpx.ReadTimeout:
        return

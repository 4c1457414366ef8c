"""A picture store that hangs, as a frozen network folder does: pictures wait, and nothing else notices."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.conftest import create_product, wait_until_indexed
from tests.processes import running_api

READERS = 20  # more than the threads for pictures


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


def read_and_give_up(url: str) -> None:
    try:
        httpx.get(url, timeout=1, trust_env=False)
    except httpx.ReadTimeout:
        return

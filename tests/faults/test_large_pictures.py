"""Pictures of 40 megapixels, many at once: what the process takes for them has a bound, and what waits is answered."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.pictures.files import huge_png
from tests.processes import running_api_process

# Forty take a minute on two cores; a few show the same.
AT_ONCE = 40 if os.environ.get("LONG_TESTS") else 6
MEGABYTES = 400
PATIENCE_S = 300.0

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


class Service:
    def __init__(self, url: str, pid: int) -> None:
        self.client = httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False)
        self._process = Path(f"/proc/{pid}")

    def upload(self, number: int) -> httpx.Response:
        files = {"image": ("huge.png", huge_png(number))}
        return self.client.post("/product", data={"title": f"大图 {number}"}, files=files)

    def search(self, number: int) -> httpx.Response:
        files = {"image": ("huge.png", huge_png(number))}
        return self.client.post("/search", data={"mode": "image_to_image", "top_k": 1}, files=files)

    def grows_while(self, work: Callable[[], None]) -> int:
        """By how many megabytes at most, at any moment."""
        before = self._megabytes("VmRSS")
        (self._process / "clear_refs").write_text("5")  # the peak is counted from here on
        work()
        return self._megabytes("VmHWM") - before

    def _megabytes(self, key: str) -> int:
        found = re.search(rf"{key}:\s+(\d+) kB", (self._process / "status").read_text())
        assert found is not None
        return int(found[1]) // 1024


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[Service]:
    with running_api_process(tmp_path_factory.mktemp("large"), **tiny_models) as (url, process):
        service = Service(url, process.pid)
        create_product(service.client, "红色沙发")
        wait_until_indexed(service.client)
        query = {"image": ("small.png", picture("blue"))}
        assert service.client.post("/search", data={"mode": "image_to_image"}, files=query).is_success
        yield service
        service.client.close()


def all_at_once(send: Callable[[int], httpx.Response], numbers: range) -> Counter[int]:
    with ThreadPoolExecutor(len(numbers)) as pool:
        answers = list(pool.map(send, numbers))
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 503)
    return Counter(answer.status_code for answer in answers)


def test_large_uploads_at_once_and_their_indexing_take_a_bounded_amount_of_memory(service: Service) -> None:
    def upload_and_index() -> None:
        assert all_at_once(service.upload, range(4)) == {201: 4}
        assert set(all_at_once(service.upload, range(4, AT_ONCE))) <= {201, 503}
        wait_until_indexed(service.client, timeout_s=PATIENCE_S)

    assert service.grows_while(upload_and_index) < MEGABYTES
    listed = service.client.get("/product/list", params={"index_status": "indexed"}).json()["items"]
    assert [(each["image_width"], each["image_height"]) for each in listed].count((8000, 5000)) >= 4


def test_searches_by_large_pictures_at_once_take_a_bounded_amount_of_memory(service: Service) -> None:
    statuses = Counter[int]()

    def search() -> None:
        statuses.update(all_at_once(service.search, range(1000, 1000 + AT_ONCE)))

    assert service.grows_while(search) < MEGABYTES
    assert statuses[200] >= 1
    assert set(statuses) <= {200, 503}

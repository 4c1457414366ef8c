"""The service while S3 hangs: what needs a picture is refused in time, and nothing else notices."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import running_api
from tests.promises import require_in_time
from tests.s3_proxy import running_s3_proxy
from tests.secrecy import assert_tells_nothing
from tests.servers import new_bucket

TIMEOUT_S = 6.0
UPLOADS = 16  # as many as there are threads for them
MARGIN_S = 10.0


@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="it waits out deadlines: make test-long")
def test_an_s3_that_hangs_holds_up_what_needs_a_picture_alone(
    tmp_path: Path, tiny_models: dict[str, str], s3: str
) -> None:
    with (
        running_s3_proxy(s3) as proxy,
        running_api(
            tmp_path,
            **tiny_models,
            **(new_bucket(s3) | {"AWS_ENDPOINT_URL": proxy.address}),
            IMAGE_STORE_TIMEOUT_S=TIMEOUT_S,
        ) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        sofa, lamp = create_product(client, "红色沙发"), create_product(client, "蓝色灯", picture("blue"))
        wait_until_indexed(client)
        assert client.get(sofa["image_url"]).content == picture()
        proxy.mode, proxy.delay_s = "slow", 4 * TIMEOUT_S
        started = time.monotonic()
        with ThreadPoolExecutor(UPLOADS) as uploads:
            answers = [uploads.submit(upload, url) for _ in range(UPLOADS)]
            calls: list[Callable[[], httpx.Response]] = [
                lambda: client.get("/health/live"),
                lambda: client.post("/search", json={"mode": "text_to_text", "text": "红色沙发"}),
                lambda: client.patch(f"/product/{sofa['product_id']}", data={"price": "9.5"}),
                lambda: client.delete(f"/product/{lamp['product_id']}"),
            ]
            assert all(call().is_success for call in calls)
            assert not any(answer.done() for answer in answers), "the uploads were to hang meanwhile"
            for answer in answers:
                response = answer.result()
                assert_tells_nothing(response)
        require_in_time(time.monotonic() - started, TIMEOUT_S + MARGIN_S)
        missing = client.get(sofa["image_url"])
        assert (missing.status_code, missing.headers["Retry-After"]) == (503, "5")
        assert client.get("/health").json()["components"]["image_store"]["status"] == "down"
        proxy.mode = "pass"
        assert client.get(sofa["image_url"]).content == picture()
        create_product(client, "绿色椅子", picture("green"))
        wait_until_indexed(client)
        assert client.get("/product/list", params={"index_status": "failed"}).json()["total"] == 0


def upload(url: str) -> httpx.Response:
    data, files = {"title": "沙发"}, {"image": ("picture.png", picture("tan"))}
    return httpx.post(f"{url}/product", data=data, files=files, timeout=60, trust_env=False)

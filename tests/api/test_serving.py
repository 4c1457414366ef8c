"""What stands around the routes: other origins, pictures from elsewhere, and a stop while somebody still listens."""

import base64
import http.server
import io
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest
from PIL import Image

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import running_api, running_api_process, stop
from tests.promises import require_in_time

SHOP_ORIGIN = "https://shop.example"
STOPS_WITHIN_S = 15.0


class PictureServer(http.server.BaseHTTPRequestHandler):
    """Somebody's web server."""

    answers: ClassVar[dict[str, tuple[int, bytes]]] = {
        "/red.png": (200, picture("red")),
        "/moved.png": (302, b""),
        "/elsewhere.png": (302, b""),
        "/page.html": (200, b"<html>no picture</html>"),
        "/huge.png": (200, b"x" * 2_000_000),
        "/slow.png": (200, b"x" * 1_000),
    }

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "/red.png" if self.path == "/moved.png" else "http://127.0.0.1:1/red.png")
        self.end_headers()
        if self.path == "/slow.png":
            self._drip()
        self.wfile.write(body)

    def _drip(self) -> None:
        """A byte now and then, for longer than anybody waits."""
        with suppress(ConnectionError):
            for _ in range(200):
                self.wfile.write(b"x")
                time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), PictureServer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def open_api(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str], elsewhere: str
) -> Iterator[httpx.Client]:
    """Lets a shop's scripts call it, and fetches pictures from this machine."""
    settings = {
        "CORS_ALLOW_ORIGINS": f"{SHOP_ORIGIN}, http://localhost:3000",
        "IMAGE_URL_HOSTS": elsewhere.removeprefix("http://"),
        "IMAGE_URL_PRIVATE_NETWORKS": "127.0.0.0/8",
        "IMAGE_URL_TIMEOUT_S": "2",
    }
    with (
        running_api(tmp_path_factory.mktemp("open"), **tiny_models, **settings, UPLOAD_MAX_BYTES=1_000_000) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        for color in ("red", "blue"):
            create_product(client, f"{color} sofa", picture(color))
        wait_until_indexed(client)
        yield client


def test_scripts_of_the_origins_that_are_named_may_call_and_others_may_not(open_api: httpx.Client) -> None:
    def preflight(origin: str) -> httpx.Response:
        asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type"}
        return open_api.options("/product/1", headers={"Origin": origin, **asked})

    allowed = preflight(SHOP_ORIGIN)
    assert allowed.status_code == httpx.codes.OK
    assert allowed.headers["Access-Control-Allow-Origin"] == SHOP_ORIGIN
    assert "PATCH" in allowed.headers["Access-Control-Allow-Methods"]
    answer = open_api.get("/product/list", headers={"Origin": "http://localhost:3000"})
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    refused = open_api.get("/product/987654", headers={"Origin": SHOP_ORIGIN})  # a script may read errors, too
    assert refused.headers["Access-Control-Allow-Origin"] == SHOP_ORIGIN
    exposed = set(refused.headers["Access-Control-Expose-Headers"].split(", "))
    assert exposed == {"X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy", "ETag", "Location"}
    assert preflight("https://elsewhere.example").status_code == httpx.codes.BAD_REQUEST
    stranger = open_api.get("/product/list", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in stranger.headers


def test_without_the_setting_no_other_origin_is_let_in(api: httpx.Client) -> None:
    answer = api.get("/product/list", headers={"Origin": SHOP_ORIGIN})
    assert answer.is_success
    assert "Access-Control-Allow-Origin" not in answer.headers


def search_by_url(client: httpx.Client, url: str) -> httpx.Response:
    return client.post("/search", json={"mode": "image_to_image", "image_url": url})


@pytest.mark.parametrize("path", ["/red.png", "/moved.png"])
def test_a_picture_behind_a_url_finds_what_the_picture_itself_finds(
    open_api: httpx.Client, elsewhere: str, path: str
) -> None:
    by_url = search_by_url(open_api, elsewhere + path)
    files = {"image": ("red.png", picture("red"))}
    by_upload = open_api.post("/search", data={"mode": "image_to_image"}, files=files)
    assert by_url.status_code == httpx.codes.OK, by_url.text
    assert by_url.json()["hits"] == by_upload.json()["hits"]
    assert by_url.json()["hits"][0]["product"]["title"] == "red sofa"


@pytest.mark.parametrize(
    ("path", "status", "field", "reason"),
    [
        ("/none.png", 422, "image_url", "answered 404"),
        ("/elsewhere.png", 422, "image_url", "must be http or https on one of"),
        ("/page.html", 422, "image", "not a picture"),
        ("/huge.png", 413, "image_url", "1,000,000 bytes"),
        ("/slow.png", 422, "image_url", "within 2 s"),
    ],
)
def test_what_a_url_answers_instead_of_a_picture_is_said(
    open_api: httpx.Client, elsewhere: str, path: str, status: int, field: str, reason: str
) -> None:
    response = search_by_url(open_api, elsewhere + path)
    assert response.status_code == status
    assert reason in response.json()["detail"]
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_only_the_hosts_that_are_named_are_asked(open_api: httpx.Client, elsewhere: str) -> None:
    for url in (elsewhere.replace("127.0.0.1", "localhost") + "/red.png", "file:///etc/hostname", "ftp://127.0.0.1/a"):
        response = search_by_url(open_api, url)
        assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
        assert "must be http or https on one of: 127.0.0.1" in response.json()["detail"]


def test_searches_of_clients_that_hang_up_are_given_up(open_api: httpx.Client) -> None:
    """Of so many that come at once a few are under way when all are gone."""
    form = {"data": {"mode": "image_to_image"}, "headers": {"connection": "close"}}
    pictures = [picture((number, 99, 9), (2000, 1500)) for number in range(1, 61)]
    hung_up = []
    for data in pictures:
        request = open_api.build_request("POST", "/search", files={"image": ("a", data)}, **form)  # type: ignore[arg-type]
        connection = socket.create_connection((request.url.host, request.url.port or 80))
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        connection.sendall(f"POST /search HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        hung_up.append(connection)
    before = searches_answered(open_api)
    for connection in hung_up:
        connection.close()
    query = {"mode": "image_to_image", "image_base64": base64.b64encode(picture("navy")).decode()}
    assert open_api.post("/search", json=query).status_code == httpx.codes.OK  # in line behind those that still wait
    assert searches_answered(open_api) - before < len(pictures) / 2


def searches_answered(client: httpx.Client) -> int:
    lines = client.get("/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("tuwen_search_seconds_count"))


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_those_who_follow_a_job(
    tmp_path: Path, tiny_models: dict[str, str], signal_number: signal.Signals
) -> None:
    endless: dict[str, Any] = {"prompt": "沙发", "steps": 100, "width": 512, "height": 512, "num_images": 4}
    with (
        running_api_process(tmp_path, **tiny_models) as (url, process),
        httpx.Client(base_url=url, timeout=STOPS_WITHIN_S, trust_env=False) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        job = client.post("/generate", json=endless).json()
        waiting = pool.submit(client.post, "/generate", json=endless | {"wait_s": 60}, timeout=90)
        with client.stream("GET", job["events_url"]) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: progress"
            while client.get("/product/list").is_success and waiting.running():
                if client.get(f"/generate/{job['job_id'] + 1}").is_success:  # the one who waits has asked
                    break
            started = time.monotonic()
            process.send_signal(signal_number)
            assert not any("done" in line for line in lines)  # the stream ends, and ends well, or its read times out
        assert waiting.result().json()["status"] in ("queued", "running")
        process.wait(STOPS_WITHIN_S)
        require_in_time(time.monotonic() - started, STOPS_WITHIN_S)
        stop(process)


def test_a_proxy_for_the_internet_is_not_in_the_way_of_the_embedded_engines(
    tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    """As most companies' machines have one; this one leads nowhere."""
    nowhere = "http://127.0.0.1:9"
    proxies = {
        name: nowhere for each in ("http", "https", "all") for name in (f"{each}_proxy", f"{each}_PROXY".upper())
    }
    with (
        running_api(tmp_path, **tiny_models, **proxies, NO_PROXY="", no_proxy="") as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        create_product(client, "红色沙发")
        wait_until_indexed(client)
        assert client.post("/search", json={"mode": "text_to_text", "text": "红色沙发"}).json()["hits"]


def test_broken_uploads_leave_nothing_in_memory(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    """Not until the garbage collector comes, either: on a quiet service it does after hundreds of them."""
    side, file = 1400, io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(file, "PNG", compress_level=0)
    cut_off, no_picture = file.getvalue()[:-1_000_000], b"no picture" + bytes(8_000_000)
    with (
        # What is freed goes back to the system at once, and is not kept for later by this thread or that.
        running_api_process(tmp_path, MALLOC_MMAP_THRESHOLD_=1_000_000, **tiny_models) as (url, process),
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):

        def send(data: bytes) -> set[int]:
            files = {"image": ("picture.png", data)}
            answers = (
                client.post("/search", data={"mode": "image_to_image"}, files=files),
                client.post("/product", data={"title": "沙发"}, files=files),
            )
            return {answer.status_code for answer in answers}

        def resident_mib() -> float:
            return psutil.Process(process.pid).memory_info().rss / 2**20

        for data in (cut_off, no_picture) * 3:
            send(data)
        before = resident_mib()
        for data in (cut_off, no_picture) * 20:
            assert send(data) <= {400, 415, 422}
            assert resident_mib() < before + 60

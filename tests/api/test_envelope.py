"""What every answer carries: the request's id, which its log lines have too, and headers for browsers."""

import asyncio
import http.client
import io
import json
import logging
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.conftest import picture, wait_until_indexed
from tests.processes import wait_until
from tuwen.api.envelope import SECURITY_HEADERS, install_envelope
from tuwen.api.problems import install_problem_handlers
from tuwen.logs import FORMAT, Formatter

MADE = re.compile(r"[0-9a-f]{32}")
SECRET = "a bug says what it knows"


def lines_of(log: Path, request_id: str) -> list[str]:
    return [line for line in log.read_text(encoding="utf-8").splitlines() if f" [{request_id}]: " in line]


def test_a_callers_id_is_in_the_answer_and_in_the_lines_of_what_it_led_to(api: httpx.Client, api_folder: Path) -> None:
    files = {"image": ("a.png", picture("teal"))}
    made = api.post("/product", data={"title": "桌"}, files=files, headers={"X-Request-ID": "order-4711.a_b"})
    assert (made.status_code, made.headers["X-Request-ID"]) == (201, "order-4711.a_b")
    wait_until_indexed(api)
    log = api_folder / "api.log"
    wait_until(lambda: bool(lines_of(log, "order-4711.a_b")), what="the line that says that it is indexed")
    assert "Indexed 1 products" in lines_of(log, "order-4711.a_b")[-1]


def test_a_jobs_lines_have_the_id_of_whoever_asked_for_it(api: httpx.Client, api_folder: Path) -> None:
    rows = b"sku,title,image\nA1,\xe6\xa4\x85,a.png\n"
    headers = {"X-Request-ID": "nightly-feed"}
    job = api.post("/product/import", files={"file": ("a.csv", rows)}, headers=headers).json()
    drawn = api.post("/generate", json={"prompt": "沙发"}, headers={"X-Request-ID": "drawing-1"}).json()
    log = api_folder / "api.log"
    done = f"Job {drawn['job_id']} done"
    wait_until(
        lambda: done in str(lines_of(log, "drawing-1")), timeout_s=120, what="the line that says that it is drawn"
    )
    wait_until(lambda: bool(lines_of(log, "nightly-feed")), what="the import's last line")
    assert any(line.endswith(f"Import job {job['job_id']} is done") for line in lines_of(log, "nightly-feed"))


def test_an_id_that_is_none_is_replaced(api: httpx.Client) -> None:
    for offered in ("", "two words", "x" * 65, "é", "a\tb", "a,b", '"'):
        answered = api.get("/health/live", headers={b"X-Request-ID": offered.encode()}).headers["X-Request-ID"]
        assert MADE.fullmatch(answered), (offered, answered)
    assert api.get("/health/live").headers["X-Request-ID"] != api.get("/health/live").headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/health", "/product/0", "/no/page", "/images/a.png", "/product/list", "/docs"])
def test_every_answer_has_an_id_and_says_what_browsers_may_do(api: httpx.Client, path: str) -> None:
    for method in ("GET", "TRACE", "POST"):
        answer = api.request(method, path, headers={"X-Request-ID": "mine"})
        assert answer.headers["X-Request-ID"] == "mine"
        for name in SECURITY_HEADERS:
            assert len(answer.headers.get_list(name)) == 1, name
        if not answer.is_success:
            assert answer.json()["request_id"] == "mine"


def test_a_refusal_before_anything_is_read_has_an_id(api: httpx.Client) -> None:
    connection = http.client.HTTPConnection(api.base_url.host, api.base_url.port or 80, timeout=30)
    connection.putrequest("POST", "/product")
    for name, value in (("X-Request-ID", "big"), ("Content-Length", str(10**12))):
        connection.putheader(name, value)
    connection.endheaders()
    refused = connection.getresponse()
    assert (refused.status, json.load(refused)["request_id"], refused.getheader("X-Request-ID")) == (413, "big", "big")
    connection.close()


def test_a_bug_in_a_handler_is_told_to_the_log_alone() -> None:
    app = FastAPI()
    install_problem_handlers(app)
    install_envelope(app)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(SECRET)

    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(Formatter(FORMAT))
    logging.getLogger("tuwen.api.envelope").addHandler(handler)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.get("/broken", headers={"X-Request-ID": "unlucky"})

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["request_id"]) == (500, "unlucky")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert SECRET not in answer.text
    assert "RuntimeError" not in answer.text
    assert f"RuntimeError: {SECRET}" in output.getvalue()
    assert " [unlucky]: " in output.getvalue()

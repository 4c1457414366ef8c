"""`docs/openapi.json` is what this API does, as schemathesis finds it; and no body brings it down, however it is meant.

LONG_TESTS=1 for the long forms.
"""

import os
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from data_models import ENDED
from tests.api import hostile
from tests.conftest import create_product, wait_until_indexed
from tests.processes import ROOT, environment, program_path, running_api, wait_until

LONG = bool(os.environ.get("LONG_TESTS"))
CASES_OF_A_ROUTE, CASES_OF_UNKNOWN = 400 if LONG else 3, 3
HOSTILE = 2000 if LONG else 40
MOST_GROWTH_BYTES = 200 * 1024 * 1024
SEED = 14
LONGEST_LINE = 500  # of what it says: an address of 60 KB hides what was wrong with it
WARM_UP = 20
ALL_SCOPES = ["search", "write", "admin"]
KEYS_OF_CALLERS = [ALL_SCOPES, ["search"], ["write"], ["admin"], [], None] if LONG else [ALL_SCOPES]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    """With the limits that users have."""
    with (
        running_api(tmp_path_factory.mktemp("api"), **tiny_models) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        create_product(client, "红色沙发", sku="FIRST")
        wait_until_indexed(client)
        yield client


def test_hostile_bodies_leave_nothing(service: httpx.Client) -> None:
    def send() -> Iterator[int]:
        for method, path, content_type, content in hostile.bodies(HOSTILE, SEED, everywhere=LONG):
            headers = {"Content-Type": content_type} if content_type else {}
            answer = service.request(method, path, headers=headers, content=content)
            yield answer.status_code
            if answer.status_code == httpx.codes.ACCEPTED:  # what is no picture any more may be a table, of nothing
                wait_until_nothing_is_imported(service, answer)

    assert set(counted(service, send())) <= {202, 400, 404, 413, 415, 422}


def test_hostile_requests_are_not_heard_out(service: httpx.Client) -> None:
    counted(service, (status_of(service, head) for head in hostile.REQUESTS for _ in range(1 + HOSTILE // 400)))


def test_hostile_pictures_leave_nothing(service: httpx.Client) -> None:
    def send() -> Iterator[int]:
        for number, (_, content) in enumerate(hostile.pictures(HOSTILE, SEED)):
            search = {"mode": "image_to_image", "top_k": "1"}
            yield service.post("/search", data=search, files={"image": ("a", content)}).status_code
            if number % 4 == 0:  # which is looked at, and then refused for the one behind it
                files = [("image", ("a.png", content)), ("images", ("b.png", hostile.BROKEN_PICTURE))]
                yield service.post("/product", data={"title": "桌子"}, files=files).status_code

    assert set(counted(service, send())) <= {200, 413, 415, 422}  # some are whole still, and searched by


def test_hostile_tables_leave_nothing(service: httpx.Client) -> None:
    def send() -> Iterator[int]:
        for name, content in hostile.tables(HOSTILE // 4, SEED):
            answer = service.post("/product/import", files={"file": (name, content)})
            yield answer.status_code
            if answer.status_code == httpx.codes.ACCEPTED:
                wait_until_nothing_is_imported(service, answer)

    assert set(counted(service, send())) <= {202, 400, 413, 415, 422}


@pytest.mark.parametrize("scopes", KEYS_OF_CALLERS)
def test_schemathesis_finds_nothing(
    scopes: list[str] | None, tmp_path: Path, tiny_models: dict[str, str], request: pytest.FixtureRequest
) -> None:
    program = shutil.which("st", path=program_path())
    if program is None and not os.environ.get("CI"):
        pytest.skip("schemathesis is missing: make test installs it")
    assert program is not None
    if scopes == ALL_SCOPES:
        client: httpx.Client = request.getfixturevalue("service")
        find_nothing(program, client, scopes, tmp_path)
        return
    with (
        running_api(tmp_path / "data", **tiny_models) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        create_product(client, "红色沙发", sku="FIRST")
        find_nothing(program, client, scopes, tmp_path)


def find_nothing(program: str, client: httpx.Client, scopes: list[str] | None, folder: Path) -> None:
    """`scopes`: of the key that is shown, one that nobody made where there are none; None: nobody needs one."""
    config = (ROOT / "tests/api/schemathesis.toml").read_text("utf-8")
    command = []
    if scopes is None:
        command += ["--exclude-path", "/keys"]  # with the first key, everybody needs one
    else:
        # Its own requests make keys, too, and from the first one on each request needs one.
        made = client.post("/keys", json={"name": "schemathesis", "scopes": scopes or ALL_SCOPES}).json()
        command += ["-H", f"X-API-Key: {made['key'] if scopes else 'tuwen_nobodys'}"]
        if scopes != ALL_SCOPES:  # who may not call a route is told so before anything else
            config = config.replace('"404"', '"401", "403", "404"')
    if LONG:  # a client of thousands of drawings has soon as many under way as one may
        config = config.replace('"404"', '"404", "429"')
    file = folder / "schemathesis.toml"
    file.write_text(config, "utf-8")
    command = [program, "--config-file", str(file), "--no-color", "run", *command]
    # A key that nobody made is looked for once a second, and each answer waits for that.
    cases = CASES_OF_UNKNOWN if scopes == [] else CASES_OF_A_ROUTE
    command += [f"{client.base_url}/openapi.json", "--max-examples", str(cases), "--seed", str(SEED)]
    if not LONG:  # the phase of coverage tries thousands, whatever the number of examples
        command += ["--phases", "examples,fuzzing"]
    run = subprocess.run(
        [*command, "--continue-on-failure"] if LONG else command,
        cwd=folder,
        env=environment(SCHEMATHESIS_HOOKS="tests.api.contract_hooks", PYTHONPATH=ROOT),
        capture_output=True,
        text=True,
        timeout=7200 if LONG else 600,
        check=False,
    )
    said = "\n".join(line[:LONGEST_LINE] for line in run.stdout.splitlines())
    print(said[-3000:])
    assert run.returncode == 0, said[-20_000:] + run.stderr[-2000:]


def counted(service: httpx.Client, statuses: Iterator[int]) -> Counter[int]:
    """No 5xx, nothing stored, little memory."""
    before, process = stored(service), of_api(service)
    answers, memory = Counter[int](), resident_bytes(process)
    for number, status in enumerate(statuses):
        answers[status] += 1
        assert status < httpx.codes.INTERNAL_SERVER_ERROR, f"the {number}th: {status}"
        if number == WARM_UP:
            memory = resident_bytes(process)
    grown = resident_bytes(process) - memory
    print(dict(answers), f"{grown / 1e6:+.0f} MB")
    assert grown < MOST_GROWTH_BYTES
    assert stored(service) == before
    assert service.get("/health/ready").is_success
    return answers


def stored(service: httpx.Client) -> tuple[object, ...]:
    products = service.get("/product/list").json()
    return products["total"], [(item["title"], item["version"], item["image_url"]) for item in products["items"]]


def wait_until_nothing_is_imported(service: httpx.Client, accepted: httpx.Response) -> None:
    job = accepted.json()
    wait_until(partial(has_ended, service, job["status_url"]), what=f"the end of {job['file_name']!r}")


def has_ended(service: httpx.Client, status_url: str) -> bool:
    job = service.get(status_url).json()
    return job["status"] in ENDED and int(job["created"] + job["updated"]) == 0


def of_api(service: httpx.Client) -> psutil.Process:
    port = service.base_url.port
    listening = (each for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.pid is not None)
    return psutil.Process(next(each.pid for each in listening if each.laddr and each.laddr.port == port and each.pid))


def resident_bytes(process: psutil.Process) -> int:
    """Of what decodes pictures, too."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total


def status_of(service: httpx.Client, head: bytes) -> int:
    """0 for a connection that is closed, or kept open, without a word."""
    with socket.create_connection(("127.0.0.1", service.base_url.port or 80), timeout=2) as connection:
        with suppress(OSError):
            connection.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\n" + head)
        with suppress(OSError):
            if answer := re.match(rb"HTTP/1.1 (\d{3}) ", connection.recv(100)):
                return int(answer[1])
    return 0

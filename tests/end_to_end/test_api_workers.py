"""Several processes behind one port, on servers, started as the compose stack starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import create_product, wait_until_indexed
from tests.processes import ROOT, TLS, answers, environment, free_port, program_path, running, wait_until
from tests.servers import new_mysql_database

WORKERS = 2
SEARCHES = 60


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str], mariadb: str, kafka: str, milvus: str
) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """The API's address, the process that supervises its workers, and their folder of heartbeats."""
    folder, port = tmp_path_factory.mktemp("api-workers"), free_port()
    heartbeats = folder / "loops"
    env = environment(
        PATH=program_path(),
        DATA_DIR=folder / "data",
        HEARTBEAT_DIR=heartbeats,
        DATABASE_URL=new_mysql_database(mariadb),
        KAFKA_BOOTSTRAP_SERVERS=kafka,
        KAFKA_TOPIC=f"events-{port}",
        KAFKA_GROUP=f"indexers-{port}",
        KAFKA_IDEMPOTENT_PRODUCER="false",
        MILVUS_URI=milvus,
        API_WORKERS=WORKERS,
        OPEN_TO="127.0.0.0/8",
        RATE_LIMIT_STORAGE="database",
        **tiny_models,
    )
    url = f"http://127.0.0.1:{port}"
    api = [str(ROOT / "deploy" / "entrypoint.sh"), "fastapi", "run", "main.py", "--port", str(port)]
    with (
        running(
            [*api, "--workers", str(WORKERS)],
            folder / "api.log",
            env=env,
            ready=lambda: answers(url + "/health/ready"),
        ) as process,
        running(
            [sys.executable, "worker.py"], folder / "worker.log", env=env | {"HEARTBEAT_DIR": ""}, ready=lambda: True
        ),
    ):
        yield url, process, heartbeats


def workers(supervisor: subprocess.Popen[bytes]) -> set[int]:
    """Those that serve: whoever listens on the port, but for the supervisor that opened it."""
    return {
        child.pid
        for child in psutil.Process(supervisor.pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and any("spawn_main" in word for word in child.cmdline())
    }


def searches_counted(url: str) -> int:
    line = 'tuwen_search_seconds_count{mode="text_to_text",step="total"} '
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:  # a connection of its own: any process's
        shown = [row.removeprefix(line) for row in client.get("/metrics").text.splitlines() if row.startswith(line)]
    return int(float(shown[0])) if shown else 0


def search(url: str) -> int:
    body = {"mode": "text_to_text", "text": "红色沙发"}
    return httpx.post(f"{url}/search", json=body, timeout=30, trust_env=False).status_code


def test_each_process_shows_the_numbers_of_all(stack: tuple[str, subprocess.Popen[bytes], Path]) -> None:
    url, supervisor, heartbeats = stack
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        create_product(client, "红色沙发")
        wait_until_indexed(client, timeout_s=180)  # by a process that has only been started

    def all_beat() -> bool:
        beating = {int(file.name.partition(".")[0]) for file in heartbeats.iterdir()}
        return beating == workers(supervisor) and len(beating) == WORKERS

    def all_are_ready() -> bool:
        with ThreadPoolExecutor(8) as pool:  # side by side, or whichever is ready takes them all
            return all(pool.map(answers, [f"{url}/health/ready"] * 40))

    wait_until(all_beat, what="the second process")
    wait_until(all_are_ready, timeout_s=180, what="both to have loaded their models")
    before = searches_counted(url)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(search, [url] * SEARCHES)) == {200}
    assert {searches_counted(url) - before for _ in range(20)} == {SEARCHES}


def test_a_revoked_key_is_out_in_each_process_within_five_seconds(
    stack: tuple[str, subprocess.Popen[bytes], Path],
) -> None:
    url, _, _ = stack
    made = httpx.post(f"{url}/keys", json={"name": "till", "scopes": ["search"]}, trust_env=False).json()

    def read(_: object) -> int:  # by a connection of its own: any process's
        headers = {"X-API-Key": made["key"]}
        return httpx.get(f"{url}/product/list", headers=headers, timeout=30, trust_env=False).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(40))) == {200}  # from its first request on
        assert httpx.delete(f"{url}/keys/till", trust_env=False).status_code == 204
        out_at = time.monotonic() + 5
        while time.monotonic() < out_at and set(pool.map(read, range(16))) != {401}:
            pass
        assert set(pool.map(read, range(40))) == {401}


def test_limits_hold_for_all_processes_together(stack: tuple[str, subprocess.Popen[bytes], Path]) -> None:
    url, _, _ = stack
    limit = 200
    wanted = {"name": "front-end", "scopes": ["search"], "rate_limits": f"search={limit}/day"}
    key = httpx.post(f"{url}/keys", json=wanted, trust_env=False).json()["key"]

    def read(_: object) -> httpx.Response:  # by a connection of its own: any process's
        return httpx.get(f"{url}/product/list", headers={"X-API-Key": key}, timeout=30, trust_env=False, verify=TLS)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(read, range(limit + 50)))
    let_through = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert 0.9 * limit <= let_through <= limit


def test_a_killed_process_is_replaced_and_nothing_is_lost(
    stack: tuple[str, subprocess.Popen[bytes], Path],
) -> None:
    url, supervisor, heartbeats = stack
    old = workers(supervisor)
    victim = min(old)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(workers(supervisor)) == WORKERS and victim not in workers(supervisor), timeout_s=60,
               what="another process in its place")  # fmt: skip
    wait_until(
        lambda: {int(file.name.partition(".")[0]) for file in heartbeats.iterdir()} == workers(supervisor),
        timeout_s=60,
        what="the loops of the new process",
    )
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        for number in range(20):
            create_product(client, f"沙发 {number}")
        wait_until_indexed(client, timeout_s=60)
        health = client.get("/health").json()
        assert health["status"] == "ok", json.dumps(health, ensure_ascii=False)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 0

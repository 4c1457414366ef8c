"""`cli.py reindex` as an operator runs it: what goes on without it, what may be said twice, what is refused."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import sqlalchemy as sa

from clients import jobs
from clients.catalogue_import import CatalogueError, open_client
from orm_models import ProcessRow, utc_now
from tests.conftest import create_product, picture, wait_until_indexed
from tests.demo.test_demo_command import run_cli
from tests.processes import ROOT, answers, environment, free_port, running, running_api, running_api_process, stop
from tests.tiny_models import save_tiny_chinese_clip
from tuwen.background import LEASE_TIME
from tuwen.database.engine import Database

WORKER = "a" * 32


@pytest.fixture
def second_models(tmp_path: Path, tiny_models: dict[str, str]) -> dict[str, str]:
    clip_model = save_tiny_chinese_clip(tmp_path / "clip-2", seed=7, dim=24)
    return {"clip_model": str(clip_model), "text_model": tiny_models["TEXT_MODEL"]}


@contextmanager
def filled_api(folder: Path, products: int, **settings: str) -> Iterator[httpx.Client]:
    with (
        running_api(folder, **settings) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        for number in range(products):
            create_product(client, f"红色沙发 {number}", picture("red", (64, 32 + number)))
        wait_until_indexed(client, timeout_s=120)
        yield client


@contextmanager
def a_worker_without_models(folder: Path) -> Iterator[None]:
    """For which a switch waits: a job that does not end meanwhile."""
    now = utc_now()
    row = ProcessRow(
        process_id=WORKER, kind="worker", name="w", started_at=now, seen_at=now + timedelta(hours=1), state={}
    )
    database = Database(f"sqlite:///{folder / 'data' / 'tuwen.db'}")
    with database.write() as session:
        session.add(row)
    database.close()
    yield
    forget_that_worker(folder)


def forget_that_worker(folder: Path) -> None:
    database = Database(f"sqlite:///{folder / 'data' / 'tuwen.db'}")
    with database.write() as session:
        session.execute(sa.delete(ProcessRow).where(ProcessRow.process_id == WORKER))
    database.close()


@contextmanager
def load_balancer_without_a_service(port: int | None) -> Iterator[threading.Event]:
    """503 to whoever asks; the event is set once it was asked twice."""
    asked, times = threading.Event(), list[str]()

    class Away(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            times.append(self.path)
            if len(times) > 1:
                asked.set()
            self.send_error(503)

        def log_message(self, *arguments: Any) -> None:
            """No lines among the test's."""

    with HTTPServer(("127.0.0.1", port or 0), Away) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield asked
        server.shutdown()
        thread.join()


def options(models: dict[str, str]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in models.items()]


@contextmanager
def reindex_under_way(url: str, models: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command, and the job that it said it began."""
    command = [sys.executable, "cli.py", "reindex", *options(models), "--api-url", url]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert first.startswith("Job "), first
        yield process, httpx.get(first.split()[-1], trust_env=False).raise_for_status().json()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--clip-model=/models/clip --drop-retired --no-switch", "--drop-retired stands alone, without --clip-model,"),
        ("--margin=0.02 --rollback", "--rollback stands alone, without --margin."),
        ("--queries=file --cancel=1", "--cancel stands alone, without --queries."),
        ("--drop-retired --rollback", "stands alone, without --"),
        ("--drop-retired --to=products_x", "stands alone, without --to."),
        ("--to=products_x", "--to goes with --rollback."),
        ("--clip-model=/models/clip", "Name both models"),
        ("", "Name both models"),
    ],
)
def test_a_line_that_contradicts_itself_is_refused_before_anything_is_asked(line: str, complaint: str) -> None:
    result = run_cli("reindex", *line.split(), API_URL=f"http://127.0.0.1:{free_port()}", COLUMNS="200")
    assert (result.returncode, result.stdout) == (2, "")
    assert complaint in result.stderr


def test_what_is_said_twice_counts_once_and_names_what_can_be_set(
    tmp_path: Path, tiny_models: dict[str, str], second_models: dict[str, str]
) -> None:
    with filled_api(tmp_path, 3, **tiny_models) as client:
        before = client.get("/health").json()["index"]["collection"]
        url = str(client.base_url)
        changed = run_cli("reindex", *options(second_models), API_URL=url)
        assert changed.returncode == 0, changed.stderr
        assert f"\n  CLIP_MODEL={second_models['clip_model']}\n" in changed.stdout
        after = client.get("/health").json()["index"]["collection"]
        assert client.post("/reindex/rollback").raise_for_status().json()["collection"] == before  # as before, no body
        for _ in range(2):
            rolled_back = run_cli("reindex", "--rollback", API_URL=url)
            assert rolled_back.returncode == 0, rolled_back.stderr
            lines = rolled_back.stdout.splitlines()
            assert lines[0].startswith(f"{before} answers, since 20"), lines
            assert f"  CLIP_MODEL={tiny_models['CLIP_MODEL']}" in lines
            assert f"  TEXT_MODEL={tiny_models['TEXT_MODEL']}" in lines
            assert lines[-1].endswith(f"--rollback --to {after}")
        for _ in range(2):
            forth = run_cli("reindex", "--rollback", "--to", after, API_URL=url)
            assert forth.stdout.startswith(f"{after} answers"), forth
        unknown = client.post("/reindex/rollback", json={"collection": "products_x"})
        assert (unknown.status_code, "no index products_x" in unknown.json()["detail"]) == (409, True)
        assert run_cli("reindex", "--drop-retired", API_URL=url).stdout.strip() == f"Dropped: {before}."


def test_ctrl_c_ends_the_command_which_finds_its_job_again_or_gives_it_up(
    tmp_path: Path, tiny_models: dict[str, str], second_models: dict[str, str]
) -> None:
    with filled_api(tmp_path, 1, **tiny_models) as client, a_worker_without_models(tmp_path):
        url = str(client.base_url)
        with reindex_under_way(url, second_models) as (process, job):
            process.send_signal(signal.SIGINT)
            said, complained = process.communicate(timeout=30)
            assert process.returncode == 130, complained
            assert f"Job {job['job_id']} goes on" in said
            assert f"{url.rstrip('/')}{job['status_url']}" in said
        other = run_cli("reindex", *options(second_models), "--no-switch", API_URL=url)
        assert (other.returncode, f"Reindex job {job['job_id']} is under way" in other.stderr) == (1, True)
        with reindex_under_way(url, second_models) as (process, again):
            assert again["job_id"] == job["job_id"]
            cancelled = run_cli("reindex", "--cancel", str(job["job_id"]), API_URL=url)
            assert (cancelled.returncode, f"Job {job['job_id']} is cancelled" in cancelled.stdout) == (0, True)
            _, complained = process.communicate(timeout=30)
            assert (process.returncode, f"Job {job['job_id']} cancelled" in complained) == (1, True)
        too_late = run_cli("reindex", "--cancel", "99", API_URL=url)
        assert (too_late.returncode, "no reindex job 99" in too_late.stderr) == (1, True)


@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="a killed service's lease runs out: make test-long")
def test_the_command_outlives_a_restart_of_the_service(
    tmp_path: Path, tiny_models: dict[str, str], second_models: dict[str, str]
) -> None:
    with running_api_process(tmp_path, **tiny_models) as (url, api):
        command = cast(list[str], api.args)
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            create_product(client, "红色沙发")
            wait_until_indexed(client)
        port = httpx.URL(url).port
        with a_worker_without_models(tmp_path), reindex_under_way(url, second_models) as (process, job):
            stop(api)
            with load_balancer_without_a_service(port) as asked:
                assert asked.wait(30), "the command asks on"
            env = environment(DATA_DIR=tmp_path / "data", API_PORT=port, **tiny_models)
            with running(command, tmp_path / "api.log", env=env, ready=lambda: answers(f"{url}/health")):
                forget_that_worker(tmp_path)
                # A service that was busy when it was stopped is killed, and its lease runs out after two minutes.
                said, complained = process.communicate(timeout=LEASE_TIME.total_seconds() + 120)
                assert process.returncode == 0, complained
    assert said.count("Waiting up to 300 s for the service") == 1
    assert f"job {job['job_id']} is not lost" in said
    assert "answers now" in said


def test_a_service_that_stays_away_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "AWAY_S", 0.0)
    job, said = {"job_id": 7, "status": "running", "status_url": "/reindex/7"}, list[str]()
    with (
        open_client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(CatalogueError, match="Job 7 goes on with the service: the same command follows it"),
    ):
        jobs.follow(client, job, lambda _: None, said.append)
    assert len(said) == 1

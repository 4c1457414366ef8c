"""The service as its users start it, in an environment of its own, for as long as a benchmark needs it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.results import MIB
from clients.catalogue_import import CatalogueItem, load_catalogue, open_client, read_catalogue, wait_until_indexed
from tuwen.settings import PROJECT_ROOT, Settings

CATALOGUE = PROJECT_ROOT / "demo" / "catalogue.jsonl"
# Exports of the same models serve all runs, as they serve all processes of a machine.
EXPORTS = PROJECT_ROOT / ".work" / "encoders"
START_TIMEOUT_S = 900.0  # large models are converted first
STOP_TIMEOUT_S = 20.0
POLL_S = 0.02
# What asks again and again must not read the authorities of TLS each time, which takes a core from what starts.
WITHOUT_TLS = False


@dataclass(frozen=True)
class Service:
    url: str
    process: subprocess.Popen[bytes]

    def memory(self) -> dict[str, float]:
        """In MiB: resident of it and of each child; and in all, what they share counted once."""
        family = _family(self.process.pid)
        each = {f"{_name(process)}_mib": process.memory_info().rss / MIB for process in family}
        return each | {"in_all_mib": sum(map(_share_of, family)) / MIB}


def environment(**settings: object) -> dict[str, str]:
    """This process's without any setting of ours, and then these. No .env is read."""
    ours = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    kept |= {"TUWEN_ENV_FILE": "", "NO_PROXY": "*", "PYTHONUNBUFFERED": "1", "ENCODER_CACHE_DIR": str(EXPORTS)}
    return kept | {name.upper(): str(value) for name, value in settings.items()}


def settings_of(folder: Path, **settings: object) -> Settings:
    """What the service in this folder has, for what a benchmark does with its stores."""
    values = {"data_dir": folder / "data", "encoder_cache_dir": EXPORTS} | settings
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


@contextmanager
def running_service(folder: Path, **settings: object) -> Iterator[Service]:
    """On a free port, with its data and its log in `folder`, once it is ready."""
    with started_service(folder, **settings) as service:
        wait_for(lambda: answers(f"{service.url}/health/ready"), service.process, folder / "api.log")
        yield service


@contextmanager
def started_service(folder: Path, **settings: object) -> Iterator[Service]:
    """The same, the moment that it is started."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [str(Path(sys.executable).with_name("fastapi")), "run", "main.py", "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    # Reconciliation would look for pictures that synthetic products don't have.
    ours: dict[str, object] = {"data_dir": folder / "data", "api_port": port, "reconcile_interval_s": 0}
    with running(command, folder / "api.log", environment(**(ours | settings))) as process:
        yield Service(f"http://127.0.0.1:{port}", process)


@contextmanager
def running(command: list[str], log: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=dict(env), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"It did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
        time.sleep(POLL_S)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False, verify=WITHOUT_TLS).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def demo_items(count: int | None = None) -> list[CatalogueItem]:
    return read_catalogue(CATALOGUE)[:count]


def load(url: str, items: list[CatalogueItem]) -> None:
    """Through the API, until all of it is searchable."""
    with open_client(url) as client:
        load_catalogue(client, items, lambda _: None)
        indexed = wait_until_indexed(client, lambda _: None)
    if indexed < len(items):
        sys.exit(f"Of {len(items)} products {indexed} were indexed.")


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        sys.exit("This needs wrk: apt-get install wrk, or brew install wrk.")


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _share_of(process: psutil.Process) -> int:
    """Its proportional set size, where the system knows that (Linux)."""
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    return words[words.index("-m") + 1].rpartition(".")[2] if "-m" in words else "api"

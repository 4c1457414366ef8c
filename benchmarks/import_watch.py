"""A service that imports files, the one after a kill, and the most memory that any of them has taken."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import results, services
from clients.file_import import begin_import

POLL_S = 0.2
VECTORS = "tuwen_index_vectors_total"
Job = dict[str, Any]


class Watch:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._over = threading.Event()
        self.peak_bytes = 0

    def __enter__(self) -> "Watch":
        self._start()
        threading.Thread(target=self._measure, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._stack.close()

    def _start(self) -> None:
        self._service = self._stack.enter_context(services.running_service(self._folder))
        self.client = self._stack.enter_context(httpx.Client(base_url=self._service.url, timeout=300, trust_env=False))

    def _measure(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                self.peak_bytes = max(self.peak_bytes, int(self._service.memory()["in_all_mib"] * results.MIB))
            except (psutil.Error, OSError):  # killed a moment ago
                continue

    @property
    def peak_mib(self) -> float:
        return round(self.peak_bytes / results.MIB, 1)

    def import_file(self, file: Path, kills: int = 0, on_poll: Callable[[Job], None] = lambda _: None) -> Job:
        """The job as it ended."""
        job: Job = begin_import(self.client, file, "upsert", lambda _: None)
        killed_at = [(number + 1) / (kills + 1) for number in range(kills)]
        while job["status"] not in ("done", "failed", "cancelled"):
            if killed_at and job["progress"] >= killed_at[0]:
                killed_at.pop(0)
                self._kill()
            time.sleep(POLL_S)
            job = self.client.get(job["status_url"]).raise_for_status().json()
            on_poll(job)
        if killed_at:
            sys.exit(f"Killed {kills - len(killed_at)} times of {kills}: too few rows.")
        return job

    def _kill(self) -> None:
        for process in [*psutil.Process(self._service.process.pid).children(recursive=True)]:
            process.kill()
        self._service.process.kill()
        self._service.process.wait()
        self._start()

    def encoded(self) -> float:
        """Vectors that this process has had made."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(VECTORS) and "encoded" in line)


def require(job: Job, **counts: int) -> None:
    """Those that are not named are zero."""
    wanted = {"created": 0, "updated": 0, "unchanged": 0, "failed": 0} | counts
    found = {name: job[name] for name in wanted}
    if job["status"] != "done" or found != wanted:
        sys.exit(f"Wanted {wanted}, got {found}: {job}")


def rows_per_s(job: Job) -> float:
    """From its beginning to its end, with kills and the waits behind them."""
    began, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return round(float(job["rows"]) / (ended - began).total_seconds(), 1)

"""A Milvus that hangs or is gone: every call has its deadline, and those behind it don't add theirs."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_vector_db import DIM, row
from tests.processes import freeze, wait_until
from tests.promises import require_in_time
from tests.servers import running_milvus_process
from tuwen.errors import VectorDBUnavailable
from tuwen.settings import Settings
from vector_db import VectorDB

TIMEOUT_S = 1.0
MARGIN_S = 1.5  # what a busy machine adds; one deadline after another would be three of them
CALLERS = 12

CALLS: dict[str, Callable[[VectorDB], Any]] = {
    "check": lambda db: db.check(),
    "has_collection": lambda db: db.has_collection("products"),
    "insert": lambda db: db.insert("products", [row(0)]),
    "delete": lambda db: db.delete("products", [1], [0]),
    "search": lambda db: db.search("products", "image_clip_vector", [row(0).image_clip_vector], limit=3),
    "existing_rows": lambda db: db.existing_rows("products", [1]),
    "iterate_rows": lambda db: list(db.iterate_rows("products")),
}


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    freeze(pid)
    stopped = Path(f"/proc/{pid}/stat")
    wait_until(lambda: stopped.read_text().rpartition(")")[2].split()[0] == "T", what="all its threads to stand")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def seconds_until_refused(db: VectorDB, call: Callable[[VectorDB], Any]) -> float:
    started = time.monotonic()
    with pytest.raises(VectorDBUnavailable, match="MILVUS_URI"):
        call(db)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """With a collection and a row in it."""
    with running_milvus_process(tmp_path_factory.mktemp("frozen")) as (address, process):
        db = VectorDB(Settings(_env_file=None, milvus_uri=address))  # its first insert loads a dictionary, for seconds
        db.create_collection("products", clip_dim=DIM, text_dim=DIM)
        db.insert("products", [row(0)])
        db.close()
        yield address, process.pid


def connect(address: str) -> VectorDB:
    return VectorDB(Settings(_env_file=None, milvus_uri=address, milvus_timeout_s=TIMEOUT_S))


@pytest.mark.parametrize("name", CALLS)
def test_every_call_gives_up_in_time_and_works_again_afterwards(server: tuple[str, int], name: str) -> None:
    address, pid = server
    db = connect(address)
    CALLS[name](db)
    with frozen(pid):
        require_in_time(seconds_until_refused(db, CALLS[name]), TIMEOUT_S + MARGIN_S)
    wait_until(lambda: works(db, CALLS[name]), timeout_s=30, what="Milvus to answer again")
    db.close()


def works(db: VectorDB, call: Callable[[VectorDB], Any]) -> bool:
    try:
        call(db)
    except VectorDBUnavailable:
        return False
    return True


@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "connecting"])
def test_those_behind_a_hanging_call_do_not_wait_out_one_deadline_after_another(
    server: tuple[str, int], is_connected: bool
) -> None:
    address, pid = server
    db = connect(address)
    if is_connected:
        db.check()
    with frozen(pid), ThreadPoolExecutor(3) as pool:  # fewer threads than callers: they queue
        started = time.monotonic()
        waits = [pool.submit(seconds_until_refused, db, CALLS["search"]) for _ in range(CALLERS)]
        require_in_time(max(wait.result() for wait in waits), TIMEOUT_S + MARGIN_S)
        require_in_time(time.monotonic() - started, 3 * (TIMEOUT_S + MARGIN_S))
    wait_until(lambda: works(db, CALLS["search"]), timeout_s=30, what="Milvus to answer again")
    db.close()


def test_a_server_that_is_gone_is_looked_for_every_second(tmp_path: Path) -> None:
    """gRPC by itself pauses longer after each failure, up to two minutes, and refuses every call meanwhile."""
    attempts: list[float] = []
    with running_milvus_process(tmp_path) as (address, process):
        db = connect(address)
        db.check()
        process.kill()
        process.wait()
        with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))) as in_its_place:
            in_its_place.settimeout(0.1)
            deadline = time.monotonic() + 7
            with ThreadPoolExecutor(1) as pool:
                caller = pool.submit(call_until, db, deadline)
                while time.monotonic() < deadline:
                    with suppress(TimeoutError):
                        in_its_place.accept()[0].close()
                        attempts.append(time.monotonic())
                caller.result()
        db.close()
    pauses = [later - earlier for earlier, later in pairwise([*attempts, deadline])]
    require_in_time(max(pauses), 2)


def call_until(db: VectorDB, deadline: float) -> None:
    while time.monotonic() < deadline:
        with suppress(VectorDBUnavailable):
            db.check()

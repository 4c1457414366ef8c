"""Milvus Lite in a process of its own: it is Python, and inside the service its searches would hold up all requests.

The child's life is a pipe from its parent: at the pipe's end it closes its files, also after a kill -9 of the parent.
"""

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, TextIO

from tuwen.cores import (
    available_cores,
    hand_over_soon,
    keep_what_is_loaded,
    started_ordinarily,
    thread_variables,
)

ROOT = Path(__file__).parents[1]
DURABLE = "--durable"
START_S = 120.0  # for each sign of life: to open what there is takes the longer, the more there is
GOES_ON = {"goes_on": True}
STOP_S = 15.0
# A service that was killed and starts again finds the child of its former life still closing its files.
LOCK_PATIENCE_S = 10.0
LOCK_POLL_S = 0.1
GRACE_S = 2.0
# Milvus Lite keeps written rows as they came until they are so many, and after each write they are put together anew
# for whoever searches. With its default of 128 MiB these are 20,000 of 512 dimensions; with this, 1,300.
MEMTABLE_BYTES = 8 * 1024 * 1024


class LiteRefused(Exception):
    """What Milvus Lite said when it was given its file."""


class LiteLocked(Exception):
    """Another process has the file."""


class LiteSilent(Exception):
    """The child ended before it said anything of its file."""


class LiteProcess:
    """At most one child for one file. `VectorDB` starts and stops it under a lock; anyone may ask whether it runs."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path.resolve()  # a relative one is meant from the folder that the service was started in
        self._durable = durable
        self.address = ""
        self._child: subprocess.Popen[str] | None = None

    @property
    def is_running(self) -> bool:
        child = self._child
        return child is not None and child.poll() is None

    def start(self) -> None:
        """`address` is where it listens then. Raises LiteRefused, LiteLocked or LiteSilent."""
        self.stop()
        command = [sys.executable, "-P", "-m", __name__, str(self.path), *([DURABLE] if self._durable else [])]
        pipe = subprocess.PIPE
        start = partial(subprocess.Popen[str], command, stdin=pipe, stdout=pipe, text=True, env=_environment())
        try:
            child = started_ordinarily(start)  # whoever finds it ended starts it, the index's threads, too
        except (OSError, RuntimeError) as error:  # no memory, or no process or thread more
            raise LiteSilent(f"could not be started: {error}") from error
        self._child = child
        answer = _answer_of(child)
        if "port" in answer:
            self.address = f"http://127.0.0.1:{answer['port']}"
            return
        self.stop()
        if not answer:
            raise LiteSilent(f"ended with {child.returncode}")
        raise LiteLocked if answer.get("is_locked") else LiteRefused(answer["error"])

    def stop(self) -> None:
        """Its files are closed then."""
        if self._child is None:
            return
        with self._child as child:  # closes the pipes, and waits
            assert child.stdin is not None, "it is a pipe"
            child.stdin.close()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
        self._child = None


def _answer_of(child: subprocess.Popen[str]) -> dict[str, Any]:
    """What it said of its file; nothing, if it ended or was silent for too long. Meanwhile it says that it goes on."""
    assert child.stdout is not None, "it is a pipe"
    answer: dict[str, Any] = GOES_ON
    while answer == GOES_ON:
        too_late = threading.Timer(START_S, child.kill)
        too_late.start()
        try:
            said = child.stdout.readline()
        finally:
            too_late.cancel()
        answer = json.loads(said) if said else {}
    return answer


def _environment() -> dict[str, str]:
    return {
        "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": str(MEMTABLE_BYTES),
        **os.environ,
        # numpy's, half of the cores: the models compute on them, too.
        **thread_variables(max(1, available_cores() // 2), {}),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "MILVUS_URI": "",  # pymilvus reads it when it is imported, and refuses a file's path
    }


def serve(path: str, *, durable: bool) -> None:
    """The child: until the pipe's end."""
    hand_over_soon()
    is_open = threading.Event()
    parent = _watch_parent(is_open)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a terminal and systemd send it to all; the parent says when
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is none
    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)  # Lite lacks a call that iterators try first
    _leave_out_pandas()
    # Slow to import, and the parent needs none of it.
    import jieba  # noqa: PLC0415

    from tuwen import lite_search, lite_storage  # noqa: PLC0415

    lite_search.install()
    lite_storage.install(durable=durable)
    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()  # else the first insert would wait seconds for the dictionary
    try:
        server, db, port = _open_once_free(path)
    except LiteLocked:
        _say(answer, is_locked=True)
        return
    except Exception as error:  # whatever a damaged file makes of it
        _say(answer, error=str(error) or type(error).__name__)
        return
    lite_storage.open_all(db, is_alive=partial(_say, answer, **GOES_ON))
    keep_what_is_loaded()
    is_open.set()
    _say(answer, port=port)
    parent.join()
    too_long = threading.Timer(STOP_S, os._exit, [1])  # whoever comes next needs the file
    too_long.daemon = True
    too_long.start()
    server.stop(GRACE_S).wait(GRACE_S)
    db.close()


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("It is left out here.", name=fullname)


def _leave_out_pandas() -> None:
    """80 MiB, and most of a start's time: pymilvus's client would load it, of which Milvus Lite needs the messages
    alone, and pyarrow, to see whether it is given any of its tables. Nobody else's code runs in this process."""
    sys.meta_path.insert(0, _NoPandas())
    found = importlib.util.find_spec("pymilvus")
    assert found is not None, "the parent has imported it"
    sys.modules["pymilvus"] = importlib.util.module_from_spec(found)  # its folder, without what it does at first


def _watch_parent(is_open: threading.Event) -> threading.Thread:
    """Ends at the pipe's end; and with the process, while that opens its file: whoever comes next needs it soon."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        if not is_open.is_set():
            os._exit(1)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    return watching


def _open_once_free(path: str) -> tuple[Any, Any, int]:
    """The server, its database, and the port. Raises LiteLocked."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread  # noqa: PLC0415
    from milvus_lite.exceptions import DataDirLockedError  # noqa: PLC0415

    patient_until, is_told = time.monotonic() + LOCK_PATIENCE_S, False
    while True:
        try:
            return start_server_in_thread(path)  # type: ignore[no-any-return]
        except DataDirLockedError as error:
            if time.monotonic() > patient_until:
                raise LiteLocked from error
            if not is_told:
                print(f"{path} is in another process's hands; waiting {LOCK_PATIENCE_S:.0f} s", file=sys.stderr)
                is_told = True
            time.sleep(LOCK_POLL_S)


def _say(answer: TextIO, **what: object) -> None:
    print(json.dumps(what), file=answer, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], durable=DURABLE in sys.argv[2:])

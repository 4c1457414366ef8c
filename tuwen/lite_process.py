"""Milvus Lite in a process of its own: it is Python, and inside the service its searches would hold up all requests.

The child's life is a pipe from its parent: at the pipe's end it closes its files, also after a kill -9 of the parent.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_S = 120.0
STOP_S = 15.0
# A service that was killed and starts again finds the child of its former life still closing its files.
LOCK_PATIENCE_S = 10.0
LOCK_POLL_S = 0.1
GRACE_S = 2.0
# Milvus Lite scans rows that are not in an indexed segment yet one by one in Python. With its default of 128 MiB, 4,000
# rows of 512 dimensions take 750 ms a search; with this, 20 ms.
MEMTABLE_BYTES = 512 * 1024


class LiteUnusable(Exception):
    """What Milvus Lite said when it was given its file."""


class LiteLocked(LiteUnusable):
    """Another process has the file."""


@dataclass
class LiteProcess:
    """At most one child for one file. Not thread-safe: `VectorDB` starts it under a lock."""

    path: Path
    _child: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> str:
        """The address where it listens. Raises LiteUnusable or LiteLocked."""
        self.stop()
        child = self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=_environment(),
        )
        assert child.stdout is not None, "it is a pipe"
        too_late = threading.Timer(START_S, child.kill)
        too_late.start()
        try:
            said = child.stdout.readline()
        finally:
            too_late.cancel()
        answer = json.loads(said) if said else {}
        if "port" in answer:
            return f"http://127.0.0.1:{answer['port']}"
        self.stop()
        reason = answer.get("error", f"its process ended with {child.returncode}")
        raise LiteLocked(reason) if answer.get("locked") else LiteUnusable(reason)

    def stop(self) -> None:
        """Its files are closed then."""
        if self._child is None:
            return
        with self._child as child:  # closes the pipe, and waits
            assert child.stdin is not None, "it is a pipe"
            child.stdin.close()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
        self._child = None


def _environment() -> dict[str, str]:
    return {
        "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": str(MEMTABLE_BYTES),
        "OMP_WAIT_POLICY": "PASSIVE",  # FAISS's threads would spin for the cores that the models compute on
        **os.environ,
        "MILVUS_URI": "",  # pymilvus reads it when it is imported, and refuses a file's path
    }


def serve(path: str) -> None:
    """The child: until the pipe's end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and systemd send it to all; the parent says when
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)  # Lite lacks a call that iterators try first
    # Slow to import, and the parent needs none of it.
    import jieba  # noqa: PLC0415
    from milvus_lite.adapter.grpc.server import start_server_in_thread  # noqa: PLC0415
    from milvus_lite.exceptions import DataDirLockedError  # noqa: PLC0415

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()  # else the first insert would wait seconds for the dictionary
    patient_until = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            server, db, port = start_server_in_thread(path)
            break
        except DataDirLockedError as error:
            if time.monotonic() > patient_until:
                _say(error=str(error), locked=True)
                return
            time.sleep(LOCK_POLL_S)
        except Exception as error:  # whatever a damaged file makes of it
            _say(error=str(error) or type(error).__name__)
            return
    _say(port=port)
    os.dup2(2, 1)  # nobody reads on
    sys.stdin.read()
    server.stop(GRACE_S).wait(GRACE_S)
    db.close()


def _say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])

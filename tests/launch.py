"""Starts a Python program as a process of its own, from one that has loaded the large libraries already.

A run kills and starts programs hundreds of times, and loading torch and its kin takes each seconds of a CPU. Only the
libraries are loaded before: the program itself runs from its first line, with the environment that it is given.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = [
    "aiokafka",
    "alembic.command",
    "diffusers",
    "faiss",
    "fastapi.testclient",
    "pandas",
    "pymilvus",
    "s3fs",
    "sentence_transformers",
    "sqlalchemy.orm",
    "torch",
    "transformers.models.bert.modeling_bert",
    "transformers.models.chinese_clip.modeling_chinese_clip",
    "uvicorn",
]


class Program:
    """As `subprocess.Popen` would have it."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        """`command`: a Python script and its arguments, or `-m` and a module."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        self._process: ForkServerProcess = context.Process(target=_run, args=(command, env, str(log)))
        self._process.start()
        assert self._process.pid is not None, "it is started"
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _run(command: list[str], env: dict[str, str], log: str) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    sys.path[0:0] = [str(ROOT)]
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")

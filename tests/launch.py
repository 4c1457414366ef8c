"""Starts a Python program as a process of its own, from one that has loaded the large libraries already.

A run kills and starts programs hundreds of times, and loading torch and its kin takes each seconds of a CPU. Only the
libraries are loaded before: the program itself runs from its first line, with the environment that it is given.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = [
    "aiokafka",
    "alembic.command",
    "diffusers",
    "faiss",
    "fastapi.testclient",
    "fastapi_cli.cli",
    "limits.strategies",
    "openpyxl",
    "openvino",
    "pandas",
    "prometheus_client",
    "pydantic_settings",
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

    def __init__(self, command: list[str], env: dict[str, str], log: Path, errors: Path | None = None) -> None:
        """`command`: a Python script and its arguments, or `-m` and a module. `errors`: stderr's, if not the log."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        output = str(log), str(errors or log)
        self._process: ForkServerProcess = context.Process(target=_run, args=(command, env, *output))
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


def run_to_its_end(command: list[str], env: dict[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with `capture_output` and `text`."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "output", Path(folder) / "errors"
        program = Program(command, env, output, errors)
        try:
            status = program.wait(timeout_s)
        finally:
            program.kill()
            program.wait()
        return subprocess.CompletedProcess(
            command, status, output.read_text(encoding="utf-8"), errors.read_text(encoding="utf-8")
        )


def _run(command: list[str], env: dict[str, str], log: str, errors: str) -> None:
    gc.freeze()  # what is loaded already is neither looked through again nor copied for it
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, log), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    sys.path[0:0] = [str(ROOT)]
    status: int | str | None = None
    try:
        _run_as_main(command)
    except SystemExit as end:  # and with it go the frames that hold files and connections open, as at a process's end
        status = end.code
    gc.collect()
    sys.exit(status)


def _run_as_main(command: list[str]) -> None:
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")

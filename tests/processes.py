"""Starts our own programs and the servers they need as real processes, waits until they answer, and stops them."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.launch import Program
from tests.secrecy import command_lines_of, require_secrecy
from tuwen.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
# Converted once for all tests, as they are once for all processes of a machine.
EXPORTS = ROOT / ".work" / "encoders"
START_TIMEOUT_S = 180.0
# What asks again and again must not read the authorities of TLS each time, which takes 20 ms of a core.
TLS = ssl.create_default_context()
# Between two looks: a share of what it has taken, so that who waits takes no core from what is waited for.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_SHARE = 0.02, 0.1, 0.05
# What decides how our programs run: all settings, and where the hubs' clients look.
DECISIVE = {name.upper() for name in Settings.model_fields} | {"TUWEN_ENV_FILE", "RESTART_PAUSE_S"}


def listening_addresses(port: int) -> set[str]:
    connections = psutil.net_connections("tcp")
    return {each.laddr.ip for each in connections if each.status == "LISTEN" and each.laddr and each.laddr.port == port}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def freeze(pid: int) -> None:
    """Until all of its threads stand still: on a busy machine one of them may answer a request meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")

    def is_frozen() -> bool:
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in threads.glob("*/stat"))

    wait_until(is_frozen, timeout_s=10, what="the process to stand still")


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 60.0, what: str) -> None:
    started = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started
        if waited_s > timeout_s:
            pytest.fail(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(min(max(SHORTEST_PAUSE_S, PAUSE_SHARE * waited_s), LONGEST_PAUSE_S))


def processor_seconds(module: str) -> float:
    """What the processes that run this module (`python -m`), below this one, have taken of the processor so far.

    For promises of what work takes: on a busy machine it waits for its turns, too, and that says nothing of it.
    """
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if module in process.cmdline():
                times = process.cpu_times()
                total += times.user + times.system
    return total


def require_program(*names: str) -> str:
    """The first of these that is on PATH. A missing one skips on a laptop and fails in CI."""
    for name in names:
        if found := shutil.which(name):
            return found
    message = f"needs {' or '.join(names)} on PATH; .ci/run says how to install it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def program_path() -> str:
    """PATH with this environment's programs first, as `python`, `fastapi` and `streamlit` are found in a container."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def environment(**settings: object) -> dict[str, str]:
    """This process's environment without any setting of ours, and then these settings. No .env is read."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODELSCOPE_"))}
    kept = {name: value for name, value in foreign.items() if name not in DECISIVE}
    ours = {"ENCODER_CACHE_DIR": str(EXPORTS)}
    ours |= {"NO_PROXY": "*", "PYTHONUNBUFFERED": "1", "TUWEN_ENV_FILE": ""}
    return kept | ours | {name: str(value) for name, value in settings.items()}


@contextmanager
def running(
    command: list[str], log: Path, *, env: Mapping[str, str], ready: Callable[[], bool], cwd: str = str(ROOT)
) -> Iterator[subprocess.Popen[bytes]]:
    """The process once `ready` is true; ended by SIGTERM, and by SIGKILL if that does not help."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(env), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    with _ready_then_stopped(process, command, log, env, ready):
        yield process


@contextmanager
def _ready_then_stopped(
    process: subprocess.Popen[bytes] | Program,
    command: list[str],
    log: Path,
    env: Mapping[str, str],
    ready: Callable[[], bool],
) -> Iterator[None]:
    command_lines: list[str] = []
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command} did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        yield
    finally:
        command_lines += command_lines_of(process.pid)
        stop(process)
    require_secrecy(env, log, command_lines)


def stop(process: subprocess.Popen[bytes] | Program) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False, verify=TLS).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def running_api(
    folder: Path, *, ready_path: str = "/health", cwd: str = str(ROOT), **settings: object
) -> Iterator[str]:
    """The API on a free port with its data in `folder`; yields its base URL.

    It starts from libraries that are loaded already, which takes a fifth of the time; `running_api_process` starts it
    as its users do. `/health` answers 503 while a server is down; a test of that waits for another path.
    """
    url, env, command = _api(folder, settings)
    if cwd != str(ROOT):
        with running(command, folder / "api.log", env=env, ready=lambda: answers(url + ready_path), cwd=cwd):
            yield url
        return
    process = Program(command, env, folder / "api.log")
    with _ready_then_stopped(process, command, folder / "api.log", env, lambda: answers(url + ready_path)):
        yield url


@contextmanager
def running_api_process(
    folder: Path, *, ready_path: str = "/health", cwd: str = str(ROOT), **settings: object
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same as its users start it, with the process to be signalled."""
    url, env, command = _api(folder, settings)
    with running(command, folder / "api.log", env=env, ready=lambda: answers(url + ready_path), cwd=cwd) as process:
        yield url, process


def _api(folder: Path, settings: Mapping[str, object]) -> tuple[str, dict[str, str], list[str]]:
    """Its address, environment and command."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    # The program itself, as users start it: `python -m` would put the folder it is started in before our modules.
    command = [str(Path(sys.executable).with_name("fastapi")), "run", str(ROOT / "main.py")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return f"http://127.0.0.1:{port}", environment(DATA_DIR=folder / "data", API_PORT=port, **settings), command

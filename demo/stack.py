"""`make demo`: the API and the pages as two child processes, from free ports to a clean stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import httpx

from tuwen.errors import ConfigurationError
from tuwen.folders import require_writable
from tuwen.settings import PROJECT_ROOT, Settings

# Since the log's last sign of life: models are fetched and converted at the first start, large ones for minutes.
SILENCE_TIMEOUT_S = 300.0
LONG_STEPS = ("Fetching ", "Converting ")
STOP_TIMEOUT_S = 20.0
LOG_LINES_SHOWN = 8


class Stopped(Exception):
    """Ctrl-C or SIGTERM: unwinds to the clean stop from wherever the demo is."""


@contextmanager
def demo_stack(settings: Settings, say: Callable[[str], None]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Both processes, answering. Raises ConfigurationError when a port is taken or a process does not come up."""
    require_free_port(settings.api_port, "API_PORT")
    require_free_port(settings.web_port, "WEB_PORT")
    logs = settings.data_dir / "logs"
    require_writable(logs / "api.log", "DATA_DIR")
    environment = os.environ | {"API_PORT": str(settings.api_port), "DATA_DIR": str(settings.data_dir)}
    fastapi = ["fastapi", "run", "main.py", "--host", settings.api_host, "--port", str(settings.api_port)]
    fastapi.append("--no-proxy-headers")  # the API looks at them itself, see TRUSTED_PROXIES
    streamlit = ["streamlit", "run", "web_demo.py", f"--server.port={settings.web_port}"]
    streamlit.append("--server.headless=true")  # its address is .streamlit/config.toml's, whatever API_HOST says
    with ExitStack() as stack:
        api = stack.enter_context(_child(fastapi, logs / "api.log", environment))
        web = stack.enter_context(_child(streamlit, logs / "web.log", environment))
        _wait_until_up(api, f"{settings.api_address}/health/ready", logs / "api.log", say)
        _wait_until_up(web, f"http://127.0.0.1:{settings.web_port}/_stcore/health", logs / "web.log", say)
        yield [api, web]


def require_free_port(port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} is taken. Stop what listens there, or set {setting} to a free port."
            ) from error


def stop_on_signals() -> None:
    """Turn Ctrl-C and SIGTERM into Stopped, in the main thread."""

    def raise_stopped(_signal: int, _frame: FrameType | None) -> None:
        raise Stopped

    signal.signal(signal.SIGINT, raise_stopped)
    signal.signal(signal.SIGTERM, raise_stopped)


def wait_for_exit(processes: list[subprocess.Popen[bytes]]) -> None:
    """Returns when one of them ended by itself."""
    while all(process.poll() is None for process in processes):
        time.sleep(0.5)


@contextmanager
def _child(module: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal reaches us alone, and we stop the children in order
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


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path, say: Callable[[str], None]) -> None:
    seen, heard_at = 0, time.monotonic()
    while not _answers(url):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if len(lines) > seen:
            heard_at = time.monotonic()
            for line in lines[seen:]:
                start = min((line.find(step) for step in LONG_STEPS if step in line), default=-1)
                if start >= 0:
                    say(line[start:])
            seen = len(lines)
        if process.poll() is not None or time.monotonic() - heard_at > SILENCE_TIMEOUT_S:
            shown = "\n  ".join(lines[-LOG_LINES_SHOWN:])
            raise ConfigurationError(f"It did not start; the end of {log} says:\n  {shown}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False

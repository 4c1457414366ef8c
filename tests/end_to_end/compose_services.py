"""Our services of docker-compose.yml as processes of this machine: its own commands, settings and health checks.

Only what can't be the same outside of containers differs: where the engines are, which ports are free, where data lies.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from tests.processes import ROOT, environment, free_port, program_path, running
from tests.servers import new_mysql_database

API_PORT, WEB_PORT = "8000", "6006"
KEYS_FOLDER, PAGES_KEY = "/keys", "pages"
SCALE = {"worker": 2}


class Engines(NamedTuple):
    mariadb: str
    kafka: str
    milvus: str


@contextmanager
def running_compose_services(folder: Path, engines: Engines, models: dict[str, str]) -> Iterator[httpx.Client]:
    """All of them, healthy by their own checks; yields a client with the key that the stack made for its pages."""
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    ports = {API_PORT: str(free_port()), WEB_PORT: str(free_port())}
    url = f"http://127.0.0.1:{ports[API_PORT]}"
    elsewhere = {
        "DATABASE_URL": new_mysql_database(engines.mariadb),
        "KAFKA_BOOTSTRAP_SERVERS": engines.kafka,
        "KAFKA_IDEMPOTENT_PRODUCER": "false",  # the broker of the tests has none
        "MILVUS_URI": engines.milvus,
        "IMAGE_STORE_URL": str(folder / "images"),
        "API_URL": url,
        **models,
    }
    keys = folder / "keys"
    keys.mkdir()
    with ExitStack() as stack:
        for name, service in services.items():
            if "build" not in service:
                continue  # an engine
            env = _environment(service, elsewhere) | {"DATA_DIR": str(folder / "data")}
            if "API_KEY_FILE" in service["environment"]:
                env["API_KEY_FILE"] = str(keys / PAGES_KEY)
            command = ["deploy/entrypoint.sh", *_words(service["command"], ports)]
            command = [word.replace(f"{KEYS_FOLDER}/", f"{keys}/") for word in command]
            if service.get("restart") == "no":
                subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, timeout=120)
                continue
            check = _words(service["healthcheck"]["test"][1:], ports)
            for number in range(SCALE.get(name, 1)):
                log = folder / f"{name}-{number}.log"
                env["HEARTBEAT_DIR"] = str(folder / f"{name}-{number}")
                stack.enter_context(running(command, log, env=env, ready=_Healthy(check, dict(env))))
        key = {"X-API-Key": (keys / PAGES_KEY).read_text("utf-8").strip()}
        yield stack.enter_context(httpx.Client(base_url=url, headers=key, timeout=30, trust_env=False))


class _Healthy:
    """By the container's own check."""

    def __init__(self, check: list[str], env: dict[str, str]) -> None:
        self._check = check
        self._env = env

    def __call__(self) -> bool:
        return subprocess.run(self._check, cwd=ROOT, env=self._env, capture_output=True, check=False).returncode == 0


def _environment(service: dict[str, Any], elsewhere: dict[str, str]) -> dict[str, str]:
    """What the file sets, with these values in their places; a name without a value takes .env's, here none."""
    declared: dict[str, str | None] = service["environment"]
    values = {name: elsewhere.get(name, value) for name, value in declared.items()}
    return environment(
        PATH=program_path(), **{name: value for name, value in values.items() if value and "${" not in value}
    )


def _words(command: list[str], ports: dict[str, str]) -> list[str]:
    """With .env's values, here the defaults: `${NAME:-default}`."""
    words = [re.sub(r"\$\{\w+:-(\w*)\}", r"\1", ports.get(word, word)) for word in command]
    return [word.replace(f"port={WEB_PORT}", f"port={ports[WEB_PORT]}") for word in words]

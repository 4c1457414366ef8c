"""The compose stack as far as it can be checked without an engine, and the scripts that its containers run."""

import http.server
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.processes import ROOT, environment, free_port, require_program, wait_until
from tuwen.pulse import Pulses, beat
from tuwen.settings import Settings

Service = dict[str, Any]

FIELDS = {name.upper() for name in Settings.model_fields}
SECRETS = ("MYSQL_ROOT_PASSWORD", "MYSQL_PASSWORD", "MINIO_ROOT_PASSWORD")
OURS = ("api", "worker", "generator", "web", "migrate", "keys")
NOT_SETTINGS = {"RESTART_PAUSE_S", "API_WORKERS"}  # deploy/entrypoint.sh
# Settings that a container has no use for: its ports are fixed, the stack's engines have no users and no TLS, and the
# Dockerfile says where its data is.
NOT_FOR_CONTAINERS = {"API_HOST", "API_PORT", "API_URL", "WEB_PORT", "WEB_LANGUAGE", "DATA_DIR", "ENCODER_CACHE_DIR"}
NOT_FOR_CONTAINERS |= {"MILVUS_TOKEN", "MILVUS_CA_FILE", "KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM"}
NOT_FOR_CONTAINERS |= {"KAFKA_USERNAME", "KAFKA_PASSWORD", "KAFKA_CA_FILE", "KAFKA_CHECK_HOSTNAME"}
NOT_FOR_CONTAINERS |= {"API_KEY", "API_KEY_FILE"}  # the pages' and the command line's
NO_PROCESS = 2**22 + 1  # above the highest that Linux gives
ENTRYPOINT = str(ROOT / "deploy" / "entrypoint.sh")
HEALTHCHECK = str(ROOT / "deploy" / "healthcheck.py")


def compose_config(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """`docker-compose config` in a folder with `.env.example` as its `.env`, the passwords set, and these changes."""
    program = require_program("docker-compose")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    shutil.copy(ROOT / ".env.example", folder / ".env")
    with (folder / ".env").open("a", encoding="utf-8") as env_file:
        for name, value in ({name: f"{name.lower()}0" for name in SECRETS} | changes).items():
            env_file.write(f"{name}={value}\n")
    env = {name: value for name, value in environment().items() if name not in SECRETS}
    return subprocess.run([program, "config"], cwd=folder, env=env, capture_output=True, text=True, check=False)


def services(folder: Path, **changes: str) -> dict[str, Service]:
    process = compose_config(folder, **changes)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    rendered: dict[str, Service] = yaml.safe_load(process.stdout)["services"]
    return rendered


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Service]:
    return services(tmp_path_factory.mktemp("compose"))


def is_one_shot(service: Service) -> bool:
    return bool(service.get("restart") == "no")


def test_the_stack_has_its_services(stack: dict[str, Service]) -> None:
    assert set(stack) == {*OURS, "mysql", "kafka", "milvus", "etcd", "minio"}


@pytest.mark.parametrize("secret", SECRETS)
def test_a_missing_password_is_named(tmp_path: Path, secret: str) -> None:
    process = compose_config(tmp_path, **{secret: ""})
    assert process.returncode != 0
    assert "set it in .env" in process.stderr


@pytest.mark.parametrize("name", OURS)
def test_our_containers_get_real_settings(stack: dict[str, Service], name: str) -> None:
    assert set(stack[name]["environment"]) - FIELDS - NOT_SETTINGS == set()
    values = {key.lower(): value for key, value in stack[name]["environment"].items() if key in FIELDS and value}
    Settings.model_validate(values)


def test_every_setting_of_env_reaches_the_api_and_the_worker(stack: dict[str, Service]) -> None:
    assert FIELDS - set(stack["api"]["environment"]) == NOT_FOR_CONTAINERS
    assert set(stack["api"]["environment"]) - set(stack["worker"]["environment"]) == {
        "CORS_ALLOW_ORIGINS",
        "API_WORKERS",
        "OPEN_TO",
        "HOST_NAMES",
        "PUBLIC_PICTURES",
        "TRUSTED_PROXIES",
    }


def test_values_of_env_reach_the_containers(tmp_path: Path) -> None:
    changed = services(tmp_path, CLIP_MODEL="/models/clip", QUERY_BATCH_SIZE="8", WEB_LANGUAGE="en")
    for name in ("api", "worker"):
        assert changed[name]["environment"]["CLIP_MODEL"] == "/models/clip"
        assert str(changed[name]["environment"]["QUERY_BATCH_SIZE"]) == "8"
    assert changed["web"]["environment"]["WEB_LANGUAGE"] == "en"


def test_the_engines_are_the_stacks_own(stack: dict[str, Service]) -> None:
    for name in ("api", "worker"):
        env = stack[name]["environment"]
        settings = Settings.model_validate({key.lower(): value for key, value in env.items() if value is not None})
        assert not settings.auto_migrate
        assert settings.kafka_idempotent_producer
        assert settings.database_url == "mysql+pymysql://tuwen:mysql_password0@mysql:3306/tuwen?charset=utf8mb4"
        assert settings.milvus_uri == "http://milvus:19530"
        assert settings.kafka_bootstrap_servers == "kafka:9092"
    assert stack["migrate"]["environment"]["DATABASE_URL"] == stack["api"]["environment"]["DATABASE_URL"]


def test_the_api_and_the_worker_share_the_pictures(stack: dict[str, Service]) -> None:
    stores = {stack[name]["environment"]["IMAGE_STORE_URL"] for name in ("api", "worker")}
    assert stores == {"/data/images"}
    for name in ("api", "worker"):
        assert "app-data:/data:rw" in stack[name]["volumes"]


def test_each_service_has_a_health_check_or_runs_once(stack: dict[str, Service]) -> None:
    assert {name for name, service in stack.items() if is_one_shot(service)} == {"migrate", "keys"}
    for name, service in stack.items():
        assert is_one_shot(service) or service["healthcheck"]["test"][0] == "CMD", name
        assert is_one_shot(service) or service["restart"] == "unless-stopped", name


def test_services_wait_for_what_they_need(stack: dict[str, Service]) -> None:
    for service in stack.values():
        for needed, how in service.get("depends_on", {}).items():
            once = is_one_shot(stack[needed])
            assert how["condition"] == ("service_completed_successfully" if once else "service_healthy")
    for name in ("api", "worker"):
        assert set(stack[name]["depends_on"]) == {"migrate", "kafka", "milvus"}
    assert set(stack["migrate"]["depends_on"]) == {"mysql"}


def test_the_pages_find_the_key_that_the_stack_makes(stack: dict[str, Service], tmp_path: Path) -> None:
    file = stack["keys"]["command"][-1]
    assert stack["web"]["environment"]["API_KEY_FILE"] == file == "/keys/pages"
    assert "admin" not in stack["keys"]["command"]
    assert stack["keys"]["volumes"] == ["keys-data:/keys:rw"]
    assert stack["web"]["volumes"] == ["keys-data:/keys:ro"]
    assert "keys" in stack["web"]["depends_on"]
    assert stack["keys"]["environment"]["DATABASE_URL"] == stack["api"]["environment"]["DATABASE_URL"]
    asking = services(tmp_path, PAGES_KEY_FILE="")["web"]["environment"]
    assert Settings.model_validate({name.lower(): value for name, value in asking.items() if value}).key_to_send() == ""


def test_images_are_pinned(stack: dict[str, Service]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+:\S+)", dockerfile, re.MULTILINE)  # a stage of our own has no tag
    assert bases
    for image in bases + [service["image"] for name, service in stack.items() if name not in OURS]:
        _, _, tag = image.rpartition(":")
        assert re.search(r"\d+\.\d+|RELEASE\.\d{4}", tag), image
    assert {stack[name]["image"] for name in OURS} == {"tuwen", "tuwen-web"}


def test_only_the_api_and_the_pages_are_published_and_on_loopback(stack: dict[str, Service]) -> None:
    published = {name: service["ports"] for name, service in stack.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000/tcp"], "web": ["127.0.0.1:6006:6006/tcp"]}


def test_published_addresses_can_be_changed(tmp_path: Path) -> None:
    changed = services(tmp_path, API_PUBLISH_ADDRESS="0.0.0.0", API_PORT="80", WEB_PUBLISH_ADDRESS="10.0.0.5")
    assert changed["api"]["ports"] == ["0.0.0.0:80:8000/tcp"]
    assert changed["web"]["ports"] == ["10.0.0.5:6006:6006/tcp"]


def test_no_secret_is_written_down() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    secrets = re.findall(r"^ +\w*(?:PASSWORD|SECRET|TOKEN)\w*: *(.+)$", text, re.MULTILINE)
    assert secrets
    secrets += re.findall(r"://\w+:(.+?)@", text)
    for value in secrets:
        assert re.fullmatch(r"\$\{\w+:\?set it in \.env\}", value)
    for name in SECRETS:
        assert re.search(rf"^{name}=$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)


def test_volumes_are_named(stack: dict[str, Service]) -> None:
    for name, service in stack.items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert re.fullmatch(r"[a-z]+-data", source) or volume.endswith("/models:/models:ro"), (name, volume)


def test_commands_and_checks_name_files_that_exist(stack: dict[str, Service]) -> None:
    for name in OURS:
        words = [*stack[name]["command"], *stack[name].get("healthcheck", {}).get("test", [])]
        files = [word for word in words if word.endswith(".py")]
        assert files
        assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_image_runs_as_nobody_special_and_caches_its_requirements() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert not users[-1].startswith(("0", "root"))
    requirements = next(n for n, line in enumerate(lines) if "install" in line and "requirements.txt" in line)
    assert requirements < lines.index("COPY . .")


def test_the_image_leaves_out_secrets_and_data() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {".env", ".env.*", ".git", "data"} <= set(ignored)
    assert not {"models", "migrations", "deploy", "demo", "evaluation"} & set(ignored)


# --- deploy/entrypoint.sh --------------------------------------------------------------------------------------------


@contextmanager
def entrypoint(*command: str, pause_s: int = 0, **settings: str) -> Iterator[subprocess.Popen[str]]:
    env = environment(RESTART_PAUSE_S=pause_s, **settings)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [ENTRYPOINT, *command], env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_command_that_ends_well_is_not_held_back() -> None:
    with entrypoint("echo", "two words", pause_s=60) as process:
        assert process.communicate(timeout=20) == ("two words\n", "")
    assert process.returncode == 0


def test_a_failed_start_is_held_back_and_keeps_its_status() -> None:
    started = time.monotonic()
    with entrypoint("sh", "-c", "exit 3", pause_s=1) as process:
        _, err = process.communicate(timeout=20)
    assert time.monotonic() - started >= 1
    assert process.returncode == 3
    assert "status 3" in err


def test_several_of_which_none_can_start_are_held_back_though_who_supervises_them_ends_well(tmp_path: Path) -> None:
    supervisor = tmp_path / "fastapi"  # as uvicorn's ends then
    supervisor.write_text("#!/bin/sh\nexit 0\n")
    supervisor.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    with entrypoint("fastapi", "run", pause_s=1, API_WORKERS="2", PATH=path) as process:
        _, err = process.communicate(timeout=20)
    assert (process.returncode, "status 1" in err) == (1, True)


def test_a_stop_reaches_the_command_and_waits_for_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = (
        "import pathlib, signal, sys, threading\n"
        "stop = threading.Event()\n"
        "signal.signal(signal.SIGTERM, lambda *_: stop.set())\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while not stop.wait(0.05): pass\n"
        "print('stopped cleanly')\n"
        "sys.exit(7)\n"
    )
    with entrypoint(sys.executable, "-c", script, pause_s=60) as process:
        wait_until(ready.exists, what="the command to start")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (7, "stopped cleanly\n")


def test_a_stop_ends_the_pause() -> None:
    with entrypoint("false", pause_s=60) as process:
        assert process.stderr is not None
        assert "may start again in 60" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 1


# --- deploy/healthcheck.py -------------------------------------------------------------------------------------------


def healthcheck(arguments: str, **env: str) -> int:
    command = [sys.executable, HEALTHCHECK, *shlex.split(arguments)]
    return subprocess.run(command, env=os.environ | env, capture_output=True, timeout=20, check=False).returncode


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/well": 200, "/ill": 503}[self.path])
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def http_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_healthy_is_a_200_past_any_proxy(http_port: int) -> None:
    dead_proxy = f"http://127.0.0.1:{free_port()}"
    assert healthcheck(f"http {http_port} /well", http_proxy=dead_proxy, no_proxy="") == 0
    assert healthcheck(f"http {http_port} /ill") == 1
    assert healthcheck(f"http {free_port()} /well") == 1


def test_healthy_are_loops_that_were_heard_of_in_time(tmp_path: Path, http_port: int) -> None:
    assert healthcheck("loops", HEARTBEAT_DIR=str(tmp_path)) == 1  # nothing runs here
    pulses = Pulses(tmp_path)
    with pulses.of("ingestion"), pulses.of("outbox relay of a/b"):
        assert healthcheck("loops", HEARTBEAT_DIR=str(tmp_path)) == 0
        assert healthcheck(f"loops http {http_port} /well", HEARTBEAT_DIR=str(tmp_path)) == 0
        assert healthcheck(f"loops http {http_port} /ill", HEARTBEAT_DIR=str(tmp_path)) == 1
        beat(-1)
        assert healthcheck("loops", HEARTBEAT_DIR=str(tmp_path)) == 1
        assert healthcheck(f"loops http {http_port} /well", HEARTBEAT_DIR=str(tmp_path)) == 1


def test_processes_of_one_service_share_a_folder_of_heartbeats(tmp_path: Path) -> None:
    of_a_sibling = tmp_path / f"{os.getppid()}.ingestion.loop"
    of_the_killed = tmp_path / f"{NO_PROCESS}.ingestion.loop"
    for file in (of_a_sibling, of_the_killed, tmp_path / "ingestion.loop"):
        file.touch()
    with Pulses(tmp_path).of("ingestion"):
        assert sorted(tmp_path.iterdir()) == sorted([of_a_sibling, tmp_path / f"{os.getpid()}.ingestion.loop"])
        assert healthcheck("loops", HEARTBEAT_DIR=str(tmp_path)) == 1  # the sibling's is due


def test_a_wrong_call_of_the_health_check_says_how() -> None:
    assert healthcheck("") == 64

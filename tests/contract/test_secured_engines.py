"""Engines as managed services offer them: behind TLS, with a user and a password."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
import pytest
from pymilvus.exceptions import MilvusException

from tests.processes import environment, free_port, running
from tests.secrecy import MARK
from tests.servers import kafka_command, listens, new_mariadb
from tests.tls import Certificate, new_certificate, tls_proxy
from tuwen.database.start import open_database
from tuwen.errors import ConfigurationError, QueueUnavailable
from tuwen.messaging.kafka import KafkaConsumer, KafkaSender
from tuwen.messaging.transport import Message
from tuwen.settings import Settings
from vector_db import VectorDB

PASSWORD = f"{MARK}geheim"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return new_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def other_name(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return new_certificate(tmp_path_factory.mktemp("other"), host="DNS:elsewhere.example")


@contextmanager
def running_kafka_behind_tls(folder: Path, certificate: Certificate) -> Iterator[str]:
    """The broker sends its clients on to the proxy, so that no connection goes past it."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    with tls_proxy(port, certificate) as outside:
        command = kafka_command(port, advertised_port=outside)
        with running(command, folder / "kafka.log", env=environment(), ready=lambda: listens(port)):
            yield f"127.0.0.1:{outside}"


def kafka_settings(servers: str, **changes: object) -> Settings:
    values = {"kafka_bootstrap_servers": servers, "kafka_idempotent_producer": False} | changes
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


async def is_reachable(settings: Settings) -> bool:
    sender = KafkaSender(settings)
    try:
        await sender.check()
    except QueueUnavailable:
        return False
    finally:
        await sender.close()
    return True


def test_messages_go_over_tls_and_come_back(tmp_path: Path, certificate: Certificate) -> None:
    with running_kafka_behind_tls(tmp_path, certificate) as servers:
        settings = kafka_settings(servers, kafka_security_protocol="SSL", kafka_ca_file=certificate.file)

        async def there_and_back() -> list[Message]:
            sender, consumer = KafkaSender(settings), KafkaConsumer(settings, settings.kafka_topic, "group")
            try:
                await sender.send([Message(settings.kafka_topic, "7", b"secret")])
                async with asyncio.timeout(60):
                    received = await consumer.next_batch(10)
                await consumer.commit()
                return received
            finally:
                await consumer.close()
                await sender.close()

        assert asyncio.run(there_and_back()) == [Message(settings.kafka_topic, "7", b"secret")]
        unknown = kafka_settings(servers, kafka_security_protocol="SSL")  # of no authority that this machine knows
        assert not asyncio.run(is_reachable(unknown))


@pytest.mark.parametrize("checks", [True, False])
def test_a_certificate_of_another_name_is_taken_only_where_a_setting_says_so(
    tmp_path: Path, other_name: Certificate, checks: bool
) -> None:
    with running_kafka_behind_tls(tmp_path, other_name) as servers:
        settings = kafka_settings(
            servers, kafka_security_protocol="SSL", kafka_ca_file=other_name.file, kafka_check_hostname=checks
        )
        assert asyncio.run(is_reachable(settings)) is not checks


@contextmanager
def recording_broker() -> Iterator[tuple[str, list[bytes]]]:
    """Keeps the requests that it gets; knows nothing but SASL handshakes, and lets everybody in."""
    requests: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(4):
                request = stream.read(struct.unpack(">i", head)[0])
                requests.append(request)
                key, version, correlation = struct.unpack(">hhi", request[:8])
                if (key, version) == (17, 1):  # SaslHandshake: no error, one mechanism
                    body = struct.pack(">hih", 0, 1, 5) + b"PLAIN"
                elif (key, version) == (18, 0):  # ApiVersions: these two and SaslAuthenticate
                    body = struct.pack(">hi", 0, 3) + struct.pack(">9h", 17, 0, 1, 18, 0, 0, 36, 0, 0)
                else:
                    return
                connection.sendall(struct.pack(">ii", len(body) + 4, correlation) + body)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", requests
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_user_and_password_are_what_a_broker_that_wants_them_gets(caplog: pytest.LogCaptureFixture) -> None:
    with recording_broker() as (servers, requests):
        settings = kafka_settings(
            servers,
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_sasl_mechanism="PLAIN",
            kafka_username="tuwen",
            kafka_password=PASSWORD,
        )
        assert not asyncio.run(is_reachable(settings))  # it ends the connection at the next request
    assert any(request[:2] == b"\x00\x11" and request.endswith(b"PLAIN") for request in requests)
    assert any(f"\0tuwen\0{PASSWORD}".encode() in request for request in requests)
    assert PASSWORD not in caplog.text


def test_mysql_that_wants_tls(tmp_path: Path, certificate: Certificate, other_name: Certificate) -> None:
    port = free_port()
    command = [*new_mariadb(tmp_path, port), f"--ssl-cert={certificate.file}", f"--ssl-key={certificate.key}"]
    command += ["--require-secure-transport=ON"]
    with running(command, tmp_path / "mariadb.log", env=environment(), ready=lambda: listens(port)):
        ssl = {"ca": str(certificate.file)}
        connection = pymysql.connect(host="127.0.0.1", port=port, user="root", ssl=ssl)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE tuwen CHARACTER SET utf8mb4")
            cursor.execute(f"SET PASSWORD = PASSWORD('{PASSWORD}')")
        url = f"mysql+pymysql://root:{PASSWORD}@127.0.0.1:{port}/tuwen?charset=utf8mb4"
        open_database(Settings(_env_file=None, database_url=f"{url}&ssl_ca={certificate.file}")).close()
        for arguments, reason in (
            ("ssl_disabled=true", "(insecure transport|Access denied)"),  # as MariaDB and MySQL say it
            (f"ssl_ca={other_name.file}", "certificate verify failed"),
        ):
            with pytest.raises(ConfigurationError, match=f"DATABASE_URL.*{reason}") as refusal:
                open_database(Settings(_env_file=None, database_url=f"{url}&{arguments}"))
            assert PASSWORD not in refusal.value.detail


def test_milvus_behind_tls(milvus: str, certificate: Certificate) -> None:
    with tls_proxy(int(milvus.rpartition(":")[2]), certificate) as port:
        settings = Settings(
            _env_file=None,
            milvus_uri=f"https://127.0.0.1:{port}",
            milvus_ca_file=certificate.file,
            milvus_token=PASSWORD,
        )
        vectors = VectorDB(settings)
        vectors.check()
        vectors.close()
        stranger = VectorDB(settings.model_copy(update={"milvus_ca_file": None, "milvus_timeout_s": 2.0}))
        with pytest.raises(Exception, match="Milvus") as refusal:
            stranger.check()
        assert not isinstance(refusal.value, MilvusException)
        stranger.close()
    assert PASSWORD not in str(refusal.value)

"""A start that can't work ends in one sentence that names the setting, within half a minute, and says no password."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.processes import ROOT, environment, free_port
from tests.promises import require_in_time
from tests.secrecy import MARK
from tests.servers import new_mysql_database
from tests.tls import new_certificate
from tuwen.database.start import open_database
from tuwen.errors import AppError, ConfigurationError
from tuwen.settings import Settings, complaint
from vector_db import VectorDB

PASSWORD = f"{MARK}geheim"
# Of engines that are asked for nothing in these tests.
SECRETS = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
    "KAFKA_USERNAME": "tuwen",
    "KAFKA_PASSWORD": PASSWORD,
    "MILVUS_TOKEN": PASSWORD,
}
LIMIT_S = 30.0
NOBODY = 65534
DOORS = {
    "api": [str(Path(sys.executable).with_name("fastapi")), "run", "main.py", "--port"],
    "worker": [sys.executable, "worker.py"],
    "generator": [sys.executable, "-m", "tuwen.generation.worker"],
    "cli": [sys.executable, "cli.py", "migrate"],
}
needs_long = pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="make test-long starts every door")
# Told by their frames alone: `Traceback` may also be the word of a log line.
TRACEBACK = '  File "'


def start(door: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """In an environment where it is bound to end by itself."""
    command = DOORS[door] + ([str(free_port())] if door == "api" else [])
    return subprocess.run(
        command, cwd=ROOT, env=environment(**settings), capture_output=True, text=True, timeout=300, check=False
    )


def refusal(**settings: object) -> str:
    started = time.monotonic()
    with pytest.raises(AppError) as failure:
        open_database(Settings(_env_file=None, **settings))  # type: ignore[arg-type]
    require_in_time(time.monotonic() - started, LIMIT_S)
    assert PASSWORD not in failure.value.detail
    return failure.value.detail


@pytest.fixture
def silent() -> Iterator[str]:
    """Host and port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "door", [name if name in ("api", "cli") else pytest.param(name, marks=needs_long) for name in DOORS]
)
def test_every_door_ends_with_one_sentence(door: str, tmp_path: Path) -> None:
    # The worker and the process that draws want a broker's address first, and don't ask it.
    process = start(
        door,
        DATA_DIR=tmp_path,
        DATABASE_URL=f"oracle://tuwen:{PASSWORD}@127.0.0.1/x",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        MILVUS_URI="http://127.0.0.1:1",
        **SECRETS,
    )
    said = process.stdout + process.stderr
    assert process.returncode != 0
    assert said.count("DATABASE_URL begins with oracle, and there is only mysql+pymysql") == 1, said
    assert TRACEBACK not in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("oracle99://u:{p}@h/x", "begins with oracle99"),
        ("mysql+nodriver://u:{p}@h/x", "driver is not installed"),
        ("mysql://u:{p}@h/x", "begin it with mysql\\+pymysql"),
        ("u:{p}@h/x", "is not a database address"),
        ("mysql+pymysql://u:{p}@h:33x/x", "is not a database address"),
        ("mysql+pymysql://u:x@{p}@h/x", "is not a database address"),
        ("mysql+pymysql://u:{p}@h/x?colour=red", "argument that can't be used: .*colour"),
        ("mysql+pymysql://u:{p}@h/x?ssl_ca=/nowhere.pem", "argument that can't be used: .*No such file"),
    ],
)
def test_an_address_that_no_database_has(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"DATABASE_URL.*{reason}") as failure:
        open_database(Settings(_env_file=None, database_url=url.format(p=PASSWORD)))
    assert PASSWORD not in failure.value.detail


def test_a_server_that_refuses(mariadb: str) -> None:
    dsn = new_mysql_database(mariadb)
    assert "Access denied" in refusal(database_url=dsn.replace("root@", f"root:{PASSWORD}@"))
    unknown = dsn.replace("/tuwen_", "/nothing_like_tuwen_")
    assert "Unknown database" in refusal(database_url=unknown)


@pytest.mark.parametrize("host", ["nohost.invalid:3306", "127.0.0.1:1", "silent"])
def test_a_server_that_is_away_is_waited_for_a_while(
    host: str, silent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tuwen.database.start.START_WAIT_S", 1.0)
    monkeypatch.setattr("tuwen.database.start.START_CALL_S", 1)
    address = silent if host == "silent" else host
    said = refusal(database_url=f"mysql+pymysql://tuwen:{PASSWORD}@{address}/x")
    assert f"The database at {address} (DATABASE_URL) has not answered for 1 s" in said
    if host != "silent":  # whose first silence is long enough already
        assert f"Waiting for the database at {address} (DATABASE_URL), for 1 s at most" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_server_that_comes_late_is_still_met(
    mariadb: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a whole stack is started at once. The server's name is one that nobody knows at first."""
    dsn, known = new_mysql_database(mariadb), socket.getaddrinfo

    def unknown_until_asked_twice(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(socket, "getaddrinfo", known)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown_until_asked_twice)
    open_database(Settings(_env_file=None, database_url=dsn)).close()
    assert "Waiting for the database" in caplog.text


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "tuwen.db").write_bytes(b"no database at all, but long enough to have a header of its own" * 100)
    assert "DATA_DIR" in refusal(data_dir=tmp_path)
    assert "DATABASE_URL" in refusal(database_url=f"sqlite:///{tmp_path / 'tuwen.db'}")


def test_a_folder_that_is_none_is_named_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "data"
    assert refusal(data_dir=below).startswith(f"DATA_DIR: {below} can't be written")
    assert refusal(database_url=f"sqlite:///{below}/x.db").startswith("DATABASE_URL: ")
    for settings, setting in (({"data_dir": below}, "DATA_DIR"), ({"milvus_uri": f"{below}/m.db"}, "MILVUS_URI")):
        with pytest.raises(ConfigurationError, match=f"^{setting}: .* can't be written"):
            VectorDB(Settings(_env_file=None, **settings)).check()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
def test_a_folder_of_another_user_is_named(tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from tuwen.folders import require_writable
from tuwen.errors import ConfigurationError
os.setuid({NOBODY})
for path in sys.argv[1:]:
    try:
        require_writable(Path(path), "DATA_DIR")
    except ConfigurationError as error:
        print(error.detail)
"""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir(mode=0o755)
    theirs.mkdir()
    theirs.chmod(0o777)
    (theirs / "tuwen.db").touch(mode=0o644)
    for folder in (tmp_path, *tmp_path.parents):  # pytest's own folders are nobody else's
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o755)
    paths = [str(ours / "tuwen.db"), str(theirs / "tuwen.db"), str(theirs / "milvus.db")]
    command = [sys.executable, "-c", program, *paths]
    process = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    first, second = process.stdout.splitlines()  # the third is fine
    assert first.startswith(f"DATA_DIR: {ours} can't be written (Permission denied)")
    assert second.startswith(f"DATA_DIR: {theirs / 'tuwen.db'} can't be written")


def test_a_damaged_milvus_file_is_named_as_such_and_an_open_one_too(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"garbage")
    with pytest.raises(ConfigurationError, match=r"can't be read .*move it away"):
        VectorDB(Settings(_env_file=None, milvus_uri=str(damaged))).check()
    program = "import sys, vector_db, tuwen.settings as s; vector_db.VectorDB(s.load_settings()).check()"
    opened = VectorDB(Settings(_env_file=None, data_dir=tmp_path))
    opened.check()
    try:
        process = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environment(MILVUS_URI=tmp_path / "milvus.db"),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        opened.close()
    assert "is open already: another process has it" in process.stderr
    assert "If it is damaged" not in process.stderr


LOAD_FROM_A_SILENT_HUB = """
import json, logging, sys, time
from nlp_models import load_encoders
from tuwen.encoders import hub
from tuwen.errors import ModelUnavailable
from tuwen.settings import load_settings
logging.basicConfig(level="INFO")
hub.HUB_TIMEOUT_S = 1.0
for name in ("huggingface", "modelscope"):
    settings = load_settings().model_copy(update={"model_hub": name, "encoder_backend": "torch"})
    started = time.monotonic()
    load_encoders(settings)
    took = time.monotonic() - started
    try:
        load_encoders(settings.model_copy(update={"clip_model": "tiny/another"}))
    except ModelUnavailable as error:
        print(json.dumps([took, error.detail]))
"""


def test_a_silent_hub_holds_no_cached_model_up(silent: str, tiny_models: dict[str, str], tmp_path: Path) -> None:
    revision = "0" * 40
    for name, model in (("clip", tiny_models["CLIP_MODEL"]), ("text", tiny_models["TEXT_MODEL"])):
        repository = tmp_path / "hf" / "hub" / f"models--tiny--{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(revision)
        shutil.copytree(model, repository / "snapshots" / revision)
        shutil.copytree(model, tmp_path / "ms" / "models" / f"tiny--{name}" / "snapshots" / "master")
    env = environment(
        CLIP_MODEL="tiny/clip",
        TEXT_MODEL="tiny/text",
        HF_ENDPOINT=f"http://{silent}",
        MODELSCOPE_ENDPOINT=f"http://{silent}",
        HF_HOME=tmp_path / "hf",
        MODELSCOPE_CACHE=tmp_path / "ms",
    )
    command = [sys.executable, "-c", LOAD_FROM_A_SILENT_HUB]
    process = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 2, process.stderr[-3000:]
    for hub, (took_s, refused) in zip(("huggingface", "modelscope"), lines, strict=True):
        require_in_time(took_s, LIMIT_S)
        assert f"CLIP_MODEL=tiny/clip is taken from the cache, as it was fetched last, without asking {hub}" in (
            process.stderr
        )
        assert f"CLIP_MODEL=tiny/another can't be had from {hub}: it does not answer" in refused


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("milvus_uri", "http://milvus:abc"),
        ("milvus_uri", "http://:19530"),
        ("milvus_uri", "ftp://milvus:19530"),
        ("kafka_bootstrap_servers", "kafka:abc"),
        ("kafka_bootstrap_servers", "http://kafka:9092"),
        ("kafka_bootstrap_servers", "kafka:9092,"),
        ("kafka_bootstrap_servers", f"tuwen:{PASSWORD}@kafka:9092"),
    ],
)
def test_addresses_that_no_engine_has(setting: str, value: str) -> None:
    with pytest.raises(ValidationError, match=setting):
        Settings(_env_file=None, **{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"KAFKA_USERNAME": ""}, "KAFKA_SECURITY_PROTOCOL=SASL_SSL needs KAFKA_USERNAME as well"),
        ({"KAFKA_PASSWORD": ""}, "KAFKA_SECURITY_PROTOCOL=SASL_SSL needs KAFKA_PASSWORD as well"),
        ({"KAFKA_SASL_MECHANISM": "", "KAFKA_PASSWORD": ""}, "needs KAFKA_SASL_MECHANISM and KAFKA_PASSWORD as well"),
        ({"KAFKA_SECURITY_PROTOCOL": ""}, "KAFKA_SECURITY_PROTOCOL=PLAINTEXT makes no use of KAFKA_SASL_MECHANISM and"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL"}, "KAFKA_SECURITY_PROTOCOL=SSL makes no use of .* and KAFKA_PASSWORD"),
        ({"KAFKA_CA_FILE": "/nowhere.pem"}, "KAFKA_CA_FILE: .*/nowhere.pem can't be read as certificates"),
        ({"KAFKA_CA_FILE": __file__}, "KAFKA_CA_FILE: .* can't be read as certificates"),
        ({"KAFKA_CHECK_HOSTNAME": "false"}, "KAFKA_CHECK_HOSTNAME=false needs a KAFKA_CA_FILE"),
        ({"MILVUS_URI": f"ftp://root:{PASSWORD}@milvus"}, "MILVUS_URI: "),
    ],
)
def test_settings_that_contradict_each_other_are_one_sentence_without_a_secret(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    values = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"} | SECRETS | changes
    given = {name.lower(): value for name, value in values.items() if value}
    with pytest.raises(ValidationError) as failure:
        Settings(_env_file=None, **given)  # type: ignore[arg-type]
    assert PASSWORD not in str(failure.value)
    (error,) = failure.value.errors()
    assert re.search(sentence, complaint(error["loc"], error["msg"], error["input"]))
    assert PASSWORD not in complaint(error["loc"], error["msg"], error["input"])


def test_a_contradiction_ends_a_start_and_shows_no_secret(tmp_path: Path) -> None:
    said = load(tmp_path, **SECRETS | {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "KAFKA_USERNAME": ""})
    assert len(said.splitlines()) == 2
    assert "KAFKA_SECURITY_PROTOCOL=SASL_SSL needs KAFKA_USERNAME as well" in said
    assert PASSWORD not in said


def test_a_certificate_for_milvus_without_tls_is_a_contradiction(tmp_path: Path) -> None:
    file = new_certificate(tmp_path).file
    with pytest.raises(ValidationError, match="MILVUS_CA_FILE needs a MILVUS_URI that begins with https://"):
        Settings(_env_file=None, milvus_uri="http://milvus:19530", milvus_ca_file=file)
    Settings(_env_file=None, milvus_uri="https://milvus:19530", milvus_ca_file=file)


def test_settings_show_no_secret_and_hand_them_on() -> None:
    secrets = {name.lower(): value for name, value in SECRETS.items()}
    urls = {"database_url": f"mysql+pymysql://u:{PASSWORD}@h/x", "milvus_uri": f"https://u:{PASSWORD}@h"}
    settings = Settings(_env_file=None, kafka_bootstrap_servers="kafka:9092", **secrets | urls)  # type: ignore[arg-type]
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in str(settings)
    handed_on = {name.lower(): value for name, value in settings.as_environment().items() if value}
    received = Settings(_env_file=None, **handed_on)  # type: ignore[arg-type]
    assert received == settings.model_copy(update={"data_dir": settings.data_dir.resolve()})


@pytest.mark.parametrize("by_file", [False, True])
def test_an_address_of_milvus_is_refused_by_us_and_not_by_its_library(tmp_path: Path, by_file: bool) -> None:
    """pymilvus reads MILVUS_URI itself, from both places."""
    if by_file:
        (tmp_path / ".env").write_text("MILVUS_URI=localhost:19530\n")
    said = load(tmp_path, **({} if by_file else {"MILVUS_URI": "localhost:19530"}))
    heading, line = said.splitlines()
    assert heading == "Settings can't be used:"
    assert line.strip().startswith("MILVUS_URI: ")


def test_a_file_of_settings_in_another_encoding_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("# 数据目录\nDATA_DIR=数据\n".encode("gbk"))
    said = load(tmp_path)
    assert len(said.splitlines()) == 1
    assert ".env can't be read, which must be UTF-8" in said


def load(folder: Path, **settings: str) -> str:
    """What a start in this folder says that ends at its settings. Its `.env` counts, as a user's does."""
    env = environment(**settings, PYTHONPATH=ROOT)
    del env["TUWEN_ENV_FILE"]
    program = "import vector_db, tuwen.settings; tuwen.settings.load_settings()"
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    return process.stderr

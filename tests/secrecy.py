"""What our programs must not let out: secrets in logs and command lines, and the inside of the house in answers.

Every process that the tests start (`tests/processes.py`), and what every test logs (`tests/conftest.py`), is looked
through, for the secrets in its settings, for whatever begins with `MARK`, and for API keys.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import unquote, urlsplit

import httpx
import psutil
from pydantic import SecretStr

from tuwen.settings import Settings

# Passwords, tokens in addresses and the like are made up with it.
MARK = "hush-"
API_KEY = re.compile(r"tuwen_[A-Za-z0-9_-]{43}")
SECRET_SETTINGS = {name.upper() for name, kind in get_type_hints(Settings).items() if kind is SecretStr}
SECRET_VARIABLES = SECRET_SETTINGS | {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
ADDRESSES = ("DATABASE_URL", "MILVUS_URI", "IMAGE_STORE_URL")
# Of engines, drivers and Python, and of this machine.
INSIDE = re.compile(
    r"Traceback|File \"|\w+Error\b|\bErrno\b|sqlalchemy|pymysql|sqlite|mysql|mariadb|grpc|pymilvus|botocore|s3fs|kafka|"
    r"127\.0\.0\.1|localhost|/tmp/|/data/|\.py\b|\broot\b|_URL\b|_URI\b|0x[0-9a-f]{6}",
    re.IGNORECASE,
)


def secrets_of(env: Mapping[str, str]) -> set[str]:
    found = {env.get(name, "") for name in SECRET_VARIABLES}
    for name in ADDRESSES:
        with suppress(ValueError):
            password = urlsplit(env.get(name, "")).password or ""
            found |= {password, unquote(password)}
    return found - {""}


def leaks(text: str, secrets: set[str]) -> list[str]:
    """The lines that say too much."""
    wanted = re.compile("|".join([MARK, API_KEY.pattern, *map(re.escape, secrets)]))
    return [line for line in text.splitlines() if wanted.search(line)]


def require_secrecy(env: Mapping[str, str], log: Path, command_lines: list[str]) -> None:
    said = leaks(log.read_text(encoding="utf-8", errors="replace"), secrets_of(env))
    assert said == [], f"{log} has a secret in it"
    assert leaks("\n".join(command_lines), secrets_of(env)) == [], "everybody on the machine reads command lines (ps)"


def command_lines_of(process_id: int) -> list[str]:
    """Its own and its children's, as long as it lives."""
    with suppress(psutil.Error):
        process = psutil.Process(process_id)
        return [" ".join(each.cmdline()) for each in (process, *process.children(recursive=True))]
    return []


def assert_tells_nothing(response: httpx.Response, *names: str) -> None:
    """A failure of ours that a stranger may read. `names`: of what it is about, besides what `INSIDE` knows."""
    assert response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR, response.text
    problem: dict[str, Any] = response.json()
    told = f"{problem['title']} {problem['detail']} {problem['parameters']} {problem['errors']}"
    headers = " ".join(f"{name}: {value}" for name, value in response.headers.items() if name != "date")
    for said in (told, headers):
        assert not INSIDE.search(said), said
        assert not any(name in said for name in names), said
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["code"], problem

"""As strangers meet it: behind `deploy/nginx.conf`, with secrets wherever they can be, and with broken engines.

`tests/secrecy.py` looks through the log, which is as talkative here as it gets.
"""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pymysql
import pytest

from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import ROOT, environment, free_port, require_program, running, running_api, wait_until
from tests.secrecy import MARK, assert_tells_nothing
from tests.servers import listens, new_bucket, new_mysql_database
from tests.tls import new_certificate
from tuwen.access.keys import create_key, new_key
from tuwen.database.engine import Database

API, PAGES = "api.shop.example", "pages.shop.example"
USER, PASSWORD = "keeper", f"{MARK}of/the@database"


class Shop(NamedTuple):
    outside: httpx.Client
    """Through it, without a key."""
    key: str
    server: pymysql.Connection
    """Root's."""
    pictures: str
    """A host that the service may fetch pictures of."""
    log: Path


class Nginx(NamedTuple):
    client: httpx.Client
    """Of the API's name, over TLS."""
    plain: str
    """Its address without TLS."""
    folder: Path


class Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(picture("navy"))

    def log_message(self, *_: object) -> None:
        """Its log is nobody's."""


@contextmanager
def running_host() -> Iterator[str]:
    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{host.server_port}"
    host.shutdown()
    host.server_close()


@contextmanager
def running_nginx(folder: Path, api_url: str) -> Iterator[Nginx]:
    """Our own file, with other ports and folders."""
    folder.mkdir()
    certificate = new_certificate(folder, host=f"DNS:{API},DNS:{PAGES}")
    port, plain = free_port(), free_port()
    ours = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    for theirs, here in (
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("listen 80", f"listen 127.0.0.1:{plain}"),
        ("http://127.0.0.1:8000", api_url),
        ("/etc/nginx/tuwen.crt", str(certificate.file)),
        ("/etc/nginx/tuwen.key", str(certificate.key)),
        ("/var/log/nginx", str(folder)),
    ):
        assert theirs in ours
        ours = ours.replace(theirs, here)
    paths = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log {folder}/default.log; {paths}\n{ours}\n}}\n",
        encoding="utf-8",
    )
    command = [require_program("nginx", "/usr/sbin/nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    with running(command, folder / "error.log", env=environment(), ready=lambda: listens(port)):
        client = httpx.Client(
            base_url=f"https://127.0.0.1:{port}", headers={"Host": API}, verify=False, timeout=30, trust_env=False
        )
        with client:
            yield Nginx(client, f"http://127.0.0.1:{plain}", folder)


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str], mariadb: str, s3: str
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    dsn = new_mysql_database(mariadb)
    port, name = int(mariadb.rpartition(":")[2]), dsn.rpartition("/")[2].partition("?")[0]
    server = pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True)
    with server.cursor() as cursor:
        cursor.execute(f"CREATE USER {USER} IDENTIFIED BY '{PASSWORD}'")
        cursor.execute(f"GRANT ALL ON {name}.* TO {USER}")
    encoded = PASSWORD.replace("/", "%2F").replace("@", "%40")
    bucket = new_bucket(s3)
    with (
        running_host() as pictures,
        running_api(
            folder,
            **tiny_models,
            **bucket,
            AWS_SESSION_TOKEN=f"{MARK}session",
            DATABASE_URL=f"mysql+pymysql://{USER}:{encoded}@127.0.0.1:{port}/{name}?charset=utf8mb4",
            LOG_LEVEL="DEBUG",
            ACCESS_LOG="true",
            PUBLIC_PICTURES="true",
            TRUSTED_PROXIES="127.0.0.1",
            IMAGE_URL_HOSTS=pictures,
            IMAGE_URL_PRIVATE_NETWORKS="127.0.0.0/8",
        ) as url,
        running_nginx(folder / "nginx", url) as nginx,
    ):
        database = Database(f"{dsn}")
        with database.write() as session:
            key = create_key(session, new_key("feed", ["search", "write", "admin"])).key
        database.close()
        yield Shop(nginx.client, key, server, pictures, folder / "api.log")
    with server.cursor() as cursor:
        cursor.execute(f"DROP USER IF EXISTS {USER}")
    server.close()


def lines_of(shop: Shop, request_id: str) -> list[str]:
    return [line for line in shop.log.read_text(encoding="utf-8").splitlines() if f" [{request_id}]: " in line]


@pytest.fixture
def inside(shop: Shop) -> Iterator[httpx.Client]:
    """Through the proxy, with a key."""
    headers = {"Host": API, "Authorization": f"Bearer {shop.key}"}
    with httpx.Client(
        base_url=shop.outside.base_url, headers=headers, verify=False, timeout=30, trust_env=False
    ) as client:
        yield client


def test_pictures_are_public_and_nothing_else_is(shop: Shop, inside: httpx.Client) -> None:
    product = create_product(inside, "红色沙发")
    for address in (product["image_url"], product["thumbnail_url"]):
        shown = shop.outside.get(address, headers={"Origin": "https://shop.example"})
        assert (shown.status_code, shown.headers["Cache-Control"][:7]) == (200, "public,")
        assert shown.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert shown.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert inside.get(address).headers["Cache-Control"][:8] == "private,"
        assert shop.outside.get(address, headers={"X-API-Key": f"{MARK}wrong"}).status_code == 401
    for path in ("/product/list", f"/product/{product['product_id']}", "/product/export"):
        assert shop.outside.get(path).status_code == 401
    assert shop.outside.post("/product").status_code == 401


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[tuple[str, Nginx]]:
    """A service that has no key yet and answers its own machine alone, and what is before it."""
    folder = tmp_path_factory.mktemp("keyless")
    with (
        running_api(folder, **tiny_models, HOST_NAMES=API) as url,
        running_nginx(folder / "nginx", url) as nginx,
    ):
        yield url, nginx


def test_behind_the_proxy_nobody_is_this_machine(keyless: tuple[str, Nginx]) -> None:
    url, nginx = keyless
    assert httpx.get(f"{url}/product/list", headers={"Host": API}, trust_env=False).status_code == 200
    for claimed in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}):
        assert nginx.client.get("/product/list", headers=claimed).status_code == 403


def test_other_names_get_no_answer(keyless: tuple[str, Nginx]) -> None:
    _, nginx = keyless
    for base in (nginx.client.base_url, nginx.plain):
        with pytest.raises(httpx.RemoteProtocolError):
            nginx.client.get(f"{base}/health/live", headers={"Host": "127.0.0.1"})


def test_the_proxy_logs_no_queries(keyless: tuple[str, Nginx]) -> None:
    _, nginx = keyless
    moved = nginx.client.get(f"{nginx.plain}/product/list?q=of-a-visitor")
    assert (moved.status_code, moved.headers["Location"]) == (301, f"https://{API}/product/list?q=of-a-visitor")
    nginx.client.get("/product/list?q=of-a-visitor")
    log = nginx.folder / "tuwen.log"
    wait_until(lambda: '"GET /product/list" 403' in log.read_text(), what="its line in the access log")
    told = [file.name for file in nginx.folder.glob("*.log") if "of-a-visitor" in file.read_text()]
    assert told == []


def test_what_is_for_operators_is_closed(shop: Shop) -> None:
    for path in ("/metrics", "/keys", "/keys/feed", "/reindex/1", "/health", "/health/ready"):
        assert shop.outside.get(path, headers={"X-API-Key": shop.key}).status_code == 404
    assert shop.outside.post("/product/retry-failed", headers={"X-API-Key": shop.key}).status_code == 404
    assert shop.outside.get("/health/live").headers["Strict-Transport-Security"]


def test_an_answer_says_nothing_of_versions(shop: Shop) -> None:
    answer = shop.outside.get("/health/live", headers={"X-Request-ID": "from-outside"})
    assert (answer.headers["Server"], answer.headers["X-Request-ID"]) == ("nginx", "from-outside")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_access_log_has_no_queries(shop: Shop, inside: httpx.Client) -> None:
    inside.get(f"/product/list?q={MARK}in-a-query", headers={"X-Request-ID": "seen"})
    wait_until(lambda: "/product/list" in str(lines_of(shop, "seen")), what="its line in the access log")
    assert '"GET /product/list HTTP/1.1" 200' in str(lines_of(shop, "seen"))


def test_what_callers_send_in_confidence_is_not_logged(shop: Shop, inside: httpx.Client) -> None:
    """The fixture's end looks through the log."""
    token = f"http://{shop.pictures}/a.png?X-Amz-Signature={MARK}token"
    assert inside.post("/search", json={"mode": "image_to_image", "image_url": token}).status_code == 200
    for refused in (f"http://me:{MARK}word@{shop.pictures}/a.png", f"http://{MARK}host.example/?{MARK}token"):
        assert inside.post("/search", json={"mode": "image_to_image", "image_url": refused}).status_code == 422
    rows = f"sku,title,image\nA1,a,{token}\nA2,b,http://{shop.pictures}:1/{MARK}x.png\n".encode()
    job = inside.post("/product/import", files={"file": ("a.csv", rows)}).json()
    wait_until(lambda: inside.get(job["status_url"]).json()["status"] == "done", what="the import")
    assert inside.get(job["status_url"]).json()["created"] == 1
    wait_until_indexed(inside)
    for wrong in ({"Authorization": f"Basic {MARK}basic"}, {"X-API-Key": f"tuwen_{MARK}key"}):
        assert shop.outside.get("/product/list", headers=wrong).status_code == 401


def test_a_database_that_refuses_shows_nothing_of_itself(shop: Shop, inside: httpx.Client) -> None:
    product = create_product(inside, "蓝色木椅")
    with shop.server.cursor() as cursor:
        cursor.execute(f"ALTER USER {USER} ACCOUNT LOCK")
        cursor.execute(f"SELECT id FROM information_schema.processlist WHERE user = '{USER}'")
        for (connection,) in cursor.fetchall():
            cursor.execute(f"KILL {connection}")
        refused = inside.get(f"/product/{product['product_id']}", headers={"X-Request-ID": "no-user"})
        in_chinese = inside.get(f"/product/{product['product_id']}", headers={"Accept-Language": "zh"})
        cursor.execute(f"ALTER USER {USER} ACCOUNT UNLOCK")
    for answer in (refused, in_chinese):
        assert_tells_nothing(answer, USER, MARK)
    assert in_chinese.json()["detail"].startswith("数据库")
    assert "account is locked" in str(lines_of(shop, "no-user"))  # where it is for the operator to read

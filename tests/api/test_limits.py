"""Over HTTP: who asks too often, has too much under way, or goes on with a key that has ended."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from orm_models import JobRow, utc_now
from tests.conftest import picture
from tests.processes import free_port, running_api, wait_until
from tuwen.access.queues import FORGOTTEN_AFTER
from tuwen.api.admission import client_at
from tuwen.api.client_address import Origin
from tuwen.database.engine import Database
from tuwen.importing.jobs import ImportJobs

BOUNDARY = "cut"
HALF_A_FORM = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nsku,title\r\n'
REST_OF_IT = f"S-1,桌子\r\n\r\n--{BOUNDARY}--\r\n"
Connect = Callable[[str], httpx.Client]
LOGS: dict[str, Path] = {}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[str]:
    settings = {"OPEN_TO": "127.0.0.0/8", "RATE_LIMITS": "search=5/day, generate=4/day"}
    settings |= {"UPLOADS_PER_CLIENT": "2", "UPLOADS_AT_ONCE": "3", "STREAMS_PER_CLIENT": "2", "STREAMS_AT_ONCE": "3"}
    settings |= {"GENERATION_QUEUE_PER_CLIENT": "2", "IMPORT_QUEUE_PER_CLIENT": "2"}
    settings |= {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}  # which is away: nothing is ever drawn
    folder = tmp_path_factory.mktemp("limits")
    with running_api(folder, ready_path="/health/ready", **tiny_models, **settings) as url:
        LOGS[url] = folder / "api.log"
        yield url


@pytest.fixture
def connect(url: str) -> Iterator[Connect]:
    """A client of the address."""
    with ExitStack() as open_clients:

        def connect(address: str) -> httpx.Client:
            transport = httpx.HTTPTransport(local_address=address)
            return open_clients.enter_context(httpx.Client(base_url=url, transport=transport, timeout=30))

        yield connect


def new_key(client: httpx.Client, name: str, scope: str, rate_limits: str | None = None) -> dict[str, str]:
    made = client.post("/keys", json={"name": name, "scopes": [scope], "rate_limits": rate_limits})
    assert made.status_code == 201, made.text
    assert made.json()["rate_limits"] == rate_limits
    return {"X-API-Key": made.json()["key"]}


def test_who_asks_too_often_is_told_when_to_come_again(connect: Connect) -> None:
    client = connect("127.0.0.2")
    answers = [client.get("/product/list") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"search-86400";q=5;w=86400'}
    shown = [re.fullmatch(r'"search-86400";r=(\d+);t=(\d+)', answer.headers["RateLimit"]) for answer in answers]
    assert [match and int(match[1]) for match in shown] == [4, 3, 2, 1, 0, 0]
    refused, last = answers[-1], shown[-1]
    assert last is not None
    assert refused.headers["Retry-After"] == last[2]
    problem = refused.json()
    assert refused.headers["content-type"] == "application/problem+json"
    assert (problem["type"], problem["code"]) == ("urn:tuwen:problem:rate-limited", "rate_limited")
    assert problem["parameters"] | {"seconds": 0} == {
        "client": "address 127.0.0.2", "limit": 5, "what": "requests", "kind": "search", "window": 86400, "seconds": 0
    }  # fmt: skip
    in_chinese = client.get("/product/list", headers={"Accept-Language": "zh"}).json()
    assert in_chinese["detail"].startswith("客户端 address 127.0.0.2 已达到上限：86400 秒内 5 次请求（查询）")
    assert connect("127.0.0.3").get("/product/list").status_code == 200
    unlimited = client.get("/keys")  # of the scope admin
    assert (unlimited.status_code, "RateLimit" in unlimited.headers) == (200, False)


def test_a_key_has_limits_of_its_own(connect: Connect) -> None:
    client = connect("127.0.0.2")
    by_key = new_key(client, "till", "search", "search=2/day, search=7/2 days")
    answers = [client.get("/product/list", headers=by_key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"search-86400";q=2;w=86400, "search-172800";q=7;w=172800'
    wrong = client.post("/keys", json={"name": "x", "scopes": ["search"], "rate_limits": "search=fast"})
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (422, "wrong_limits")
    assert "search=50/second" in wrong.json()["detail"]


def test_an_ipv6_network_is_one_client() -> None:
    shown = [client_at(Origin(ip_address(each), True, each)) for each in ("2001:db8::1", "2001:db8::2:0:0:9")]
    assert shown == ["address 2001:db8::/64"] * 2
    assert client_at(Origin(ip_address("10.0.0.1"), True, "10.0.0.1")) == "address 10.0.0.1"


@contextmanager
def uploading(url: str, address: str, headers: dict[str, str]) -> Iterator[socket.socket]:
    """An import whose second half does not come."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} | headers
    with sending(url, address, "/product/import", headers, HALF_A_FORM, REST_OF_IT) as connection:
        yield connection


@contextmanager
def sending(
    url: str, address: str, path: str, headers: dict[str, str], half: str, rest: str
) -> Iterator[socket.socket]:
    """Of a body, half."""
    host = httpx.URL(url)
    lines = [f"Host: {host.host}:{host.port}", f"Content-Length: {len((half + rest).encode())}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", half])
    with socket.create_connection((host.host, host.port or 80), timeout=30, source_address=(address, 0)) as connection:
        connection.sendall(request.encode())
        yield connection


def test_no_client_has_all_uploads(url: str, connect: Connect) -> None:
    def upload(address: str) -> httpx.Response:
        return connect(address).post("/product", data={"title": ""}, files={"image": picture()})

    with ExitStack() as under_way:
        for address in ("127.0.0.4", "127.0.0.4", "127.0.0.5"):
            under_way.enter_context(uploading(url, address, {}))
        wait_until(lambda: upload("127.0.0.6").status_code == 503, what="three uploads to have begun")
        own, all_taken = upload("127.0.0.4"), upload("127.0.0.5")
        assert (own.status_code, own.json()["code"], own.headers["Retry-After"]) == (429, "too_many_at_once", "1")
        assert (all_taken.status_code, all_taken.json()["type"]) == (503, "urn:tuwen:problem:overloaded")
        small = connect("127.0.0.6").post("/search", json={"mode": "text_to_text", "text": "桌子"})
        assert small.status_code == 200, small.text  # it is no upload
    wait_until(lambda: upload("127.0.0.4").status_code == 422, what="room for the next")


def test_an_import_ends_with_its_key(url: str, connect: Connect) -> None:
    """Whether the rest of its file comes at once or never."""
    client = connect("127.0.0.2")
    for number, rest in enumerate((REST_OF_IT, "")):
        by_key = new_key(client, f"feed-{number}", "write")
        with uploading(url, "127.0.0.7", by_key) as connection:
            wait_until(lambda: has_been_used(client, f"feed-{number}"), what="the upload to have begun")  # noqa: B023
            assert client.delete(f"/keys/feed-{number}").status_code == 204
            connection.sendall(rest.encode())
            answered = problem_from(connection)
        assert answered.startswith("HTTP/1.1 401"), answered
        assert "revoked_key" in answered
    assert client.get("/product/import/1").status_code == 404
    audited = re.findall(r"tuwen\.audit \[[^\]]+\]: (.+) by the key feed-(\d)", LOGS[url].read_text(encoding="utf-8"))
    assert audited == [("POST /product/import 401", "0"), ("POST /product/import 401", "1")]


def test_a_small_body_that_comes_slowly_changes_nothing_once_its_key_has_ended(url: str, connect: Connect) -> None:
    client, half, rest = connect("127.0.0.2"), '{"prompt": ', '"table"}'
    by_key = new_key(client, "slow", "write") | {"Content-Type": "application/json"}
    with sending(url, "127.0.0.7", "/generate", by_key, half, rest) as connection:
        wait_until(lambda: has_been_used(client, "slow"), what="the request to have begun")
        assert client.delete("/keys/slow").status_code == 204
        connection.sendall(rest.encode())
        answered = problem_from(connection)
    assert answered.startswith("HTTP/1.1 401"), answered
    assert "revoked_key" in answered
    assert re.search(r"tuwen\.audit \[[^\]]+\]: POST /generate 401 by the key slow", LOGS[url].read_text("utf-8"))


def problem_from(connection: socket.socket) -> str:
    answered = ""
    while "}" not in answered:  # the end of its body
        answered += connection.recv(10_000).decode()
    return answered


def has_been_used(client: httpx.Client, name: str) -> bool:
    return any(key["name"] == name and key["last_used_at"] for key in client.get("/keys").json()["items"])


@contextmanager
def following(client: httpx.Client, job_id: int, headers: dict[str, str]) -> Iterator[httpx.Response]:
    with client.stream("GET", f"/generate/{job_id}/events", headers=headers) as events:
        yield events


def test_streams_and_drawings_are_shared_and_streams_end_with_their_key(connect: Connect) -> None:
    artist, other = connect("127.0.0.8"), connect("127.0.0.9")
    by_key = new_key(other, "watcher", "write")

    def draw(steps: int = 10) -> httpx.Response:
        return artist.post("/generate", json={"prompt": "桌子", "steps": steps})

    drawn = [draw(), draw(), draw()]
    assert [answer.status_code for answer in drawn] == [202, 202, 429]
    assert (drawn[2].json()["code"], drawn[2].headers["Retry-After"]) == ("too_many_at_once", "1")
    assert draw(101).status_code == 422  # which counts for nothing, as what is refused does
    job_id = drawn[0].json()["job_id"]
    for status in (202, 202, 429):
        assert artist.delete(f"/generate/{drawn[-2].json()['job_id']}").status_code == 204
        drawn[-2:] = [draw()] * 2
        assert drawn[-1].status_code == status
    assert drawn[-1].json()["detail"].startswith("The address 127.0.0.8 has reached its limit of 4 drawings (generate)")
    assert drawn[-1].headers["RateLimit-Policy"] == '"generate-86400";q=4;w=86400'

    with ExitStack() as under_way:
        streams = [under_way.enter_context(following(each, job_id, {})) for each in (artist, artist)]
        with following(artist, job_id, {}) as refused:
            assert refused.status_code == 429
        kept = under_way.enter_context(following(other, job_id, by_key))
        assert {stream.status_code for stream in (*streams, kept)} == {200}
        with following(other, job_id, {}) as refused:
            assert refused.status_code == 503
        assert connect("127.0.0.2").delete("/keys/watcher").status_code == 204
        with pytest.raises(httpx.RemoteProtocolError):  # it is cut off, and does not look complete
            for _ in kept.iter_lines():
                pass
        with following(other, job_id, {}) as events:
            assert events.status_code == 200


def test_a_client_has_a_share_of_the_imports_that_wait(url: str, connect: Connect) -> None:
    """What is on another machine's disk waits for that one."""

    def send(address: str) -> httpx.Response:
        return connect(address).post("/product/import", files={"file": ("a.csv", "sku,title\r\nS-1,桌子\r\n")})

    database = Database(f"sqlite:///{LOGS[url].parent / 'data' / 'tuwen.db'}")
    jobs = [ImportJobs(database).create("elsewhere", "a.csv", "create", "address 127.0.0.12").job_id]
    with uploading(url, "127.0.0.12", {}) as connection:
        wait_until(lambda: len(files_of(url)) > 0, what="the upload to have begun")
        jobs += [ImportJobs(database).create("elsewhere", "a.csv", "create", "address 127.0.0.12").job_id]
        connection.sendall(REST_OF_IT.encode())
        late = problem_from(connection)
    with uploading(url, "127.0.0.12", {}) as connection:  # before it has all come
        early = problem_from(connection)
    for refused in (late, early):
        assert refused.startswith("HTTP/1.1 429"), refused
        assert "The address 127.0.0.12 has 2 imports under way already" in refused
    assert files_of(url) == []
    assert send("127.0.0.14").status_code == 202
    forgotten = sa.update(JobRow).where(JobRow.job_id.in_(jobs))
    with database.write() as session:
        session.execute(forgotten.values(created_at=utc_now() - FORGOTTEN_AFTER))
    assert send("127.0.0.12").status_code == 202
    database.close()


def files_of(url: str) -> list[Path]:
    """That wait to be imported, or are on their way there."""
    return list((LOGS[url].parent / "data" / "imports").glob("*"))

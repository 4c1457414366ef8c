"""Pictures by URL against a server and names that mean no good: refused in time, and nothing inside is reached."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conftest import picture
from tests.promises import require_in_time
from tuwen.errors import AppError, ConfigurationError, ImageTooLarge, InvalidInput
from tuwen.pictures.download import NotFetched, PictureFetcher
from tuwen.pictures.public_network import PublicNetwork
from tuwen.settings import Settings

TIMEOUT_S = 0.5
SLACK_S = 1.0
PUBLIC = "93.184.215.14"
GREETING = "HTTP/1.1 200 OK\r\n"


class HostileServer:
    """Answers by the path; `asked`: what came in, by path."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                while (await reader.readline()).strip():
                    pass
                self.asked.append(path)
                await self._answer(path, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        fixed = {
            "/picture": (200, {}, picture("red")),
            "/bomb": (200, {"Content-Encoding": "gzip"}, picture("red")),
            "/lies": (200, {"Content-Length": "99999999999"}, b"short"),
            "/to-loopback": (302, {"Location": "http://127.0.0.1:1/picture"}, b""),
            "/to-inside": (307, {"Location": f"http://inside.example:{self.port}/picture"}, b""),
            "/to-file": (301, {"Location": "file:///etc/hostname"}, b""),
            "/to-nowhere": (301, {"Location": "http://[::1"}, b""),
            "/round": (302, {"Location": "/round"}, b""),
            "/once": (302, {"Location": "/picture"}, b""),
        }
        if path in fixed:
            status, fields, body = fixed[path]
            fields = {"Content-Length": str(len(body))} | fields
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)
            await writer.drain()
            return
        pieces = {
            "/silent": "",
            "/drip": GREETING + "\r\n",
            "/drip-headers": GREETING,
            "/endless": GREETING + "\r\n",
            "/endless-headers": GREETING,
            "/chunks": GREETING + "Transfer-Encoding: chunked\r\n\r\n",
        }
        writer.write(pieces[path].encode())
        while True:
            await self._go_on(path, writer)

    async def _go_on(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/endless":
            writer.write(b"x" * 65536)
        elif path == "/endless-headers":
            writer.write(b"X-More: " + b"y" * 1000 + b"\r\n")
        elif path == "/chunks":
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        else:
            if path != "/silent":
                writer.write(b"x")
            await asyncio.sleep(0.1)
        await writer.drain()


@asynccontextmanager
async def hostile(hosts: str, networks: str = "") -> AsyncIterator[tuple[PictureFetcher, HostileServer]]:
    """`hosts`: with PORT for the server's."""
    hostile = HostileServer()
    server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0)
    hostile.port = server.sockets[0].getsockname()[1]
    settings = Settings(
        image_url_hosts=hosts.replace("PORT", str(hostile.port)),
        image_url_private_networks=networks,
        image_url_timeout_s=TIMEOUT_S,
        upload_max_bytes=1_000_000,
    )
    async with PictureFetcher(settings) as fetcher:
        yield fetcher, hostile
    server.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(go())


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """A name server of ours: by host, what it answers time after time (the last for ever)."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in answers:
            return real(host, port, *rest, **named)
        several = answers[name].pop(0) if len(answers[name]) > 1 else answers[name][0]
        found = [real(each, port, *rest, **named) for each in several]
        return [entry for entries in found for entry in entries]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


def test_pictures_come_over_one_connection_and_those_that_moved_too() -> None:
    async def scenario() -> None:
        async with hostile("127.0.0.1:PORT", "127.0.0.0/8") as (fetcher, server):
            for path in ("/picture", "/picture", "/once"):
                assert await fetcher.fetch(f"http://127.0.0.1:{server.port}{path}") == picture("red")
            assert server.asked == ["/picture", "/picture", "/once", "/picture"]
            assert server.connections == 2  # what a redirect says besides is not read

    run(scenario)


@pytest.mark.parametrize(
    ("path", "error", "reason"),
    [
        ("/silent", NotFetched, "within 0.5 s"),
        ("/drip", NotFetched, "within 0.5 s"),
        ("/drip-headers", NotFetched, "within 0.5 s"),
        ("/endless", ImageTooLarge, "more than 1,000,000 bytes"),
        ("/chunks", ImageTooLarge, "more than 1,000,000 bytes"),
        ("/lies", ImageTooLarge, "more than 1,000,000 bytes"),
        ("/endless-headers", NotFetched, "can't be fetched"),
        ("/bomb", NotFetched, "compressed"),
        ("/round", NotFetched, "leads on more than 3 times"),
        ("/to-loopback", InvalidInput, "must be http or https on one of"),
        ("/to-inside", InvalidInput, "must be http or https on one of"),
        ("/to-file", InvalidInput, "must be http or https on one of"),
        ("/to-nowhere", InvalidInput, "is not a URL"),
    ],
)
def test_a_hostile_answer_is_refused_in_time(path: str, error: type[AppError], reason: str) -> None:
    async def scenario() -> None:
        async with hostile("127.0.0.1:PORT", "127.0.0.0/8") as (fetcher, server):
            began = time.monotonic()
            with pytest.raises(error, match=reason):
                await fetcher.fetch(f"http://127.0.0.1:{server.port}{path}")
            require_in_time(time.monotonic() - began, TIMEOUT_S + SLACK_S)

    run(scenario)


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"],
)
def test_this_machine_is_not_reached_however_it_is_written(host: str) -> None:
    async def scenario() -> None:
        async with hostile(f"{host}:PORT") as (fetcher, server):
            with pytest.raises(InvalidInput, match="leads to an address of a private network") as refused:
                await fetcher.fetch(f"http://{host}:{server.port}/picture")
            assert not isinstance(refused.value, NotFetched)  # which imports would try again
            assert not server.connections

    run(scenario)


def test_a_name_that_stands_for_another_address_the_second_time_gains_nothing(
    names: dict[str, list[list[str]]],
) -> None:
    async def scenario() -> None:
        async with hostile("rebinding.example:PORT") as (fetcher, server):
            names["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]
            with pytest.raises(NotFetched):  # nobody answers there, at that port
                await fetcher.fetch(f"http://rebinding.example:{server.port}/picture")
            assert names["rebinding.example"] == [["127.0.0.1"]]  # asked once
            with pytest.raises(InvalidInput, match="private network"):
                await fetcher.fetch(f"http://rebinding.example:{server.port}/picture")
            assert not server.connections

    run(scenario)


def test_one_private_address_among_public_ones_is_enough(names: dict[str, list[list[str]]]) -> None:
    async def scenario() -> None:
        async with hostile("mixed.example:PORT") as (fetcher, server):
            names["mixed.example"] = [[PUBLIC, "127.0.0.1"]]
            with pytest.raises(InvalidInput, match="private network"):
                await fetcher.fetch(f"http://mixed.example:{server.port}/picture")
            assert not server.connections

    run(scenario)


def test_where_a_picture_leads_on_to_is_judged_again(names: dict[str, list[list[str]]]) -> None:
    async def scenario() -> None:
        async with hostile("127.0.0.1:PORT, inside.example:PORT", "127.0.0.0/8") as (fetcher, server):
            names["inside.example"] = [["10.0.0.7"]]
            with pytest.raises(InvalidInput, match="private network"):
                await fetcher.fetch(f"http://127.0.0.1:{server.port}/to-inside")

    run(scenario)


def test_hosts_are_the_same_however_they_are_written(names: dict[str, list[list[str]]]) -> None:
    async def scenario() -> None:
        async with hostile("Bilder.Example:PORT, 图片.example:PORT", "127.0.0.0/8") as (fetcher, server):
            names["bilder.example"] = names["xn--wcsw84d.example"] = names["bilder.example."] = [["127.0.0.1"]]
            for host in ("bilder.example", "BILDER.example", "bilder.example.", "图片.example", "xn--wcsw84d.EXAMPLE"):
                assert await fetcher.fetch(f"http://{host}:{server.port}/picture") == picture("red")
            for url in (
                "http://bilder.example/picture",  # the scheme's own port, which is not named
                f"http://bilder.example.evil.example:{server.port}/picture",
                f"http://bilder.example:{server.port}@evil.example/picture",
                f"http://user:word@bilder.example:{server.port}/picture",
                f"ftp://bilder.example:{server.port}/picture",
                f"//bilder.example:{server.port}/picture",
                "bilder.example",
                "",
            ):
                with pytest.raises(InvalidInput, match="must be http or https on one of"):
                    await fetcher.fetch(url)

    run(scenario)


def test_a_host_without_a_port_means_the_ports_of_http_and_https(names: dict[str, list[list[str]]]) -> None:
    async def scenario() -> None:
        async with hostile("bilder.example") as (fetcher, server):
            names["bilder.example"] = [["127.0.0.1"]]
            for url in ("http://bilder.example/", "https://bilder.example:443/"):
                with pytest.raises(InvalidInput, match="private network"):  # so far they get
                    await fetcher.fetch(url)
            for port in (server.port, 443):
                with pytest.raises(InvalidInput, match="must be http or https on one of"):
                    await fetcher.fetch(f"http://bilder.example:{port}/")

    run(scenario)


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with hostile("127.0.0.1:PORT", "127.0.0.0/8") as (fetcher, server):
            assert await fetcher.fetch(f"http://127.0.0.1:{server.port}/picture") == picture("red")

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    run(scenario)


@pytest.mark.parametrize(
    ("address", "is_reached"),
    [
        (PUBLIC, True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("64:ff9b::5db8:d70e", True),  # PUBLIC by a translator
        ("10.1.2.3", True),  # named
        ("10.2.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),
        ("168.63.129.16", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fe80::1%1", False),
        ("fd00:ec2::254", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:192.168.1.1", False),
        ("64:ff9b::c0a8:101", False),  # 192.168.1.1 by a translator
        ("2002:7f00:1::", False),  # 127.0.0.1 by 6to4
        ("fec0::1", False),
        ("64:ff9b:1::7f00:1", False),
        ("::ffff:0:127.0.0.1", False),
        ("::127.0.0.1", False),
        ("5f00::1", False),
        ("192.0.0.8", False),
    ],
)
def test_the_open_internet_alone_is_reached_and_what_is_named(address: str, is_reached: bool) -> None:
    network = PublicNetwork([ipaddress.ip_network("10.1.0.0/16")])
    assert network.may_be_reached(ipaddress.ip_address(address)) is is_reached


def test_no_setting_opens_what_tells_a_machine_its_credentials() -> None:
    network = PublicNetwork([ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")])
    assert network.may_be_reached(ipaddress.ip_address("192.168.1.1"))
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "100.100.100.200", "fd00:ec2::254"):
        assert not network.may_be_reached(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "hosts", ["a b", "\ud800", "user@shop.example", "shop.example/pictures", "shop.example:99999", "http://x"]
)
def test_a_host_that_is_none_ends_the_start(hosts: str) -> None:
    with pytest.raises(ConfigurationError, match="IMAGE_URL_HOSTS"):
        PictureFetcher(Settings(image_url_hosts=hosts))

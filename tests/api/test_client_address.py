"""Whose address counts: what a connection and its headers say, and what of it is believed."""

import asyncio
from ipaddress import ip_network

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tuwen.api.client_address import ClientAddress, Origin, origin_of

TRUSTED = [ip_network("10.0.0.0/24"), ip_network("fd00::/64"), ip_network("127.0.0.1/32")]
HEADERS = list[tuple[str, str]]


def origin(peer: str | None, headers: HEADERS, uvicorn_trusts: str = "") -> tuple[Origin, Scope]:
    """`uvicorn_trusts`: as FORWARDED_ALLOW_IPS would have it; empty: --no-proxy-headers."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def nothing(*_: object) -> None:
        raise AssertionError("nothing is received or sent")

    asgi = ClientAddress(app, TRUSTED)
    scope: Scope = {"type": "http", "scheme": "http", "client": None if peer is None else (peer, 4711)}
    scope["headers"] = [(name.lower().encode(), value.encode()) for name, value in headers]
    served = ProxyHeadersMiddleware(asgi, uvicorn_trusts) if uvicorn_trusts else asgi  # type: ignore[arg-type]
    asyncio.run(served(scope, nothing, nothing))  # type: ignore[arg-type]
    return origin_of(seen[0]), seen[0]


@pytest.mark.parametrize(
    ("peer", "headers", "address", "is_direct"),
    [
        ("192.0.2.7", [], "192.0.2.7", True),
        ("127.0.0.2", [], "127.0.0.2", True),
        ("::ffff:127.0.0.2", [], "127.0.0.2", True),
        ("127.0.0.1", [], None, False),  # a proxy that does not say for whom
        ("::ffff:10.0.0.5", [], None, False),
        ("192.0.2.7", [("X-Forwarded-For", "127.0.0.1")], None, False),
        ("10.0.0.5", [("X-Forwarded-For", "192.0.2.7")], "192.0.2.7", False),
        ("10.0.0.5", [("X-Forwarded-For", "127.0.0.1, 192.0.2.7")], "192.0.2.7", False),
        ("10.0.0.5", [("X-Forwarded-For", "192.0.2.7, 10.0.0.6")], "192.0.2.7", False),
        ("10.0.0.5", [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "192.0.2.7")], "192.0.2.7", False),
        ("10.0.0.5", [("X-Forwarded-For", "192.0.2.7:5555")], "192.0.2.7", False),
        ("fd00::5", [("X-Forwarded-For", "[2001:db8::7]:5555")], "2001:db8::7", False),
        ("fd00::5", [("X-Forwarded-For", "2001:db8::7")], "2001:db8::7", False),
        ("10.0.0.5", [("X-Forwarded-For", "10.0.0.7")], "10.0.0.7", False),
        ("10.0.0.5", [("X-Forwarded-For", "10.0.0.8, 10.0.0.7")], "10.0.0.7", False),  # the left one may be forged
        ("10.0.0.5", [("X-Forwarded-For", "192.0.2.7, unknown")], None, False),
        ("10.0.0.5", [("X-Forwarded-For", "")], None, False),
        ("10.0.0.5", [("Via", "1.1 proxy")], None, False),
        ("127.0.0.2", [("X-Real-IP", "127.0.0.1")], None, False),
        ("127.0.0.2", [("X-Forwarded-Server", "shop")], None, False),
        ("127.0.0.2", [("CF-Connecting-IP", "192.0.2.7")], None, False),
        ("127.0.0.2", [("True-Client-IP", "192.0.2.7")], None, False),
        ("127.0.0.2", [("X-Client-IP", "192.0.2.7")], None, False),
        ("127.0.0.2", [("X-Cluster-Client-IP", "192.0.2.7")], None, False),
        ("testclient", [], None, True),
        (None, [], None, True),
    ],
)
def test_only_trusted_proxies_are_believed(
    peer: str | None, headers: HEADERS, address: str | None, is_direct: bool
) -> None:
    found, _ = origin(peer, headers)
    assert (found.address and str(found.address), found.is_direct) == (address, is_direct)
    assert found.is_this_machine == (address == "127.0.0.2")


@pytest.mark.parametrize("uvicorn_trusts", ["127.0.0.1", "*", "10.0.0.0/24"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.5", "192.0.2.7"])
@pytest.mark.parametrize("forged", ["127.0.0.1", "127.0.0.1:80", "198.51.100.1, 10.0.0.5", "10.0.0.5, 198.51.100.1"])
def test_what_uvicorn_takes_from_headers_opens_nothing(uvicorn_trusts: str, peer: str, forged: str) -> None:
    """198.51.100.1: of a network that needs no key. All these headers were written by whoever asks."""
    found, _ = origin(peer, [("X-Forwarded-For", forged)], uvicorn_trusts)
    assert not found.is_this_machine
    if peer == "192.0.2.7":
        assert str(found.address) not in ("127.0.0.1", "198.51.100.1")


def test_a_trusted_proxy_says_the_scheme() -> None:
    headers = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")]
    _, scope = origin("10.0.0.5", headers)
    assert (scope["scheme"], scope["client"]) == ("https", ("192.0.2.7", 0))
    _, scope = origin("192.0.2.1", headers)
    assert (scope["scheme"], scope["client"]) == ("http", ("192.0.2.1", 4711))

"""Where a request comes from: the connection's other end, or what trusted proxies (`TRUSTED_PROXIES`) say of it.

A header that nobody trusted has written gains nothing: a request with one counts as from nowhere that needs no key.
"""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

KEY = "tuwen.origin"
FORWARDED_FOR, FORWARDED_PROTO = b"x-forwarded-for", b"x-forwarded-proto"
SIGNS_OF_A_PROXY = {b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip"}
SIGNS_OF_A_PROXY |= {b"cf-connecting-ip"}


class Origin(NamedTuple):
    address: Address | None
    """None: it can't be told."""
    is_direct: bool
    """No proxy stands between."""
    shown: str

    def is_in(self, networks: Collection[Network]) -> bool:
        return self.address is not None and any(self.address in network for network in networks)

    @property
    def is_this_machine(self) -> bool:
        return self.is_direct and self.address is not None and self.address.is_loopback


class ClientAddress:
    """Finds each request's origin, and hands it on in the scope. With a trusted proxy's it also knows the scheme."""

    def __init__(self, app: ASGIApp, trusted_proxies: Collection[Network]) -> None:
        self._app = app
        self._trusted = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            origin = scope[KEY] = self._origin(scope)
            if origin.address is not None and not origin.is_direct:
                scope["client"] = (str(origin.address), 0)
                scheme = dict(scope["headers"]).get(FORWARDED_PROTO, b"").decode("latin-1")
                if scheme in ("http", "https"):
                    scope["scheme"] = scheme
        await self._app(scope, receive, send)

    def _origin(self, scope: Scope) -> Origin:
        peer = scope["client"][0] if scope.get("client") else "a socket"
        connected = _parsed(peer)
        if connected is None or not self._is_trusted(connected):
            if not any(_is_sign_of_a_proxy(name) for name, _ in scope["headers"]):
                return Origin(connected, is_direct=True, shown=peer)
            return Origin(None, is_direct=False, shown=f"{peer} (through a proxy that TRUSTED_PROXIES does not name)")
        lines = [value for name, value in scope["headers"] if name == FORWARDED_FOR]
        hops = [_parsed(hop) for hop in b",".join(lines).decode("latin-1").split(",")]
        # Where all are proxies, the one that our own proxy has seen: those before it may be the client's invention.
        client = next((hop for hop in reversed(hops) if hop is None or not self._is_trusted(hop)), hops[-1])
        # The connection's own address among them: uvicorn (--proxy-headers) has put it there by rules of its own.
        if client is None or connected in hops:
            return Origin(None, is_direct=False, shown=f"{peer} (a proxy whose X-Forwarded-For does not say for whom)")
        return Origin(client, is_direct=False, shown=str(client))

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def origin_of(scope: Scope) -> Origin:
    origin: Origin = scope[KEY]
    return origin


def _is_sign_of_a_proxy(header: bytes) -> bool:
    return header in SIGNS_OF_A_PROXY or header.startswith(b"x-forwarded")


def _parsed(text: str) -> Address | None:
    """With or without a port. An IPv4 address that came over an IPv6 socket is an IPv4 address."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

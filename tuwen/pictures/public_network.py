"""Connections to addresses of the open internet alone: what a name stands for is looked up, judged and used at once.

Judged before and looked up again while connecting, a name could stand for another address by then (DNS rebinding).
"""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from tuwen.background import WorkPool
from tuwen.errors import InvalidInput, Overloaded

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Where clouds tell a machine its own credentials: the first is nearly everybody's, then Alibaba, Azure, AWS by IPv6.
METADATA = frozenset(
    map(ipaddress.ip_address, ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"))
)
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# All of IPv6 that is given out (RFC 4291). What else Python calls global stands for networks inside, or for nothing.
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")


class PublicNetwork(httpcore.AnyIOBackend):
    """`private`: networks that may be reached besides."""

    def __init__(self, private: Sequence[Network]) -> None:
        self._private = private
        # A silent name server holds a thread for as long as it likes.
        self._resolving = WorkPool("resolving the hosts of image_url", threads=8, max_waiting=64)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises InvalidInput where one of the host's addresses is not to be reached."""
        addresses = await self._addresses(host, port)
        if not all(self.may_be_reached(address) for address in addresses):
            raise InvalidInput.in_field(
                "image_url",
                "leads to an address of a private network; IMAGE_URL_PRIVATE_NETWORKS names those that may be reached",
            )
        for address in addresses[:-1]:
            try:
                return await super().connect_tcp(str(address), port, timeout, local_address, socket_options)
            except httpcore.ConnectError:
                continue  # the next may answer
        return await super().connect_tcp(str(addresses[-1]), port, timeout, local_address, socket_options)

    def may_be_reached(self, address: Address) -> bool:
        inner = _address_within(address)
        if not {address, inner}.isdisjoint(METADATA):
            return False
        if any(inner in network for network in self._private):
            return True
        return _is_public(inner) and (address in NAT64 or _is_public(address))

    async def _addresses(self, host: str, port: int) -> list[Address]:
        try:
            found = await self._resolving.run(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("there is no such host") from error
        except Overloaded as error:
            raise httpcore.ConnectTimeout("too many hosts wait for the name server") from error
        return list(dict.fromkeys(ipaddress.ip_address(each[4][0]) for each in found))


def _is_public(address: Address) -> bool:
    given_out = address in GLOBAL_UNICAST or (address.version == 4 and address not in PROTOCOLS)  # noqa: PLR2004
    # Shared addresses (100.64.0.0/10) are neither global nor private.
    return given_out and address.is_global and not address.is_multicast


def _address_within(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4, Teredo's client, or a translator's."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address

"""How much of the service a caller may take: how often he asks, and how much of what lasts he has under way.

What lasts ends with the key that began it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv6Address, IPv6Network
from typing import NamedTuple

from fastapi import Request
from starlette.types import Scope

from data_models import KeyScope
from tuwen.access.errors import RateLimited
from tuwen.access.keyring import Keyring, KnownKey
from tuwen.access.rates import Rate, Standing
from tuwen.api.client_address import Origin
from tuwen.api.state import Api

SMALL_BODY_BYTES = 64 * 1024
LOOK_AT_KEY_EVERY_S = 1.0
IPV6_NETWORK = 64  # which a household or a machine has for itself

_UNTIL_ANSWERED, _STANDINGS, _HAS_BEGUN = "tuwen.until_answered", "tuwen.standings", "tuwen.has_begun"

logger = logging.getLogger(__name__)


class Caller(NamedTuple):
    """Who asks, and may do what."""

    client: str
    """By what his requests are counted: his key, or where he comes from."""
    key: KnownKey | None
    """None: a client that needs no key."""
    scopes: frozenset[KeyScope]


def client_at(origin: Origin) -> str:
    address = origin.address
    network = IPv6Network((address, IPV6_NETWORK), strict=False) if isinstance(address, IPv6Address) else address
    return f"address {network or origin.shown}"


def client_of(scope: Scope) -> str:
    """Whose request that is which is let in already; else it is nobody's."""
    caller: Caller | None = scope.get("state", {}).get("caller")
    return caller.client if caller else "stranger"


async def admit(request: Request, caller: Caller, kind: str) -> None:
    """Counts it. Raises RateLimited."""
    limiter, rates = request.state.api.limiter, _rates_of(request, caller, kind)
    if not rates:
        return
    standings: list[Standing] = request.scope.setdefault(_STANDINGS, [])
    try:
        standings += await limiter.take(caller.client, rates)
    except RateLimited:
        standings += limiter.standings(caller.client, rates)
        raise


def take_back(request: Request, caller: Caller, kind: str) -> None:
    """What `admit` has counted came to nothing."""
    request.state.api.limiter.give_back(caller.client, _rates_of(request, caller, kind))


def _rates_of(request: Request, caller: Caller, kind: str) -> Sequence[Rate]:
    api: Api = request.state.api
    return api.limiter.rates_of(kind, caller.key.rate_limits if caller.key else None)


def rate_limit_headers(scope: Scope) -> dict[str, str]:
    """None where nothing is limited. As draft-ietf-httpapi-ratelimit-headers-10 has them."""
    standings: list[Standing] = scope.get(_STANDINGS, [])
    if not standings:
        return {}
    policies = (f'"{rate.name}";q={rate.amount};w={rate.window_s}' for rate, _, _ in standings)
    left = (f'"{rate.name}";r={left};t={ends_in_s}' for rate, left, ends_in_s in standings)
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}


def is_upload(request: Request) -> bool:
    """It has a body that may take long to come in, or that is held in memory."""
    headers = request.headers
    length = headers.get("content-length", "0")
    is_large = "transfer-encoding" in headers or not length.isdigit() or int(length) > SMALL_BODY_BYTES
    return is_large or headers.get("content-type", "").strip().lower().startswith("multipart/")


def until_answered(scope: Scope) -> AsyncExitStack:
    """What `hold_slot` takes is held until this ends, which is to be around the route."""
    stack: AsyncExitStack = scope.setdefault(_UNTIL_ANSWERED, AsyncExitStack())
    return stack


def note_beginning(scope: Scope) -> None:
    """Of the answer: from now on it can be cut off, and no other be given."""
    scope[_HAS_BEGUN] = True


async def hold_slot(request: Request, caller: Caller, *, streams: bool) -> None:
    """Until the request is answered to its end. Raises TooManyAtOnce or Overloaded."""
    api: Api = request.state.api
    until = until_answered(request.scope)
    until.enter_context((api.lasting.streams if streams else api.lasting.uploads).hold(caller.client))
    if caller.key is not None:
        await until.enter_async_context(_while_good(caller.key, api.keyring, request.scope))


@asynccontextmanager
async def _while_good(key: KnownKey, keyring: Keyring, scope: Scope) -> AsyncIterator[None]:
    """Cuts off what goes on when the key has ended. Raises KeyRefused where nothing is answered yet."""
    try:
        async with asyncio.timeout(None) as end:
            watching = asyncio.create_task(_end_with(key, keyring, end))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        refusal = keyring.refusal_of(key) if end.expired() else None
        if refusal is None:
            raise
        if not scope.get(_HAS_BEGUN):
            raise refusal from None
        logger.warning("The answer to %s %s is cut off: %s", scope["method"], scope["path"], refusal.detail)


async def _end_with(key: KnownKey, keyring: Keyring, end: asyncio.Timeout) -> None:
    while keyring.refusal_of(key) is None:  # noqa: ASYNC110  # time ends it, too
        await asyncio.sleep(LOOK_AT_KEY_EVERY_S)
    end.reschedule(asyncio.get_running_loop().time())

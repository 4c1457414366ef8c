"""Whoever needs no key may have a browser, which any web site uses for requests of its own: those are refused here."""

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request

from tuwen.access.errors import Forbidden

READING = {"GET", "HEAD"}


def require_own_name(request: Request, host_names: tuple[str, ...], is_open: bool) -> None:
    """A page of any web site may have its own name point here (DNS rebinding), and then reads what we answer."""
    asked_for = [request.headers.get("host", "")]
    asked_for += [name.strip() for line in request.headers.getlist("x-forwarded-host") for name in line.split(",")]
    for name in asked_for:
        host = _host_of(name)
        if host is None or not (host[0] in host_names or _is_own_name(host[0], is_open)):
            raise Forbidden(
                f"Without an API key this service is called by its address, as localhost or by a name in HOST_NAMES, "
                f"and not as '{name}'."
            )


def _host_of(text: str) -> tuple[str, int | None] | None:
    """Name or address, and the port; None for what is neither."""
    try:
        parts = urlsplit(f"//{text}")
        host = parts.hostname, parts.port
    except ValueError:
        return None
    if not host[0] or parts.netloc != text or "@" in text:
        return None
    return host[0].removesuffix("."), host[1]


def _is_own_name(name: str, is_open: bool) -> bool:
    """`is_open`: to a network, in which containers call each other by names without a dot, which no web site has."""
    try:
        return bool(ip_address(name))
    except ValueError:
        own = name in ("localhost", socket.gethostname().lower()) or name.endswith(".localhost")
        return own or (is_open and "." not in name)


def require_no_other_site(request: Request, allowed: tuple[str, ...]) -> None:
    """A page of any web site may have its reader's browser send forms here; without a key it is told by this alone.

    To read it may ask: its browser doesn't let it see the answer, unless `*` does. That names nobody here: it is for
    pages that have a key.
    """
    origin = request.headers.get("origin")
    if origin in allowed or (request.method in READING and "*" not in allowed):
        return
    is_other = request.headers.get("sec-fetch-site") == "cross-site" and request.method not in READING
    if origin is not None:
        site = _host_of(origin.partition("://")[2])
        is_other |= site is None or site != _host_of(request.headers.get("host", ""))
    if is_other:
        raise Forbidden(
            f"A page of '{origin or 'another site'}' asks without an API key, and CORS_ALLOW_ORIGINS does not name it."
        )

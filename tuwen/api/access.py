"""Who may call what. Each route declares the scope that it needs (`@needs`), and `GuardedRoute` asks for it.

Before a body is read or a parameter looked at. A route that declares nothing ends the start.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from data_models import KEY_SCOPES, KeyScope
from orm_models import utc_now
from tuwen.access.errors import Forbidden, KeyRefused, NotAuthenticated, ScopeMissing
from tuwen.access.keyring import KnownKey
from tuwen.api.client_address import ClientAddress, Origin, origin_of
from tuwen.api.problems import as_invalid_input, problem_responses
from tuwen.api.state import Api
from tuwen.errors import AppError, ConfigurationError
from tuwen.settings import Settings

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Awaitable[Response]]

ALL_SCOPES = frozenset(KEY_SCOPES)
READING = {"GET", "HEAD"}
_NEEDED = "tuwen_needed_scope"

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

audit = logging.getLogger("tuwen.audit")
audit.setLevel(logging.INFO)  # whatever LOG_LEVEL is


class Caller(NamedTuple):
    """Who asks, and may do what. The shop that a key belongs to would stand here, for the queries to read."""

    key: str | None
    """Its name; None: a client that needs no key."""
    scopes: frozenset[KeyScope]


class DeclaredRoute(NamedTuple):
    method: str
    path: str
    scope: KeyScope | None
    """None: it needs no key."""


def needs(scope: KeyScope) -> Callable[[Endpoint], Endpoint]:
    """Below the router's decorators: only a caller with this scope gets to the endpoint."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _NEEDED, scope)
        return endpoint

    return declare


def needs_no_key(endpoint: Endpoint) -> Endpoint:
    setattr(endpoint, _NEEDED, None)
    return endpoint


class GuardedRoute(APIRoute):
    """What each router's routes are."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle, scope = super().get_route_handler(), needed_scope(self)
        if scope is None:
            return handle

        async def guarded(request: Request) -> Response:
            caller = request.state.caller = await require_caller(request)
            require_scope(request, scope)
            if caller.key is None or request.method in READING:
                return await handle(request)
            return await _audited(handle, request, caller.key)

        return guarded

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """No cache on the way may give one caller's answer, a refusal too, to another."""

        async def send_varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).add_vary_header("Authorization, X-API-Key")
            await send(message)

        await super().handle(scope, receive, send_varying)


def require_scope(request: Request, scope: KeyScope) -> None:
    """Once the caller is known; also for what a route gives only to some of its callers. Raises ScopeMissing."""
    caller: Caller = request.state.caller
    if scope not in caller.scopes:
        has = ", ".join(each for each in KEY_SCOPES if each in caller.scopes)
        raise ScopeMissing(f"This needs the scope {scope}; the API key {caller.key} has {has}.")


def needed_scope(route: APIRoute) -> KeyScope | None:
    """Raises ConfigurationError."""
    try:
        scope: KeyScope | None = getattr(route.endpoint, _NEEDED)
    except AttributeError as error:
        raise ConfigurationError(f"{route.path} declares no scope: tuwen/api/access.py says how.") from error
    return scope


def declared_routes(app: FastAPI) -> Iterator[DeclaredRoute]:
    """All but the pages of the documentation. Raises ConfigurationError where one is guarded by nothing."""
    documentation = {app.openapi_url, app.docs_url, app.swagger_ui_oauth2_redirect_url, app.redoc_url}
    for context in iter_route_contexts(app.routes):  # into the routers that are included, which have no path
        route = context.original_route
        if isinstance(route, GuardedRoute):
            for method in sorted(context.methods or ()):
                yield DeclaredRoute(method, context.path or "", needed_scope(route))
        elif isinstance(route, APIRoute) or context.path is None or context.path not in documentation:
            where = context.path or repr(route)
            raise ConfigurationError(f"{where} is not guarded: all is served by a router's GuardedRoute (route_class).")
    if list(app.router._iter_low_priority_routes()):  # which stand among no other routes
        raise ConfigurationError("What app.frontend() serves is not guarded: all is served by a router's GuardedRoute.")


def install_access(app: FastAPI, settings: Settings) -> None:
    """Once all routes are there. Raises ConfigurationError where one is guarded by nothing."""
    routes = [route for route in declared_routes(app) if route.scope is not None]
    app.add_middleware(ClientAddress, trusted_proxies=settings.trusted_proxies)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["securitySchemes"] = SCHEMES
        for method, path, scope in routes:
            if operation := document["paths"].get(path, {}).get(method.lower()):
                operation["security"] = [{scheme: [scope]} for scheme in SCHEMES] + [{}]
                refusals = problem_responses(NotAuthenticated, ScopeMissing)
                operation["responses"] |= {str(status): response for status, response in refusals.items()}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as `install_openapi` does


async def require_caller(request: Request) -> Caller:
    """Raises NotAuthenticated, Forbidden, or DatabaseUnavailable where it can't be told."""
    api: Api = request.state.api
    if key := presented_key(request):
        known = await api.keyring.find(key)
        return _caller_with(known, api)
    origin, settings = origin_of(request.scope), api.services.settings
    is_open = origin.is_in(settings.open_to)
    if not is_open:
        if await api.keyring.has_any():
            raise NotAuthenticated(
                "An API key is needed here: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'. Whoever runs "
                "this service makes one with 'python cli.py keys create'."
            )
        _require_this_machine(origin)
    _require_own_name(request, settings.host_names, is_open)
    _require_no_other_site(request, settings.cors_allow_origins)
    return Caller(None, ALL_SCOPES)


def log_change_of_keys(request: Request, name: str, done: str) -> None:
    """Also where no key was needed for it."""
    key: str | None = request.state.caller.key
    who = "somebody who needs no key" if key is None else f"the key {key}"
    audit.info("The API key %s was %s by %s from %s", name, done, who, origin_of(request.scope).shown)


async def is_admin(request: Request) -> bool:
    """For what all may see in part. Whoever can't be told is a stranger."""
    try:
        return "admin" in (await require_caller(request)).scopes
    except AppError:
        return False


async def refuse_pages_without_key(request: Request) -> None:
    """A dependency of what lasts: a key that a page has made would go on where the page no longer gets in."""
    if request.state.caller.key is None and "origin" in request.headers:
        raise Forbidden("A web page changes API keys only with one of its own, of the scope admin.")


def presented_key(request: Request) -> str:
    """Empty: none. Another scheme than Bearer is some proxy's own business."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return request.headers.get("x-api-key", "") or (credentials.strip() if scheme.lower() == "bearer" else "")


def _caller_with(known: KnownKey | None, api: Api) -> Caller:
    if known is None:
        raise KeyRefused("This API key is not known here.")
    if known.revoked_at is not None:
        raise KeyRefused(f"The API key {known.name} is revoked.")
    if known.expires_at is not None and known.expires_at <= utc_now():
        raise KeyRefused(f"The API key {known.name} has expired.")
    api.keyring.note_use(known)
    return Caller(known.name, known.scopes)


def _require_this_machine(origin: Origin) -> None:
    if not origin.is_this_machine:
        raise Forbidden(
            f"There is no API key yet, so only this machine is answered, and {origin.shown} is another. Whoever runs "
            "this service makes a key with 'python cli.py keys create --name NAME --scope search', or names the "
            "networks that need none in OPEN_TO."
        )


def _require_own_name(request: Request, host_names: tuple[str, ...], is_open: bool) -> None:
    """A page of any web site may have its own name point here (DNS rebinding), and then reads what we answer."""
    asked_for = [request.headers.get("host", "")]
    asked_for += [name.strip() for line in request.headers.getlist("x-forwarded-host") for name in line.split(",")]
    for name in asked_for:
        host = _host_of(name)
        if host is None or not (host[0] in host_names or _is_own_name(host[0], is_open)):
            raise Forbidden(
                f"Without an API key this service is called by its address, as localhost or by a name in HOST_NAMES, "
                f"and not as {name!r}."
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


def _require_no_other_site(request: Request, allowed: tuple[str, ...]) -> None:
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
            f"A page of {origin or 'another site'!r} asks without an API key, and CORS_ALLOW_ORIGINS does not name it."
        )


async def _audited(handle: Handler, request: Request, key: str) -> Response:
    status = 500
    try:
        response = await handle(request)
        status = response.status_code
    except AppError as error:
        status = error.status
        raise
    except RequestValidationError as error:
        status = as_invalid_input(error).status
        raise
    finally:
        path = quote(request.scope["path"], safe="/")
        audit.info("%s %s %d by the key %s from %s", request.method, path, status, key, origin_of(request.scope).shown)
    return response

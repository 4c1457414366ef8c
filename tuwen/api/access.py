"""Who may call what. Each route declares the scope that it needs (`@needs`), and `GuardedRoute` asks for it.

Before a body is read or a parameter looked at. A route that declares nothing ends the start.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from data_models import KEY_SCOPES, KeyScope
from tuwen.access.errors import Forbidden, KeyRefused, NotAuthenticated, RateLimited, ScopeMissing
from tuwen.access.keyring import KnownKey, refusal_of
from tuwen.api.admission import (
    Caller,
    admit,
    client_at,
    hold_slot,
    is_upload,
    note_beginning,
    rate_limit_headers,
    until_answered,
)
from tuwen.api.browsers import READING, require_no_other_site, require_own_name
from tuwen.api.client_address import ClientAddress, Origin, origin_of
from tuwen.api.problems import as_invalid_input, problem_responses
from tuwen.api.state import Api
from tuwen.errors import AppError, ConfigurationError
from tuwen.settings import Settings

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Awaitable[Response]]

ALL_SCOPES = frozenset(KEY_SCOPES)
PATH_PARAMETER = re.compile(r"\{(\w+):\w+\}")
_NEEDED, _STREAMS, _OPENED_BY = "tuwen_needed_scope", "tuwen_streams", "tuwen_opened_by"

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

audit = logging.getLogger("tuwen.audit")
audit.setLevel(logging.INFO)  # whatever LOG_LEVEL is


class DeclaredRoute(NamedTuple):
    method: str
    path: str
    scope: KeyScope | None
    """None: it needs no key."""


def needs(scope: KeyScope, *, streams: bool = False, opened_by: str = "") -> Callable[[Endpoint], Endpoint]:
    """Below the router's decorators: only a caller with this scope gets to the endpoint.

    `streams`: its answer may take long, so that a client has only so many of them, and ends with its key.
    `opened_by`: the setting that lets in whoever sends no key, too.
    """

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _NEEDED, scope)
        setattr(endpoint, _STREAMS, streams)
        setattr(endpoint, _OPENED_BY, opened_by)
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
        streams: bool = getattr(self.endpoint, _STREAMS)
        opened_by: str = getattr(self.endpoint, _OPENED_BY)

        async def guarded(request: Request) -> Response:
            caller = request.state.caller = await require_caller(request, frozenset({scope}), opened_by)
            require_scope(request, scope)
            await admit(request, caller, scope)
            if streams or is_upload(request):
                await hold_slot(request, caller, streams=streams)
            if caller.key is not None and caller.key.shop_id is not None:
                request.state.api = request.state.api.of_shop(caller.key.shop_id)
            if caller.key is None or request.method in READING or scope == "search":
                return await handle(request)
            return await _audited(handle, request, caller.key.name)

        return guarded

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """No cache on the way may give one caller's answer, a refusal too, to another."""

        async def send_described(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Authorization, X-API-Key")
                headers.update(rate_limit_headers(scope))
                note_beginning(scope)
            await send(message)

        async with until_answered(scope):
            await super().handle(scope, receive, send_described)


def require_scope(request: Request, scope: KeyScope) -> None:
    """Once the caller is known; also for what a route gives only to some of its callers. Raises ScopeMissing."""
    caller: Caller = request.state.caller
    if scope not in caller.scopes:
        has = ", ".join(each for each in KEY_SCOPES if each in caller.scopes)
        name = caller.key.name if caller.key else None
        raise ScopeMissing(f"This needs the scope {scope}; the API key {name} has {has}.")


def needed_scope(route: APIRoute) -> KeyScope | None:
    """Raises ConfigurationError."""
    try:
        scope: KeyScope | None = getattr(route.endpoint, _NEEDED)
    except AttributeError as error:
        raise ConfigurationError(f"{route.path} declares no scope: tuwen/api/access.py says how.") from error
    return scope


def declared_routes(app: FastAPI) -> Iterator[DeclaredRoute]:
    """All but FastAPI's own of the OpenAPI document. Raises ConfigurationError where one is guarded by nothing."""
    for context in iter_route_contexts(app.routes):  # into the routers that are included, which have no path
        route = context.original_route
        if isinstance(route, GuardedRoute):
            for method in sorted(context.methods or ()):
                yield DeclaredRoute(method, context.path or "", needed_scope(route))
        elif isinstance(route, APIRoute) or context.path is None or context.path != app.openapi_url:
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
            shown = PATH_PARAMETER.sub(r"{\1}", path)  # a document knows no {sku:path}
            if operation := document["paths"].get(shown, {}).get(method.lower()):
                operation["security"] = [{scheme: [scope]} for scheme in SCHEMES] + [{}]
                refusals = problem_responses(NotAuthenticated, ScopeMissing, RateLimited)
                operation["responses"] |= {str(status): response for status, response in refusals.items()}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as `install_openapi` does


async def require_caller(request: Request, scopes: frozenset[KeyScope] = frozenset(), opened_by: str = "") -> Caller:
    """`opened_by`: the setting that gives `scopes` to whoever sends no key. Raises NotAuthenticated, Forbidden, or
    DatabaseUnavailable where it can't be told."""
    api: Api = request.state.api
    if key := presented_key(request):
        known = await api.keyring.find(key)
        return _caller_with(known, api)
    origin, settings = origin_of(request.scope), api.services.settings
    if opened_by and getattr(settings, opened_by):
        return Caller(client_at(origin), None, scopes)
    is_open = origin.is_in(settings.open_to)
    if not is_open:
        if await api.keyring.has_any():
            raise NotAuthenticated(
                "An API key is needed here: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'. Whoever runs "
                "this service makes one with 'python cli.py keys create'."
            )
        _require_this_machine(origin)
    require_own_name(request, settings.host_names, is_open)
    require_no_other_site(request, settings.cors_allow_origins)
    return Caller(client_at(origin), None, ALL_SCOPES)


def log_change_of_keys(request: Request, name: str, done: str) -> None:
    """Also where no key was needed for it."""
    key: KnownKey | None = request.state.caller.key
    who = "somebody who needs no key" if key is None else f"the key {key.name}"
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
    if refusal := refusal_of(known):
        raise refusal
    api.keyring.note_use(known)
    return Caller(f"key {known.name}", known, known.scopes)


def _require_this_machine(origin: Origin) -> None:
    if not origin.is_this_machine:
        raise Forbidden(
            f"There is no API key yet, so only this machine is answered, and {origin.shown} is another. Whoever runs "
            "this service makes a key with 'python cli.py keys create --name NAME --scope search', or names the "
            "networks that need none in OPEN_TO."
        )


async def _audited(handle: Handler, request: Request, key: str) -> Response:
    status = 500
    try:
        if not is_upload(request):  # which `hold_slot` ends with its key
            with suppress(ClientDisconnect):  # as `handle` will meet it, too
                await request.body()  # which is kept for it
            await require_caller(request)  # the body may have come slowly, and the key have ended meanwhile
        response = await handle(request)
        status = response.status_code
    except AppError as error:
        status = error.status
        raise
    except HTTPException as error:  # with which FastAPI wraps ours, too
        status = error.__cause__.status if isinstance(error.__cause__, AppError) else error.status_code
        raise
    except RequestValidationError as error:
        status = as_invalid_input(error).status
        raise
    except asyncio.CancelledError:  # by `hold_slot`: the key has ended
        status = KeyRefused.status
        raise
    finally:
        path = quote(request.scope["path"], safe="/")
        audit.info("%s %s %d by the key %s from %s", request.method, path, status, key, origin_of(request.scope).shown)
    return response

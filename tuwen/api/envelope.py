"""What every answer carries, errors and refusals too: the request's id, and what browsers may do with it. Here each is
counted, too."""

import logging

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuwen.api.state import Api
from tuwen.request_ids import request_id_from, working_for
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
# What scripts of other origins may read beside the body; without this they see none of ours.
EXPOSED = (REQUEST_ID, "Retry-After", "RateLimit", "RateLimit-Policy", "ETag", "Location")
# Answers are data, and no page: a browser that is led to one runs, embeds and tells nothing. A route says what is
# otherwise with its own.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def install_cors(app: FastAPI, settings: Settings) -> None:
    if settings.cors_allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_allow_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )


def install_envelope(app: FastAPI) -> None:
    """Around all else: `add_middleware` would leave out what Starlette answers itself when something of ours fails."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Envelope(build())  # type: ignore[method-assign]  # Starlette has no other way


class Envelope:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(Headers(scope=scope).get(REQUEST_ID, ""))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                _count(scope, message["status"])
            await send(message)

        with working_for([request_id]):
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception:  # Starlette has answered it; the server would log it as nobody's
                logger.exception("Unexpected while answering %s", scope["method"])


def _count(scope: Scope, status: int) -> None:
    """Under the route that the router has left in the scope; what is refused before it has none."""
    api: Api | None = scope.get("state", {}).get("api")
    if api is not None:
        api.metrics.count_request(scope["method"], getattr(scope.get("route"), "path", ""), status)

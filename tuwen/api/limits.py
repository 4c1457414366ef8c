"""What a request may cost before anything looks into it."""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuwen.access.errors import TooManyAtOnce
from tuwen.api.admission import SMALL_BODY_BYTES, client_of
from tuwen.api.imports import IMPORT_PATH
from tuwen.api.messages import language_of
from tuwen.api.problems import problem_response
from tuwen.errors import FileTooLarge, ImageTooLarge, MalformedRequest, Overloaded
from tuwen.settings import Settings

# A body is kept until its request is answered, and a JSON body is there two or three times while it is parsed.
LARGEST_BODIES_AT_ONCE, LARGEST_BODIES_OF_ONE_CLIENT = 6, 3
# Senders that vanish without a word would fill that for good.
SILENCE_S, LONGEST_BODY_S = 30.0, 300.0
MULTIPART_MARGIN_BYTES = 1024 * 1024


def install_body_limit(app: FastAPI, settings: Settings) -> None:
    max_body = settings.upload_max_bytes * 4 // 3 + MULTIPART_MARGIN_BYTES  # base64 takes four bytes for three
    app.add_middleware(BodyLimit, max_bytes=max_body, max_file_bytes={IMPORT_PATH: settings.import_max_bytes})


class BodyLimit:
    """Refuses a request body over `max_bytes`, and one that finds too much of others here, without reading its rest.

    What counts is what has come in, not what was announced: a slow sender keeps nobody out, and only for so long.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_file_bytes: Mapping[str, int] | None = None) -> None:
        """`max_file_bytes`: by their paths, those of routes that put what comes in on the disk at once."""
        self._app = app
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes or {}
        self._at_once_bytes = 0
        self._of_clients_bytes: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        max_file_bytes = self._max_file_bytes.get(scope.get("path", ""))
        limit, is_file = max_file_bytes or self._max_bytes, max_file_bytes is not None
        if declared.isdigit() and int(declared) > limit:
            language = language_of(headers.get(b"accept-language", b"").decode("latin-1"))
            await problem_response(_too_large(limit, is_file), language)(scope, receive, send)
            return
        if is_file:
            await self._app(scope, _bounded(receive, limit), send)
            return
        received, is_whole, client = 0, False, ""
        ends_at = asyncio.get_running_loop().time() + LONGEST_BODY_S

        async def counting_receive() -> Message:
            nonlocal received, is_whole, client
            client = client or client_of(scope)
            message = await (receive() if is_whole else _soon(receive, ends_at))
            is_whole = not message.get("more_body", False)
            size = len(message.get("body", b""))
            received += size
            self._at_once_bytes += size
            self._of_clients_bytes[client] += size
            if received > self._max_bytes:
                raise _too_large(limit, is_file)
            if received > SMALL_BODY_BYTES:  # a small one finds room always: no pictures keep a search by text out
                self._require_room(client)
            return message

        try:
            await self._app(scope, counting_receive, send)
        finally:
            self._at_once_bytes -= received
            self._of_clients_bytes[client] -= received
            if self._of_clients_bytes[client] == 0:
                del self._of_clients_bytes[client]

    def _require_room(self, client: str) -> None:
        """Raises TooManyAtOnce or Overloaded."""
        if self._of_clients_bytes[client] > LARGEST_BODIES_OF_ONE_CLIENT * self._max_bytes:
            count = f"{self._of_clients_bytes[client]:,}"
            raise TooManyAtOnce(f"The {client} has {count} bytes under way already; try again when one has ended.")
        if self._at_once_bytes > LARGEST_BODIES_AT_ONCE * self._max_bytes:
            raise Overloaded("Too many large requests are being read already; try again in a second.")


def _too_large(limit: int, is_file: bool) -> ImageTooLarge | FileTooLarge:
    if is_file:
        return FileTooLarge.in_field("file", f"is over {limit:,} bytes (IMPORT_MAX_BYTES); send it in several files")
    return ImageTooLarge.in_field("body", f"the request is over {limit:,} bytes; send a smaller picture")


def _bounded(receive: Receive, limit: int) -> Receive:
    """However long it takes, as long as it goes on."""
    received, is_whole = 0, False

    async def bounded_receive() -> Message:
        nonlocal received, is_whole
        message = await (receive() if is_whole else _soon(receive, math.inf))
        is_whole = not message.get("more_body", False)
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit, True)
        return message

    return bounded_receive


async def _soon(receive: Receive, ends_at: float) -> Message:
    until = min(ends_at, asyncio.get_running_loop().time() + SILENCE_S)
    try:
        async with asyncio.timeout_at(until):
            return await receive()
    except TimeoutError as error:
        raise MalformedRequest(
            f"The rest of the body did not come: {SILENCE_S:g} s without any of it, or {LONGEST_BODY_S:g} s in all."
        ) from error

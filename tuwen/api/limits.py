"""What a request may cost before anything looks into it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuwen.api.problems import problem_response
from tuwen.errors import ImageTooLarge


class BodyLimit:
    """Refuses a request body over `max_bytes` without reading the rest of it."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await problem_response(self._too_large())(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, counting_receive, send)

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge.in_field("body", f"the request is over {self._max_bytes:,} bytes; send a smaller picture")

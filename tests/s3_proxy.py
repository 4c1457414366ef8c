"""What can stand between the service and S3: a proxy that is slow, throttles, cuts answers off, or gives none."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
INTERNAL_ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>"
Mode = Literal["pass", "slow", "throttle", "cut", "drop"]


class S3Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urlsplit(target).netloc
        self.mode: Mode = "pass"
        self.delay_s = 0.0
        """In the slow mode, before each answer."""
        self.poison = ""
        """A read of a path with this in it is answered 500, as S3 does for an object whose storage is broken."""
        self.seen: list[str] = []
        """The method and path of each request."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Proxy

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # whoever asked gave up
            self.close_connection = True

    def answer(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        proxy.seen.append(f"{self.command} {self.path}")
        if proxy.mode == "slow":
            time.sleep(proxy.delay_s)
        if proxy.mode == "drop":
            self.close_connection = True
        elif self.command == "GET" and proxy.poison and proxy.poison in self.path:
            self.send(500, [("Content-Type", "application/xml")], INTERNAL_ERROR)
        elif proxy.mode == "throttle":
            self.send(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        else:
            upstream = http.client.HTTPConnection(proxy.target, timeout=30)
            upstream.request(self.command, self.path, body, dict(self.headers))
            response = upstream.getresponse()
            self.send(response.status, response.getheaders(), response.read())
            upstream.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815  # the names that the library calls

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        is_cut = self.server.mode == "cut"
        self.wfile.write(body[: len(body) // 2] if is_cut else body)
        self.close_connection = self.close_connection or is_cut

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a test that fails says what it missed."""


@contextmanager
def running_s3_proxy(target: str) -> Iterator[S3Proxy]:
    with S3Proxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()

"""TLS before the servers of the tests, which speak none themselves: a certificate, and a proxy that has it."""

import asyncio
import queue
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.processes import require_program


@dataclass(frozen=True)
class Certificate:
    """Of 127.0.0.1, signed by itself: its own authority."""

    file: Path
    key: Path


def new_certificate(folder: Path, *, host: str = "IP:127.0.0.1") -> Certificate:
    certificate = Certificate(folder / "certificate.pem", folder / "key.pem")
    command = [require_program("openssl"), "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=tests"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", f"subjectAltName={host}"]
    command += ["-keyout", str(certificate.key), "-out", str(certificate.file)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate


@contextmanager
def tls_proxy(port: int, certificate: Certificate) -> Iterator[int]:
    """Hands on what TLS connections hold to this port, at which nobody need listen yet; yields its own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.file, certificate.key)
    context.set_alpn_protocols(["h2"])  # which gRPC insists on
    started: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = queue.Queue()

    async def serve() -> None:
        stopped = asyncio.Event()
        server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
        started.put((asyncio.get_running_loop(), stopped, server.sockets[0].getsockname()[1]))
        await stopped.wait()
        server.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                onward = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))
        finally:
            writer.close()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    loop, stopped, own_port = started.get(timeout=30)
    try:
        yield own_port
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()

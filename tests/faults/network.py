"""TCP connections between processes that can be cut, slowed down, or made to hang."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.processes import free_port

CHUNK_BYTES = 65_536


class Link:
    """Forwards a port of its own to a server's. It may be down, come again and move: each connection looks anew."""

    def __init__(self, name: str, server_port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.port = free_port()
        self._server_port = server_port
        self._loop = loop
        self._is_cut = False
        self._delay_s = 0.0
        self._passing = asyncio.Event()
        self._passing.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._forwarding: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def cut(self) -> None:
        """Every connection is reset, and so is each new one."""
        self._call(self._cut)

    def hang(self) -> None:
        """Nothing passes. As TCP has it, what was on its way arrives when the link is healed."""
        self._call(self._passing.clear)

    def slow_down(self, delay_s: float) -> None:
        """Each piece takes that much longer."""
        self._call(lambda: setattr(self, "_delay_s", delay_s))

    def heal(self) -> None:
        self._call(self._heal)

    def _call(self, change: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(change)

    def _cut(self) -> None:
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def _heal(self) -> None:
        self._is_cut, self._delay_s = False, 0.0
        self._passing.set()

    async def serve(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        forwarding = list(self._forwarding)
        for each in forwarding:
            each.cancel()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*forwarding, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        forwarding = asyncio.create_task(self._forward(reader, writer))
        self._forwarding.add(forwarding)
        forwarding.add_done_callback(self._forwarding.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        if self._is_cut:
            self._refuse(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            self._refuse(writer)
            return
        self._open.add(server_writer)
        await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))
        self._open -= {writer, server_writer}

    def _refuse(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._open.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await asyncio.sleep(self._delay_s)
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        await self._passing.wait()  # the other side of a hanging link does not hear of an end either
        writer.close()


class Network:
    """Runs the links, on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: list[Link] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def link(self, name: str, server_port: int) -> Link:
        link = Link(name, server_port, self._loop)
        asyncio.run_coroutine_threadsafe(link.serve(), self._loop).result(10)
        self._links.append(link)
        return link

    def close(self) -> None:
        for link in self._links:
            asyncio.run_coroutine_threadsafe(link.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

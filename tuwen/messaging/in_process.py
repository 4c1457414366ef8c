"""The transport of the embedded default: sender and consumers in one process."""

import asyncio
import logging
from collections.abc import Sequence

from tuwen.messaging.transport import Message
from tuwen.pulse import patiently

logger = logging.getLogger(__name__)


class InProcessQueue:
    """Sender and consumers in one process, one consumer for each of `topics`.

    Memory is not safe, so a message counts as sent only once it was consumed and committed: until then it stays in the
    outbox, and a crash repeats it.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self.consumers = {topic: InProcessConsumer() for topic in topics}

    async def send(self, messages: Sequence[Message]) -> None:
        futures = []
        for message in messages:
            if message.topic in self.consumers:
                futures.append(self.consumers[message.topic].put(message))
            else:  # dead letters: nobody consumes them here, the outbox keeps them
                logger.error("Dead letter on %s: %s", message.topic, message.value.decode())
        await patiently(asyncio.gather(*futures))

    async def check(self) -> None:
        """Nothing to ask: it lives and dies with this process."""

    async def close(self) -> None:
        """What was not committed stays in the outbox."""


class InProcessConsumer:
    """The receiving end of one topic."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[Message, asyncio.Future[None]]] = asyncio.Queue()
        self._uncommitted: list[asyncio.Future[None]] = []

    def put(self, message: Message) -> asyncio.Future[None]:
        """Done once the message is committed."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((message, future))
        return future

    async def next_batch(self, max_messages: int) -> list[Message]:
        batch = [await patiently(self._waiting.get())]
        while len(batch) < max_messages and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        self._uncommitted += [future for _, future in batch]
        return [message for message, _ in batch]

    async def commit(self) -> None:
        for future in self._uncommitted:
            if not future.done():
                future.set_result(None)
        self._uncommitted.clear()

    async def close(self) -> None:
        """Nothing to let go."""

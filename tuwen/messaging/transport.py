"""What every transport promises. Delivery is at least once everywhere: consumers must take a message twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Message:
    topic: str
    key: str
    value: bytes


class MessageSender(Protocol):
    async def send(self, messages: Sequence[Message]) -> None:
        """Returns once every message is safe with the transport.

        Raises QueueUnavailable, or MessageRefused for one that it will never take; others may have been sent then.
        """

    async def check(self) -> None:
        """Raises QueueUnavailable when the transport does not answer."""

    async def close(self) -> None: ...


class MessageConsumer(Protocol):
    async def next_batch(self, max_messages: int) -> list[Message]:
        """At least one message, as soon as there is any."""

    async def commit(self) -> None:
        """Everything that was handed out is done with and need not come again."""

    async def close(self) -> None: ...


def dead_letter_topic(topic: str) -> str:
    return f"{topic}.dlq"

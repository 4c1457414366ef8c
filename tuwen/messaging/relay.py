"""Feeds the transport from the outbox: claim, send, mark, each by itself, so that no transaction waits for a broker."""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial

from orm_models import OutboxRow, utc_now
from tuwen.background import Loop, WorkPool, until_up
from tuwen.database.engine import Database
from tuwen.errors import MessageRefused, QueueUnavailable
from tuwen.messaging.outbox import claim_outbox, give_back_all_claims, give_back_claims, mark_published, mark_refused
from tuwen.messaging.transport import Message, MessageSender, dead_letter_topic
from tuwen.pulse import patiently
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

RELAY_BATCH = 100
# Longer than Kafka's sender takes to send or to give up. A relay that is killed meanwhile keeps its claims until then.
CLAIM_TIME = timedelta(seconds=30)


class OutboxRelay:
    """Sends what committed transactions left in the outbox, each topic in id order. Woken after a commit, and polling.

    Topics don't wait for each other: in one process a message counts as sent only once it was consumed, and a product
    that waits for Milvus must not hold up a picture that is to be drawn.
    """

    def __init__(self, database: Database, sender: MessageSender, settings: Settings) -> None:
        self._database = database
        self._sender = sender
        self._settings = settings
        topics = (settings.kafka_topic, settings.generation_topic, dead_letter_topic(settings.kafka_topic))
        self._wakeups = {topic: asyncio.Event() for topic in topics}
        self._loop = asyncio.get_running_loop()
        self._threads = WorkPool("the outbox relay", threads=2, max_waiting=len(topics))

    def wake(self, topic: str) -> None:
        """From any thread. The other topics go on sleeping: each look is a transaction that writes."""
        self._loop.call_soon_threadsafe(self._wakeups[topic].set)

    def loops(self) -> dict[str, Loop]:
        return {f"outbox relay of {topic}": partial(self._relay_topic, topic) for topic in self._wakeups}

    async def _relay_topic(self, topic: str) -> None:
        poll_s, max_wait_s = self._settings.relay_poll_s, self._settings.retry_backoff_max_s
        if not self._settings.kafka_bootstrap_servers:  # one process: what is claimed, one that is gone has claimed
            await self._threads.run(self._give_back_all, topic)
        while True:
            self._wakeups[topic].clear()
            sent = await until_up(
                f"The outbox relay of {topic}",
                lambda: self._relay_batch(topic),
                first_wait_s=poll_s,
                max_wait_s=max_wait_s,
            )
            if sent < RELAY_BATCH:
                with suppress(TimeoutError):
                    await patiently(asyncio.wait_for(self._wakeups[topic].wait(), poll_s))

    async def _relay_batch(self, topic: str) -> int:
        rows = await self._threads.run(self._claim, topic)
        if not rows:
            return 0
        try:
            await self._send(rows)
        except (QueueUnavailable, asyncio.CancelledError):
            await self._threads.run(self._give_back, rows)
            raise
        return len(rows)

    async def _send(self, rows: Sequence[OutboxRow]) -> None:
        try:
            await self._sender.send([_as_message(row) for row in rows])
        except MessageRefused:
            await self._send_one_by_one(rows)
        else:
            await self._threads.run(self._mark_published, rows)

    async def _send_one_by_one(self, rows: Sequence[OutboxRow]) -> None:
        """One of them is refused for good: it is put aside, and stops nothing behind it."""
        for row in rows:
            try:
                await self._sender.send([_as_message(row)])
            except MessageRefused as error:
                logger.warning("Message %d to %s is refused and put aside: %s", row.outbox_id, row.topic, error.detail)
                await self._threads.run(self._mark_refused, row, error.detail)
            else:
                await self._threads.run(self._mark_published, [row])

    def _claim(self, topic: str) -> list[OutboxRow]:
        with self._database.write() as session:
            return claim_outbox(session, topic, RELAY_BATCH, until=utc_now() + CLAIM_TIME)

    def _give_back(self, rows: Sequence[OutboxRow]) -> None:
        with self._database.write() as session:
            give_back_claims(session, [row.outbox_id for row in rows])

    def _give_back_all(self, topic: str) -> None:
        with self._database.write() as session:
            give_back_all_claims(session, topic)

    def _mark_published(self, rows: Sequence[OutboxRow]) -> None:
        with self._database.write() as session:
            mark_published(session, [row.outbox_id for row in rows])

    def _mark_refused(self, row: OutboxRow, reason: str) -> None:
        with self._database.write() as session:
            mark_refused(session, row.outbox_id, reason)


def _as_message(row: OutboxRow) -> Message:
    return Message(row.topic, row.message_key, json.dumps(row.payload, ensure_ascii=False).encode())

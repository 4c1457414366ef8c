"""Feeds the transport from the outbox."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

from orm_models import Database, OutboxRow
from tuwen.background import WorkPool, until_up
from tuwen.errors import QueueUnavailable
from tuwen.messaging.outbox import claim_outbox, count_failed_attempt, mark_published
from tuwen.messaging.transport import Message, MessageSender
from tuwen.settings import Settings

RELAY_BATCH = 100


class OutboxRelay:
    """Sends what committed transactions left in the outbox, in id order. Woken after a commit, and by a poll."""

    def __init__(self, database: Database, sender: MessageSender, settings: Settings) -> None:
        self._database = database
        self._sender = sender
        self._settings = settings
        self._wakeup = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = WorkPool("the outbox relay", threads=1, max_waiting=1)

    def wake(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._wakeup.set)

    async def run(self) -> None:
        poll_s, max_wait_s = self._settings.relay_poll_s, self._settings.retry_backoff_max_s
        while True:
            self._wakeup.clear()
            sent = await until_up("The outbox relay", self._relay_batch, first_wait_s=poll_s, max_wait_s=max_wait_s)
            if sent < RELAY_BATCH:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wakeup.wait(), poll_s)

    async def _relay_batch(self) -> int:
        if self._database.is_sqlite:
            return await self._relay_without_lock()
        return await self._thread.run(self._relay_with_row_locks)

    async def _relay_without_lock(self) -> int:
        # SQLite has one process and so one relay; a lock held while sending would keep the consumer from writing.
        rows = await self._thread.run(self._read_outbox)
        if rows:
            await self._sender.send([_as_message(row) for row in rows])
            await self._thread.run(self._mark_published, rows)
        return len(rows)

    def _relay_with_row_locks(self) -> int:
        rows: list[OutboxRow] = []
        try:
            with self._database.write() as session:
                rows = claim_outbox(session, RELAY_BATCH)
                if rows:
                    sending = self._sender.send([_as_message(row) for row in rows])
                    asyncio.run_coroutine_threadsafe(sending, self._loop).result()
                    mark_published(session, [row.outbox_id for row in rows])
        except QueueUnavailable:
            with self._database.write() as session:
                count_failed_attempt(session, [row.outbox_id for row in rows])
            raise
        return len(rows)

    def _read_outbox(self) -> list[OutboxRow]:
        with self._database.read() as session:
            return claim_outbox(session, RELAY_BATCH)

    def _mark_published(self, rows: Sequence[OutboxRow]) -> None:
        with self._database.write() as session:
            mark_published(session, [row.outbox_id for row in rows])


def _as_message(row: OutboxRow) -> Message:
    return Message(row.topic, row.message_key, json.dumps(row.payload, ensure_ascii=False).encode())

"""The queue between a committed change and its indexing: Kafka or an in-process transport, and the relay that feeds it.

The only importer of aiokafka. Delivery is at least once everywhere: consumers must take a message twice.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import IllegalStateError, KafkaError, TopicAlreadyExistsError

from errors import AppError, QueueUnavailable
from orm_models import Database, OutboxRow, claim_outbox, count_failed_attempt, mark_published
from settings import Settings

logger = logging.getLogger(__name__)

RELAY_BATCH = 100
POLL_TIMEOUT_MS = 1000


@dataclass(frozen=True)
class Message:
    topic: str
    key: str
    value: bytes


class MessageSender(Protocol):
    async def send(self, messages: Sequence[Message]) -> None:
        """Returns once every message is safe with the transport. Raises QueueUnavailable."""

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


# --- In process ------------------------------------------------------------------------------------------------------


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
        await asyncio.gather(*futures)

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
        batch = [await self._waiting.get()]
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


# --- Kafka -----------------------------------------------------------------------------------------------------------


class KafkaSender:
    """Connects at the first message, and again after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def send(self, messages: Sequence[Message]) -> None:
        try:
            producer = await self._connected()
            sends = [await producer.send(m.topic, key=m.key.encode(), value=m.value) for m in messages]
            await asyncio.gather(*sends)
        except (KafkaError, OSError, TimeoutError) as error:
            raise _queue_unavailable(error) from error

    async def check(self) -> None:
        try:
            producer = await self._connected()
            async with asyncio.timeout(5):
                await producer.client.fetch_all_metadata()
        except (KafkaError, OSError, TimeoutError) as error:
            raise _queue_unavailable(error) from error

    async def close(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                await create_topics(self._settings)
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._settings.kafka_bootstrap_servers,
                    acks="all",
                    enable_idempotence=self._settings.kafka_idempotent_producer,
                )
                await _start(producer)
                self._producer = producer
            return self._producer


class KafkaConsumer:
    """One member of the group. Commits `last offset + 1` of each partition, only when told to."""

    def __init__(self, settings: Settings, topic: str, group: str) -> None:
        self._settings = settings
        self._topic = topic
        self._group = group
        self._consumer: AIOKafkaConsumer | None = None
        self._next_offsets: dict[TopicPartition, int] = {}

    async def next_batch(self, max_messages: int) -> list[Message]:
        try:
            consumer = await self._connected()
            while True:
                records = await consumer.getmany(timeout_ms=POLL_TIMEOUT_MS, max_records=max_messages)
                if records:
                    break
        except (KafkaError, OSError, TimeoutError) as error:
            raise _queue_unavailable(error) from error
        self._next_offsets = {partition: batch[-1].offset + 1 for partition, batch in records.items()}
        return [
            Message(record.topic, (record.key or b"").decode(errors="replace"), record.value or b"")
            for batch in records.values()
            for record in batch
        ]

    async def commit(self) -> None:
        assert self._consumer is not None, "commit follows next_batch"
        try:
            await self._consumer.commit(self._next_offsets)
        except (KafkaError, IllegalStateError) as error:
            # The partitions went to another worker meanwhile. It gets these messages again, and finds the work done.
            logger.warning("Offsets not committed, the messages will come again: %s", error)

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            await create_topics(self._settings)
            consumer = AIOKafkaConsumer(
                self._topic,
                bootstrap_servers=self._settings.kafka_bootstrap_servers,
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            await _start(consumer)
            self._consumer = consumer
        return self._consumer


async def create_topics(settings: Settings) -> None:
    """The topics of events and jobs with room for several workers, and the dead letters'; existing ones stay."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        await _start(admin)
        existing = set(await admin.list_topics())
        wanted = dict.fromkeys((settings.kafka_topic, settings.generation_topic), settings.kafka_partitions)
        wanted[dead_letter_topic(settings.kafka_topic)] = 1
        missing = [
            NewTopic(name, num_partitions=partitions, replication_factor=settings.kafka_replication)
            for name, partitions in wanted.items()
            if name not in existing
        ]
        if missing:
            with suppress(TopicAlreadyExistsError):  # another process was faster
                await admin.create_topics(missing)
    finally:
        await admin.close()


async def _start(client: AIOKafkaProducer | AIOKafkaConsumer | AIOKafkaAdminClient) -> None:
    try:
        await client.start()
    except BaseException:
        # A client that never started still holds sockets and tasks.
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
        raise


def _queue_unavailable(error: Exception) -> QueueUnavailable:
    return QueueUnavailable(f"Kafka does not answer (KAFKA_BOOTSTRAP_SERVERS): {error or type(error).__name__}")


# --- Outbox relay ----------------------------------------------------------------------------------------------------


class OutboxRelay:
    """Sends what committed transactions left in the outbox, in id order. Woken after a commit, and by a poll."""

    def __init__(self, database: Database, sender: MessageSender, settings: Settings) -> None:
        self._database = database
        self._sender = sender
        self._settings = settings
        self._wakeup = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._wakeup.set)

    async def run(self) -> None:
        backoff_s = self._settings.relay_poll_s
        while True:
            self._wakeup.clear()
            try:
                sent = await self._relay_batch()
                backoff_s = self._settings.relay_poll_s
            except AppError as error:
                logger.warning("The outbox waits %.0f s: %s", backoff_s, error.detail)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, self._settings.retry_backoff_max_s)
                continue
            if sent < RELAY_BATCH:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wakeup.wait(), self._settings.relay_poll_s)

    async def _relay_batch(self) -> int:
        if self._database.is_sqlite:
            return await self._relay_without_lock()
        return await asyncio.to_thread(self._relay_with_row_locks)

    async def _relay_without_lock(self) -> int:
        # SQLite has one process and so one relay; a lock held while sending would keep the consumer from writing.
        rows = await asyncio.to_thread(self._read_outbox)
        if rows:
            await self._sender.send([_as_message(row) for row in rows])
            await asyncio.to_thread(self._mark_published, rows)
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

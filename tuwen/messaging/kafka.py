"""The transport of the full stack. The only importer of aiokafka."""

import asyncio
import logging
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    CorruptRecordException,
    IllegalStateError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
)

from tuwen.errors import MessageRefused, QueueUnavailable
from tuwen.messaging.transport import Message, dead_letter_topic
from tuwen.pulse import beat
from tuwen.request_ids import context_of_no_request
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

POLL_TIMEOUT_MS = 1000
CONNECT_TIMEOUT_S = 30.0
COMMIT_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
CHECK_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 5.0
# A worker that waits for Milvus stays in its group, and is at work the moment Milvus is back; leaving (aiokafka does
# after five minutes) and joining again takes half a minute. One that hangs is found by its pulse, not by its polls;
# one that is frozen or dead by the heartbeats of its session.
MAX_POLL_INTERVAL_MS = 24 * 60 * 60 * 1000
# Of the message itself; the same one is refused for ever.
REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError, CorruptRecordException)


class KafkaSender:
    """Connects at the first message, and again after a failure; a producer that waits for the broker goes on itself."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def send(self, messages: Sequence[Message]) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):  # an idempotent producer would try for ever
                await self._send(await self._connected(), messages)
        except REFUSALS as error:
            raise MessageRefused(f"Kafka refused a message: {error}") from error
        except (KafkaError, OSError, TimeoutError) as error:
            raise _queue_unavailable(error) from error

    async def _send(self, producer: AIOKafkaProducer, messages: Sequence[Message]) -> None:
        try:
            sends = [await producer.send(m.topic, key=m.key.encode(), value=m.value) for m in messages]
            await asyncio.gather(*sends)
        except KafkaError:
            # It may never send again: its task is dead; or, idempotent, it has counted a batch that the broker refused,
            # to which every later one is out of order.
            if self._producer is producer:
                self._producer = None
            await _stop(producer)
            raise

    async def check(self) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                producer = await self._connected()
                await producer.client.fetch_all_metadata()
        except (KafkaError, OSError, TimeoutError) as error:
            raise _queue_unavailable(error) from error

    async def close(self) -> None:
        if self._producer is not None:
            await _stop(self._producer)

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                await create_topics(self._settings)
                producer = AIOKafkaProducer(
                    **connection_options(self._settings),
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
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                consumer = await self._connected()
            while True:
                beat()
                records = await self._poll(consumer, max_messages)
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

    async def _poll(self, consumer: AIOKafkaConsumer, max_messages: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        try:
            records: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
                timeout_ms=POLL_TIMEOUT_MS, max_records=max_messages
            )
        except KafkaError:  # never of a broker that is away; a member whose task is dead says it for ever
            self._consumer = None
            await _stop(consumer)
            raise
        return records

    async def commit(self) -> None:
        assert self._consumer is not None, "commit follows next_batch"
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):  # aiokafka would try for ever while the broker is away
                await self._consumer.commit(self._next_offsets)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            # Or the partitions went to another worker. Whoever gets these messages again finds the work done.
            logger.warning("Offsets not committed, the messages will come again: %s", error or type(error).__name__)

    async def close(self) -> None:
        if self._consumer is not None:
            await _stop(self._consumer)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            await create_topics(self._settings)
            consumer = AIOKafkaConsumer(
                self._topic,
                **connection_options(self._settings),
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            )
            await _start(consumer)
            self._consumer = consumer
        return self._consumer


def connection_options(settings: Settings) -> dict[str, Any]:
    """Where the brokers are, how they are known, and how they know us: the same for every client."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_uses_tls:
        options["ssl_context"] = ssl.create_default_context(cafile=settings.kafka_ca_file)
        options["ssl_context"].check_hostname = settings.kafka_check_hostname
    if settings.kafka_uses_sasl:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_username
        options["sasl_plain_password"] = settings.kafka_password.get_secret_value()
    return options


async def create_topics(settings: Settings) -> None:
    """The topics of events and jobs with room for several workers, and the dead letters'; existing ones stay."""
    admin = AIOKafkaAdminClient(**connection_options(settings))
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
    try:  # its tasks outlive whoever needed it first
        await asyncio.create_task(client.start(), context=context_of_no_request())
    except BaseException:
        # A client that never started still holds sockets and tasks.
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
        raise


async def _stop(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """With what it still has to send or to say, if the broker answers."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await client.stop()
    except (KafkaError, OSError, TimeoutError) as error:
        logger.warning("A Kafka client did not end well: %s", error or type(error).__name__)


def _queue_unavailable(error: Exception) -> QueueUnavailable:
    return QueueUnavailable(f"Kafka does not answer (KAFKA_BOOTSTRAP_SERVERS): {error or type(error).__name__}")

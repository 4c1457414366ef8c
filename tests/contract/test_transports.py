"""The same cases on the in-process transport and on a Kafka broker, and the relay that feeds both."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OutOfOrderSequenceNumber

from data_models import DeadLetter, GenerationEvent, ProductEvent
from orm_models import OutboxRow
from tests.processes import freeze
from tests.servers import new_mysql_database, running_kafka_process
from tuwen.background import running_loops
from tuwen.database.engine import Database
from tuwen.errors import MessageRefused, QueueUnavailable
from tuwen.messaging.in_process import InProcessQueue
from tuwen.messaging.kafka import KafkaConsumer, KafkaSender
from tuwen.messaging.outbox import add_to_outbox, outbox_backlog
from tuwen.messaging.relay import OutboxRelay
from tuwen.messaging.transport import Message, MessageConsumer, MessageSender, dead_letter_topic
from tuwen.pulse import Pulses
from tuwen.settings import Settings

KEY = "7"


@pytest.fixture(params=["in process", "kafka"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    servers = request.getfixturevalue("kafka") if request.param == "kafka" else ""
    topic = f"events-{uuid4().hex[:8]}"
    return Settings(
        _env_file=None,
        data_dir=tmp_path,
        kafka_bootstrap_servers=servers,
        kafka_idempotent_producer=False,
        kafka_topic=topic,
        kafka_group=f"group-{topic}",
        relay_poll_s=0.05,
    )


@asynccontextmanager
async def transport(settings: Settings) -> AsyncIterator[tuple[MessageSender, MessageConsumer]]:
    if settings.kafka_bootstrap_servers:
        sender: MessageSender = KafkaSender(settings)
        consumer: MessageConsumer = KafkaConsumer(settings, settings.kafka_topic, settings.kafka_group)
    else:
        queue = InProcessQueue([settings.kafka_topic])
        sender, consumer = queue, queue.consumers[settings.kafka_topic]
    try:
        yield sender, consumer
    finally:
        await consumer.close()
        await sender.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


@asynccontextmanager
async def relaying(relay: OutboxRelay) -> AsyncIterator[OutboxRelay]:
    async with running_loops(relay.loops(), Pulses(None)):
        yield relay


async def receive(consumer: MessageConsumer, count: int) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        messages += await consumer.next_batch(10)
    return messages


def test_messages_of_one_key_arrive_in_order_and_whole(settings: Settings) -> None:
    sent = [Message(settings.kafka_topic, "7", f"消息 {number}".encode()) for number in range(25)]

    async def scenario() -> None:
        async with transport(settings) as (sender, consumer):
            sending = asyncio.create_task(sender.send(sent))
            received = await receive(consumer, len(sent))
            await consumer.commit()
            await sending
            assert received == sent

    run(scenario)


def test_a_wake_up_is_for_one_topic(settings: Settings) -> None:
    """Three topics looked after each upload, each in a transaction that writes."""
    database = Database(settings.database_dsn)
    database.migrate()
    looked_for: list[object] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def see(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        if statement.startswith("SELECT outbox"):
            looked_for.append(parameters)

    async def scenario() -> None:
        patient = settings.model_copy(update={"relay_poll_s": 60.0})
        async with transport(patient) as (sender, consumer), relaying(OutboxRelay(database, sender, patient)) as relay:
            await have_looked(looked_for, 3)
            with database.write() as session:
                event = ProductEvent(product_id=1, op="upsert", version=1)
                add_to_outbox(session, settings.kafka_topic, KEY, event)
            relay.wake(settings.kafka_topic)
            assert product_ids(await receive(consumer, 1)) == [1]
            await consumer.commit()
            await backlog_is_empty(database)
        assert settings.generation_topic not in str(looked_for[3:])
        assert settings.kafka_topic in str(looked_for[3:])

    run(scenario)
    database.close()


def test_the_relay_publishes_what_was_committed_and_only_once(settings: Settings) -> None:
    database = Database(settings.database_dsn)
    database.migrate()

    async def scenario() -> None:
        async with (
            transport(settings) as (sender, consumer),
            relaying(OutboxRelay(database, sender, settings)) as relay,
        ):
            with database.write() as session:
                for product_id in range(3):
                    event = ProductEvent(product_id=product_id, op="upsert", version=1)
                    add_to_outbox(session, settings.kafka_topic, KEY, event)
            relay.wake(settings.kafka_topic)
            assert product_ids(await receive(consumer, 3)) == [0, 1, 2]
            await consumer.commit()
            await backlog_is_empty(database)
            with database.write() as session:
                add_to_outbox(session, settings.kafka_topic, KEY, ProductEvent(product_id=3, op="upsert", version=1))
            relay.wake(settings.kafka_topic)
            # A second copy of an earlier one would come before it, since all of one key keep their order.
            assert product_ids(await receive(consumer, 1)) == [3]
            await consumer.commit()

    run(scenario)
    database.close()


def product_ids(messages: list[Message]) -> list[int]:
    return [ProductEvent.model_validate_json(message.value).product_id for message in messages]


async def have_looked(looked_for: list[object], count: int) -> None:
    while True:
        if len(looked_for) >= count:
            return
        await asyncio.sleep(0.02)


async def backlog_is_empty(database: Database) -> None:
    while True:
        with database.read() as session:
            if outbox_backlog(session) == 0:
                return
        await asyncio.sleep(0.02)


def test_what_was_not_committed_comes_again(settings: Settings) -> None:
    message = Message(settings.kafka_topic, "1", b"once more")

    async def scenario() -> None:
        if not settings.kafka_bootstrap_servers:
            # In process the outbox is what lasts: an uncommitted message never counts as sent.
            async with transport(settings) as (sender, consumer):
                sending = asyncio.create_task(sender.send([message]))
                await consumer.next_batch(10)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(sending, 0.2)
            return
        done, uncommitted = Message(settings.kafka_topic, "1", b"done"), message
        async with transport(settings) as (sender, consumer):
            await sender.send([done])
            assert await consumer.next_batch(10) == [done]
            await consumer.commit()
            await sender.send([uncommitted])
            assert await consumer.next_batch(10) == [uncommitted]
        async with transport(settings) as (_, successor):
            assert await successor.next_batch(10) == [uncommitted]
            await successor.commit()

    run(scenario)


def test_a_dead_letter_never_reaches_the_consumer(settings: Settings) -> None:
    async def scenario() -> None:
        async with transport(settings) as (sender, consumer):
            letter = Message(dead_letter_topic(settings.kafka_topic), "1", b"dead")
            event = Message(settings.kafka_topic, "1", b"alive")
            sending = asyncio.create_task(sender.send([letter, event]))
            assert await consumer.next_batch(10) == [event]
            await consumer.commit()
            await sending

    run(scenario)


@pytest.mark.parametrize("settings", ["kafka"], indirect=True)
def test_a_message_that_the_broker_refuses_stops_nothing_behind_it(settings: Settings) -> None:
    database = Database(settings.database_dsn)
    database.migrate()

    async def scenario() -> None:
        async with transport(settings) as (sender, consumer), relaying(OutboxRelay(database, sender, settings)):
            with database.write() as session:
                for product_id, payload in enumerate(("small", "x" * 2_000_000, "small")):
                    letter = DeadLetter(payload=payload, error=str(product_id))
                    add_to_outbox(session, settings.kafka_topic, KEY, letter)
            received = [DeadLetter.model_validate_json(message.value) for message in await receive(consumer, 3)]
            # What was sent before the refusal came is sent once more.
            assert [letter.error for letter in received] == ["0", "0", "2"]
            await backlog_is_empty(database)
            with database.read() as session:
                [refused] = session.scalars(sa.select(OutboxRow).where(OutboxRow.refused_at.is_not(None)))
                assert (refused.payload["error"], refused.published_at) == ("1", None)
                assert "Kafka refused a message" in (refused.error or "")

    run(scenario)
    database.close()


@pytest.mark.parametrize("settings", ["kafka"], indirect=True)
@pytest.mark.parametrize("refused", [OutOfOrderSequenceNumber, MessageSizeTooLargeError])
def test_a_producer_that_broke_is_replaced(settings: Settings, refused: type[KafkaError]) -> None:
    message = Message(settings.kafka_topic, "1", b"sent in the end")

    async def scenario() -> None:
        async with transport(settings) as (sender, consumer):
            assert isinstance(sender, KafkaSender)
            await sender.send([Message(dead_letter_topic(settings.kafka_topic), "1", b"connects")])
            broken = sender._producer
            assert broken is not None
            broken._message_accumulator.fail_all(refused())  # aiokafka's own, when its task ends; it lasts
            with pytest.raises((QueueUnavailable, MessageRefused)):
                await sender.send([message])
            await sender.send([message])
            await sender.check()
            assert await consumer.next_batch(10) == [message]
            assert broken._closed

    run(scenario)


@pytest.mark.parametrize("settings", ["kafka"], indirect=True)
def test_a_consumer_that_broke_is_replaced(settings: Settings) -> None:
    first, second = (Message(settings.kafka_topic, "1", value) for value in (b"first", b"second"))

    async def scenario() -> None:
        async with transport(settings) as (sender, consumer):
            assert isinstance(consumer, KafkaConsumer)
            await sender.send([first])
            assert await consumer.next_batch(10) == [first]
            await consumer.commit()
            broken = consumer._consumer
            assert broken is not None
            task, coordinator = broken._coordinator._coordination_task, broken._coordinator
            coordinator._coordination_task = asyncio.get_running_loop().create_future()
            coordinator._coordination_task.set_exception(KafkaError("as when aiokafka's own task dies"))
            task.cancel()
            with pytest.raises(QueueUnavailable, match="own task dies"):
                await consumer.next_batch(10)
            await sender.send([second])
            assert await consumer.next_batch(10) == [second]
            await consumer.commit()

    run(scenario)


@pytest.mark.parametrize("settings", ["in process"], indirect=True)
def test_a_topic_that_is_not_consumed_holds_up_no_other(settings: Settings) -> None:
    """A product waits for Milvus; a picture is to be drawn."""
    database = Database(settings.database_dsn)
    database.migrate()

    async def scenario() -> None:
        queue = InProcessQueue([settings.kafka_topic, settings.generation_topic])
        async with relaying(OutboxRelay(database, queue, settings)):
            with database.write() as session:
                add_to_outbox(session, settings.kafka_topic, "1", ProductEvent(product_id=1, op="upsert", version=1))
                add_to_outbox(session, settings.generation_topic, "1", GenerationEvent(job_id=1))
            [job] = await queue.consumers[settings.generation_topic].next_batch(10)
            assert GenerationEvent.model_validate_json(job.value).job_id == 1

    run(scenario)
    with database.read() as session:
        assert outbox_backlog(session) == 2  # neither was committed, so both come again
    database.close()


@pytest.mark.parametrize("broker", ["away", "frozen"])
def test_no_transaction_waits_for_the_broker(
    tmp_path: Path, mariadb: str, broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(new_mysql_database(mariadb))
    database.migrate()

    async def scenario(servers: str) -> None:
        topic = f"events-{uuid4().hex[:8]}"
        settings = Settings(
            _env_file=None,
            kafka_bootstrap_servers=servers,
            kafka_topic=topic,
            kafka_idempotent_producer=False,
            relay_poll_s=0.05,
            retry_backoff_max_s=0.1,
        )
        sender = KafkaSender(settings)
        with database.write() as session:
            add_to_outbox(session, topic, KEY, ProductEvent(product_id=1, op="upsert", version=1))
        async with relaying(OutboxRelay(database, sender, settings)):
            while "Kafka does not answer" not in caplog.text:
                await asyncio.sleep(0.2)  # whoever asks InnoDB more often than each 0.1 s gets an old answer
                assert open_transactions(database) == 0
            while is_claimed(database):  # noqa: ASYNC110  # an end in the middle of a try leaves it so
                await asyncio.sleep(0.02)
        await sender.close()

    if broker == "away":
        run(lambda: scenario("127.0.0.1:9"))
    else:
        with running_kafka_process(tmp_path) as (servers, process):
            freeze(process.pid)
            try:
                run(lambda: scenario(servers))
            finally:
                os.kill(process.pid, signal.SIGCONT)
    with database.read() as session:
        [row] = session.scalars(sa.select(OutboxRow))
        assert row.attempts >= 1
        assert row.published_at is None
    database.close()


def is_claimed(database: Database) -> bool:
    with database.read() as session:
        return session.scalar(sa.select(OutboxRow.claimed_until)) is not None


def open_transactions(database: Database) -> int:
    """That are older than a moment: the relay's own claims are short."""
    statement = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_started < NOW() - INTERVAL 2 SECOND"
    with database.read() as session:
        return session.scalar(sa.text(statement)) or 0


def test_a_broker_that_is_down_is_named(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, kafka_bootstrap_servers="127.0.0.1:9")

    async def scenario() -> None:
        sender, consumer = KafkaSender(settings), KafkaConsumer(settings, settings.kafka_topic, settings.kafka_group)
        for call in (sender.send([Message("t", "k", b"v")]), sender.check(), consumer.next_batch(1)):
            with pytest.raises(QueueUnavailable, match="KAFKA_BOOTSTRAP_SERVERS"):
                await call
        await sender.close()
        await consumer.close()

    run(scenario)

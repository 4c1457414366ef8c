"""Product events in; vectors in Milvus, and their ids bound in the database, out.

Runs in `worker.py` behind Kafka, and inside `main.py` on the embedded default. Taking an event twice does no harm.
What can't be encoded becomes `failed` and never stops its batch; what is down is waited for, uncommitted.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from pydantic import ValidationError
from sqlalchemy import orm

from data_models import DeadLetter, ProductEvent
from orm_models import ProductRow
from tuwen.background import WorkPool, until_up
from tuwen.catalogue.pictures import pictures_of
from tuwen.catalogue.queries import load_products, lock_products
from tuwen.database.engine import Database
from tuwen.errors import AppError, ImageStoreUnavailable, IndexChanged, VectorsRejected
from tuwen.indexing.drift import Graces
from tuwen.indexing.encoding import LONGEST_STEP_S, ProductEncoder, VectorCount
from tuwen.indexing.outcomes import Encoded, Failed, Inserted, Pictured, Unanswered, Unreadable, require_fresh
from tuwen.indexing.queries import requeue
from tuwen.messaging.outbox import add_to_outbox
from tuwen.messaging.transport import Message, MessageConsumer, dead_letter_topic
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.store import ImageStore
from tuwen.pulse import beat
from tuwen.request_ids import about_product, current_request_id, working_for_products
from tuwen.settings import Settings
from tuwen.vectors.binding import (
    PictureRow,
    bind_all,
    confirm_indexed,
    has_failed,
    holders_of,
    indexed_versions,
    mark_failed,
    release_milvus_ids,
    unbind_product,
)
from tuwen.vectors.indexes import require_status
from tuwen.vectors.registry import IndexRegistry, LiveIndex, ServedIndex
from vector_db import RowKey, VectorDB, new_row_token

logger = logging.getLogger(__name__)

INGEST_THREADS = 4
UNEXPECTED = "unexpected"
DELETED_AT_ONCE = 500  # rows of Milvus, whose ids stand in one expression


class Ingestor:
    """Consumes one transport until cancelled."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        vector_db: VectorDB,
        images: ImageStore,
        decoder: PictureDecoder,
        registry: IndexRegistry,
        threads: WorkPool | None = None,
        counts: Counter[VectorCount] | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._vector_db = vector_db
        self._registry = registry
        at_once = settings.pictures_indexed_at_once  # of all else it does one thing at a time
        self._threads = threads or WorkPool("ingestion", threads=INGEST_THREADS, max_waiting=at_once)
        self._encoder = ProductEncoder(
            database, vector_db, images, decoder, self._threads, at_once, Counter() if counts is None else counts
        )
        self._until_up = partial(until_up, "Ingestion", max_wait_s=settings.retry_backoff_max_s)

    async def run(self, consumer: MessageConsumer) -> None:
        while True:
            messages = await self._until_up(partial(consumer.next_batch, self._settings.ingest_batch_size))
            with working_for_products(_requests_of(messages)):
                await self._ingest_isolating(messages)
                await consumer.commit()

    async def _ingest_isolating(self, messages: Sequence[Message]) -> None:
        """No message may hold up those behind it: one that fails unexpectedly goes to the dead letters."""
        try:
            await self._until_up(partial(self.ingest, messages))
        except Exception as error:
            logger.exception("Unexpected while ingesting %d messages", len(messages))
            if len(messages) > 1:
                for message in messages:
                    with working_for_products(_requests_of([message])):
                        await self._ingest_isolating([message])
            else:
                await self._bury(messages[0], f"unexpected: {error!r}")

    async def _bury(self, message: Message, reason: str) -> None:
        try:
            await self._until_up(partial(self._threads.run, self._write_dead_letters, [(message, reason)]))
        except Exception:  # the database takes nothing, so its products stay as they are, and reconciliation finds them
            logger.exception("No dead letter can be written of message %r", message.value[:200])

    async def ingest(self, messages: Sequence[Message]) -> None:
        """One batch, whole. Raises DependencyUnavailable with nothing half-bound; the batch may then be given again."""
        events, unreadable = self._parse(messages)
        latest = {event.product_id: event for event in sorted(events, key=lambda event: event.version)}
        await self._delete_vectors([event for event in events if event.op == "delete"])
        upserts = [event.product_id for event in latest.values() if event.op == "upsert"]
        if upserts:
            await self.index_products(upserts)
        if unreadable:  # last, so that a batch that waits for something writes them once
            await self._threads.run(self._write_dead_letters, unreadable)

    async def index_products(self, product_ids: Sequence[int]) -> None:
        """Encode, insert, bind. Products that are gone, or indexed at their version already, cost two SELECTs."""
        beat(LONGEST_STEP_S)
        index = await self._threads.run(self._registry.live)
        try:
            inserted, failed = await self.index_into(index, product_ids)
        except IndexChanged:
            await self._threads.run(self._registry.look_if_possible)
            raise  # and it comes again
        if inserted or failed:
            logger.info("Indexed %d products, %d could not be", inserted, len(failed))

    async def index_into(self, index: ServedIndex, product_ids: Sequence[int]) -> tuple[int, list[Failed]]:
        """How many were inserted, and which could not be. An index that is being built changes no product's status."""
        products = await self._threads.run(self._load_unindexed, product_ids, index)
        if not products:
            return 0, []
        encoded, not_encoded = await self._encoder.encode(products, index)
        beat(LONGEST_STEP_S)
        inserted, rejected = await self._threads.run(self._insert, index, encoded)
        failed = [each for each in (*not_encoded, *rejected) if not isinstance(each, Unreadable)]
        # If the database fails here, whether it committed is unknown, so the new vectors must stay: unbound ones are
        # invisible and reconciliation removes them, but bound ones would be lost.
        unbound = await self._threads.run(self._bind, index, inserted, failed)
        product_ids = [each.product.product_id for each in products]
        await self._threads.run(self._vector_db.delete, index.collection, unbound, product_ids)
        if unanswered := [each for each in not_encoded if isinstance(each, Unanswered)]:
            raise ImageStoreUnavailable(unanswered[0].reason)  # the batch comes again, and then is of these alone
        return len(inserted), [*not_encoded, *rejected]

    async def index_each_into(self, index: ServedIndex, product_ids: Sequence[int]) -> tuple[int, list[Failed]]:
        """As `index_into`; but what fails unexpectedly fails alone, by name, and keeps no other out of the index.
        Raises what all of several fail of: that is no product's."""
        try:
            return await self.index_into(index, product_ids)
        except (AppError, MemoryError):
            raise
        except Exception as error:
            if len(product_ids) == 1:
                products = await self._threads.run(self._load, product_ids)
                return 0, [Failed(product, f"{UNEXPECTED}: {error!r}") for product in products]
            logger.exception("Unexpected while indexing %d products, which are taken one by one", len(product_ids))
            parts = [await self.index_each_into(index, [each]) for each in product_ids]
            failures = [each for _, failed in parts for each in failed]
            if sum(each.reason.startswith(UNEXPECTED) for each in failures) == len(product_ids):
                raise
        return sum(inserted for inserted, _ in parts), failures

    def _load(self, product_ids: Sequence[int]) -> list[ProductRow]:
        with self._database.read() as session:
            return load_products(session, product_ids)

    @staticmethod
    def _parse(messages: Sequence[Message]) -> tuple[list[ProductEvent], list[tuple[Message, str]]]:
        """The events, and what is none, each with its reason."""
        events, unreadable = [], []
        for message in messages:
            try:
                events.append(ProductEvent.model_validate_json(message.value))
            except ValidationError as error:
                logger.warning("Not a product event, to the dead letters: %r", message.value[:200])
                reason = f"not a product event: {error.error_count()} errors: {error.errors()[0]['msg']}"
                unreadable.append((message, reason))
        return events, unreadable

    def _write_dead_letters(self, letters: Sequence[tuple[Message, str]]) -> None:
        with self._database.write() as session:
            for message, reason in letters:
                letter = DeadLetter(payload=message.value.decode(errors="replace"), error=reason)
                add_to_outbox(session, dead_letter_topic(self._settings.kafka_topic), message.key, letter)

    async def _delete_vectors(self, events: Sequence[ProductEvent]) -> None:
        """Of all together: each call of Milvus holds up the changes behind it. None of these products comes back, so a
        row of one of them may go under another's id, too."""
        rows: dict[str, set[tuple[int, int]]] = {}
        """By collection: a Milvus id, and whose it was."""
        for event in events:
            for collection, ids in event.milvus_ids.items():
                rows.setdefault(collection, set()).update((milvus_id, event.product_id) for milvus_id in ids)
        for collection, pairs in rows.items():
            of = sorted(pairs)
            if await self._threads.run(self._vector_db.has_collection, collection):
                for start in range(0, len(of), DELETED_AT_ONCE):
                    milvus_ids, product_ids = zip(*of[start : start + DELETED_AT_ONCE], strict=True)
                    await self._threads.run(self._vector_db.delete, collection, milvus_ids, sorted(set(product_ids)))

    def _load_unindexed(self, product_ids: Sequence[int], index: ServedIndex) -> list[Pictured]:
        with self._database.read() as session:
            products = load_products(session, product_ids)
            pictures = pictures_of(session, products)  # after them: newer ones are not bound at an older version
            versions = indexed_versions(session, index.vector_index_id, product_ids)
        done = [each for each in products if versions.get(each.product_id) == each.content_version]
        asked_again = any(product.index_status == "pending" for product in done)  # after it was bound
        if index.is_live and asked_again:
            with self._database.write() as session:
                # They may wait for an index that took this one's place a moment ago.
                require_status(session, index.vector_index_id, index.collection, "active")
                confirm_indexed(session, index.vector_index_id, [product.product_id for product in done])
        return [Pictured(each, pictures[each.product_id]) for each in products if each not in done]

    def _insert(self, index: LiveIndex, encoded: Sequence[Encoded]) -> tuple[list[Inserted], list[Failed]]:
        # The token's time is that of the insert, from which reconciliation counts how long a row may stay unbound.
        rows = [replace(row, row_token=new_row_token()) for each in encoded for row in each.rows]
        try:
            ids = self._vector_db.insert(index.collection, rows) if rows else []
        except VectorsRejected as error:
            if len(encoded) == 1:
                return [], [Failed(encoded[0].product, error.detail)]
            parts = [self._insert(index, [each]) for each in encoded]  # one bad row must not stop the others
            return [i for inserted, _ in parts for i in inserted], [f for _, failed in parts for f in failed]
        keys = iter(
            [RowKey(milvus_id, row.product_id, row.row_token) for row, milvus_id in zip(rows, ids, strict=True)]
        )
        return [
            Inserted(each.product, [PictureRow(next(keys), picture.image_sha256) for picture in each.pictures])
            for each in encoded
        ], []

    def _bind(self, index: ServedIndex, inserted: Sequence[Inserted], failed: Sequence[Failed]) -> list[int]:
        """One transaction: bind where the version still matches. Returns the Milvus ids that nothing binds any more."""
        with self._database.write() as session:
            status = "active" if index.is_live else "building"
            require_status(session, index.vector_index_id, index.collection, status)
            products = [*(each.product for each in inserted), *(each.product for each in failed)]
            milvus_ids = [row.milvus_id for each in inserted for row, _ in each.rows]
            holders = holders_of(session, index.vector_index_id, milvus_ids)
            current = lock_products(session, [*(product.product_id for product in products), *holders])
            require_fresh(inserted, Graces.of(self._settings))
            losers = release_milvus_ids(session, index.vector_index_id, milvus_ids)
            if losers and index.is_live:  # else they are found unbound
                logger.warning("Milvus gave %d ids again; the products that had them are indexed anew", len(losers))
                requeue(session, losers, "indexed", self._settings.kafka_topic)
            bound = indexed_versions(session, index.vector_index_id, current)  # by another, while this one was paused
            to_do = {each: version for each, version in current.items() if bound.get(each) != version}
            to_bind = [each for each in inserted if self._is_current(to_do, each.product)]
            unbound = [row.milvus_id for each in inserted if each not in to_bind for row, _ in each.rows]
            unbound += bind_all(session, to_bind, index.vector_index_id, is_live=index.is_live)
            for product, reason in failed:
                if not self._is_current(to_do, product):
                    continue
                if index.is_live:
                    unbound += self._write_failure(session, product, index, reason)
                else:  # what an index that is being built has of an older version must not be found later
                    unbound += unbind_product(session, product.product_id, index.vector_index_id)
        return unbound

    def _write_failure(self, session: orm.Session, product: ProductRow, index: LiveIndex, reason: str) -> list[int]:
        if not has_failed(session, product.product_id, reason):  # else its event came twice
            with about_product(product.product_id):
                logger.warning("Product %d can't be indexed: %s", product.product_id, reason)
                event = ProductEvent(
                    product_id=product.product_id,
                    op="upsert",
                    version=product.content_version,
                    request_id=current_request_id(),
                )
            letter = DeadLetter(payload=event.model_dump_json(), error=reason)
            add_to_outbox(session, dead_letter_topic(self._settings.kafka_topic), str(product.product_id), letter)
        return mark_failed(session, product, index.vector_index_id, reason)

    @staticmethod
    def _is_current(versions: dict[int, int], product: ProductRow) -> bool:
        return versions.get(product.product_id) == product.content_version


def _requests_of(messages: Sequence[Message]) -> dict[int, str]:
    """By product, of the messages that name one."""
    requests = {}
    for message in messages:
        with suppress(ValidationError):
            event = ProductEvent.model_validate_json(message.value)
            if event.request_id is not None:
                requests[event.product_id] = event.request_id
    return requests

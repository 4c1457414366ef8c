"""Ingestion and reconciliation on the real parts: SQLite, Milvus Lite, tiny models; what can go wrong is made to."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

import reconcile
from data_models import ProductChanges, ProductEvent, ProductFields, SearchRequest
from errors import ModelMismatch, NotFound
from image_store import CheckedImage, check_image, encode_generated
from ingest import Ingestor
from message_queue import Message, dead_letter_topic
from orm_models import GeneratedImageRow, JobRow, OutboxRow, ProductRow, ProductVectorRow, utc_now
from products import ProductWriter
from reconcile import Reconciler
from search import Searcher
from services import Services, open_services
from settings import Settings
from tests.conftest import picture
from tests.tiny_models import save_tiny_chinese_clip
from vector_db import VectorDB, VectorRow

Scenario = Callable[["Shop"], Awaitable[None]]


class Shop:
    """The services without HTTP and without loops: a test says when an event is ingested."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.topic = services.settings.kafka_topic
        self.writer = ProductWriter(services.database, services.images, services.registry, self.topic, lambda: None)
        self.ingestor = Ingestor(services)
        self.searcher = Searcher(services)

    def create(self, title: str, color: str = "red") -> int:
        image = check_image(picture(color), self.services.settings)
        return self.writer.create(ProductFields(title=title), image).product_id

    def change(self, product_id: int, title: str) -> None:
        self.writer.change(product_id, ProductChanges(title=title), None)

    def messages(self) -> list[Message]:
        """All events ever written, as the transport would hand them out."""
        with self.services.database.read() as session:
            rows = session.scalars(
                sa.select(OutboxRow).where(OutboxRow.topic == self.topic).order_by(OutboxRow.outbox_id)
            )
            return [Message(row.topic, row.message_key, json.dumps(row.payload).encode()) for row in rows]

    def dead_letters(self) -> list[dict[str, Any]]:
        with self.services.database.read() as session:
            query = sa.select(OutboxRow.payload).where(OutboxRow.topic == dead_letter_topic(self.topic))
            return list(session.scalars(query))

    def status(self, product_id: int) -> tuple[str, str | None]:
        with self.services.database.read() as session:
            row = session.get_one(ProductRow, product_id)
            return row.index_status, row.index_error

    def bound(self) -> dict[int, int]:
        with self.services.database.read() as session:
            return {row.product_id: row.milvus_id for row in session.scalars(sa.select(ProductVectorRow))}

    def in_milvus(self) -> set[int]:
        collection = self.services.registry.live().collection
        return {each for batch in self.services.vector_db.iterate_ids(collection) for each in batch}

    async def found(self, text: str) -> list[str]:
        response = await self.searcher.search(SearchRequest(mode="text_to_text", text=text, top_k=100))
        return [hit.product.title for hit in response.hits]


@pytest.fixture
def settings(tmp_path: Path, tiny_models: dict[str, str]) -> Settings:
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    return Settings(_env_file=None, data_dir=tmp_path, **models)


@asynccontextmanager
async def open_shop(settings: Settings) -> AsyncIterator[Shop]:
    async with open_services(settings) as services:
        yield Shop(services)


def run(settings: Settings, scenario: Scenario) -> None:
    async def go() -> None:
        async with asyncio.timeout(60), open_shop(settings) as shop:
            await scenario(shop)

    asyncio.run(go())


def test_events_taken_twice_or_out_of_order_end_in_one_vector_each(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, lamp = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        shop.change(sofa, "紫色沙发")
        for _ in range(2):
            await shop.ingestor.ingest(shop.messages())
        await shop.ingestor.ingest(list(reversed(shop.messages())))
        assert set(shop.bound()) == {sofa, lamp}
        assert shop.in_milvus() == set(shop.bound().values())
        assert sorted(await shop.found("沙发")) == ["紫色沙发", "蓝色灯"]

    run(settings, scenario)


def test_a_deleted_product_is_gone_at_once_and_its_vectors_after_the_event(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, lamp = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        await shop.ingestor.ingest(shop.messages())
        shop.writer.delete(sofa)
        assert await shop.found("红色沙发") == ["蓝色灯"]
        await shop.ingestor.ingest(shop.messages())
        assert shop.in_milvus() == {shop.bound()[lamp]}
        with pytest.raises(NotFound):
            shop.writer.delete(sofa)

    run(settings, scenario)


def test_what_changes_while_it_is_encoded_is_not_bound_at_its_old_version(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        ingesting = asyncio.create_task(shop.ingestor.index_products([sofa]))
        while not ingesting.done():
            shop.change(sofa, f"改名 {time.monotonic_ns()}")
            await asyncio.sleep(0)
        assert shop.status(sofa)[0] == "pending"
        assert shop.bound() == {}
        assert shop.in_milvus() == set()
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(sofa)[0] == "indexed"

    run(settings, scenario)


def test_one_that_cannot_be_encoded_fails_alone_with_its_reason(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        broken, whole = shop.create("坏图"), shop.create("好图", "blue")
        with shop.services.database.read() as session:
            path = session.get_one(ProductRow, broken).image_path
        stored = settings.data_dir / "images" / path
        stored.write_bytes(stored.read_bytes()[:-60])
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(whole) == ("indexed", None)
        status, reason = shop.status(broken)
        assert status == "failed"
        assert "broken or cut off" in (reason or "")
        (letter,) = shop.dead_letters()
        assert ProductEvent.model_validate_json(letter["payload"]).product_id == broken
        assert letter["error"] == reason
        stored.write_bytes(picture())
        shop.change(broken, "修好了")
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(broken) == ("indexed", None)

    run(settings, scenario)


def test_a_message_that_is_no_event_goes_to_the_dead_letters(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest([Message(shop.topic, "?", b"\xff not json"), *shop.messages()])
        assert shop.status(sofa)[0] == "indexed"
        assert "not a product event" in shop.dead_letters()[0]["error"]

    run(settings, scenario)


def test_rows_that_nothing_binds_are_invisible_and_removed_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        collection, encoders = shop.services.registry.live().collection, shop.services.encoding.encoders
        orphan = VectorRow(
            product_id=sofa,
            image_clip_vector=np.ones(encoders.clip.dim, np.float32),
            text_clip_vector=np.ones(encoders.clip.dim, np.float32),
            text_bge_vector=encoders.text.encode_texts(["红色沙发"])[0],
            image_path="x",
            title="红色沙发",
            category=None,
            price=None,
            attributes={},
        )
        shop.services.vector_db.insert(collection, [orphan] * 30)
        assert await shop.found("红色沙发") == ["红色沙发"]
        reconciler = Reconciler(shop.services)
        assert reconciler.reconcile().vectors_without_binding == 0  # it may still be on its way to be bound
        monkeypatch.setattr(reconcile, "UNBOUND_GRACE", timedelta(0))
        assert reconciler.reconcile().vectors_without_binding == 30
        assert shop.in_milvus() == set(shop.bound().values())

    run(settings, scenario)


def test_lost_vectors_stale_products_and_unused_pictures_are_mended(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, lamp = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        await shop.ingestor.ingest(shop.messages())
        forgotten = shop.create("被忘的椅子", "green")
        deleted = shop.create("删掉的床", "white")
        shop.writer.delete(deleted)
        collection = shop.services.registry.live().collection
        shop.services.vector_db.delete(collection, [shop.bound()[sofa]])
        with shop.services.database.write() as session:
            old = utc_now() - timedelta(hours=2)
            session.execute(sa.update(ProductRow).where(ProductRow.product_id == forgotten).values(updated_at=old))
            session.execute(sa.delete(OutboxRow))
        for file in (settings.data_dir / "images").rglob("*.*"):
            os.utime(file, (0, 0))

        mended = Reconciler(shop.services).reconcile()
        assert asdict(mended) == {
            "stale_pending_products": 1,
            "bindings_without_vector": 1,
            "vectors_without_binding": 0,
            "images_without_product": 1,
        }
        await shop.ingestor.ingest(shop.messages())
        assert set(shop.bound()) == {sofa, lamp, forgotten}
        assert len(list((settings.data_dir / "images").rglob("*.png"))) == 3
        assert not any(asdict(Reconciler(shop.services).reconcile()).values())

    run(settings, scenario)


def test_old_generated_pictures_go_and_those_that_a_product_shows_stay(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        kept, unused, recent = (
            encode_generated(Image.new("RGB", (8, 8), color), {}) for color in ("red", "tan", "skyblue")
        )
        for image, hours in ((kept, 200), (unused, 200), (recent, 1)):
            add_finished_job(shop, image, utc_now() - timedelta(hours=hours))
        shop.writer.create(ProductFields(title="红色的沙发"), kept)
        for file in (settings.data_dir / "images").rglob("*.*"):
            os.utime(file, (0, 0))
        assert Reconciler(shop.services).reconcile().images_without_product == 1
        left = {file.name for file in (settings.data_dir / "images").rglob("*.png")}
        assert left == {Path(kept.path).name, Path(recent.path).name}
        with shop.services.database.read() as session:
            assert [row.image_path for row in session.scalars(sa.select(GeneratedImageRow))] == [recent.path]

    run(settings, scenario)


def add_finished_job(shop: Shop, image: CheckedImage, finished_at: datetime) -> None:
    shop.services.images.save(image)
    with shop.services.database.write() as session:
        job = JobRow(kind="generate", status="done", request={"prompt": "x"}, finished_at=finished_at)
        session.add(job)
        session.flush()
        columns = {"image_path": image.path, "image_sha256": image.sha256, "image_width": 8, "image_height": 8}
        session.add(GeneratedImageRow(job_id=job.job_id, position=0, seed=1, **columns))


def test_a_collection_that_milvus_lost_is_built_again(settings: Settings) -> None:
    async def lose(shop: Shop) -> None:
        shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        shop.services.vector_db.drop_collection(shop.services.registry.live().collection)

    async def find_again(shop: Shop) -> None:
        assert shop.bound() == {}
        await shop.ingestor.ingest(shop.messages())
        assert await shop.found("红色沙发") == ["红色沙发"]

    run(settings, lose)
    run(settings, find_again)


def test_other_models_are_refused_until_the_data_is_new(settings: Settings, tmp_path: Path) -> None:
    async def fill(shop: Shop) -> None:
        shop.create("红色沙发")

    run(settings, fill)
    other = save_tiny_chinese_clip(tmp_path / "other-clip", seed=5)
    with pytest.raises(ModelMismatch, match="CLIP_MODEL"):
        run(settings.model_copy(update={"clip_model": str(other)}), fill)


def test_ingestion_waits_for_what_is_down_and_then_goes_on(settings: Settings, milvus: str, tmp_path: Path) -> None:
    down = settings.model_copy(update={"milvus_uri": "http://127.0.0.1:9", "milvus_timeout_s": 1.0})

    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        consumer = _OneBatch(shop.messages())
        working = asyncio.create_task(shop.ingestor.run(consumer))
        await consumer.handed_out.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.committed.wait(), 1)
        assert shop.status(sofa)[0] == "pending"
        up = VectorDB(settings.model_copy(update={"milvus_uri": milvus}))
        shop.services.vector_db._settings = up._settings
        await consumer.committed.wait()
        assert shop.status(sofa)[0] == "indexed"
        working.cancel()

    run(down, scenario)


class _OneBatch:
    """A transport with one batch and then nothing."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self.handed_out, self.committed = asyncio.Event(), asyncio.Event()

    async def next_batch(self, max_messages: int) -> list[Message]:
        assert len(self._messages) <= max_messages
        if self.handed_out.is_set():
            await asyncio.Event().wait()
        self.handed_out.set()
        return self._messages

    async def commit(self) -> None:
        self.committed.set()

    async def close(self) -> None:
        """Nothing is open."""

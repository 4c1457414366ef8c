"""What failed, told apart: a product that can't be indexed, a model or a database in trouble; and the way back."""

import asyncio
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Self

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from data_models import ProductChanges, ProductEvent, SearchMode, SearchRequest
from orm_models import Base, OutboxRow, ProductRow, ProductSketchRow, ProductVectorRow
from tests.conftest import picture
from tests.indexing.shop import Shop, load_on, lose_picture, run
from tests.processes import wait_until
from tests.s3_proxy import running_s3_proxy
from tests.servers import new_bucket
from tuwen.assembly import new_ingestor, new_searcher
from tuwen.encoders.base import Embeddings, ImageTextEncoder, PreparedPicture, TextEncoder
from tuwen.encoders.service import EncodingService
from tuwen.errors import EncodingFailed, ImageStoreUnavailable, ModelsUnavailable, NotFound, VectorDBUnavailable
from tuwen.indexing import outcomes
from tuwen.indexing.ingest import Ingestor
from tuwen.indexing.retry import PAGE, retry_failed
from tuwen.messaging.in_process import InProcessQueue
from tuwen.messaging.transport import Message, MessageConsumer
from tuwen.pictures.thumbnails import thumbnail_path
from tuwen.settings import Settings
from tuwen.twins.finder import DuplicateFinder
from tuwen.twins.settling import TwinKeeper
from tuwen.vectors.registry import IndexRegistry
from vector_db import VectorDB


class SickModel:
    """A real one that can't take some texts, or any."""

    def __init__(self, sound: TextEncoder) -> None:
        self.dim = sound.dim
        self.refused: str | None = None
        self.indexes_apart, self.is_remote = sound.indexes_apart, sound.is_remote
        self._sound = sound

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        self._refuse(texts)
        return self._sound.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str]) -> Embeddings:
        self._refuse(texts)
        return self._sound.encode_documents(texts)

    def on_one_thread(self) -> Self:
        return self

    def _refuse(self, texts: Sequence[str]) -> None:
        if self.refused is not None and any(self.refused in text for text in texts):
            raise RuntimeError("CUDA error: out of memory")


class ColourBlindModel(ImageTextEncoder):
    """A real one that can't take green pictures, and keeps who prepares the others."""

    def __init__(self, sound: ImageTextEncoder) -> None:
        self.dim = sound.dim
        self.prepared_by: set[str] = set()
        self._sound = sound

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return self._sound.encode_texts(texts)

    def prepare(self, image: Image.Image) -> PreparedPicture:
        red, green, _ = np.asarray(image.convert("RGB")).mean(axis=(0, 1))
        if green > red:
            raise ZeroDivisionError("nothing of it is red")
        self.prepared_by.add(threading.current_thread().name.partition("_")[0])
        return self._sound.prepare(image)

    def encode_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        return self._sound.encode_prepared(pictures)

    def on_one_thread(self) -> Self:
        return self


@asynccontextmanager
async def sick_model(shop: Shop) -> AsyncIterator[tuple[SickModel, EncodingService]]:
    """And an encoding service that uses it, as the shop's ingestion does from here on."""
    encoders = shop.services.encoding.encoders
    model = SickModel(encoders.text)
    encoding = EncodingService(replace(encoders, text=model), shop.services.settings)
    stores = shop.services
    load = partial(load_on, asyncio.get_running_loop(), stores.settings)
    registry = IndexRegistry(stores.database, stores.vector_db, encoding, load)
    shop.ingestor = new_ingestor(replace(stores, registry=registry))
    yield model, encoding
    await encoding.close()


@asynccontextmanager
async def ingesting(shop: Shop, ingestor: Ingestor, messages: list[Message]) -> AsyncIterator[asyncio.Task[None]]:
    """The loop as it runs; yields the task that ends once it took the messages."""
    queue = InProcessQueue([shop.topic])
    consumer: MessageConsumer = queue.consumers[shop.topic]
    working = asyncio.create_task(ingestor.run(consumer))
    sending = asyncio.create_task(queue.send(messages))
    yield sending
    working.cancel()
    sending.cancel()


def test_a_model_in_trouble_fails_no_product_and_costs_none_its_old_vectors(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        before = shop.bound()
        shop.change(sofa, "紫色沙发")
        async with sick_model(shop) as (model, encoding):
            model.refused = ""
            async with ingesting(shop, shop.ingestor, shop.messages()) as ended:  # a batch of this one product
                await asyncio.to_thread(
                    wait_until, lambda: caplog.text.count("Ingestion waits") >= 2, what="ingestion to wait"
                )
                assert shop.status(sofa) == ("pending", None)
                assert shop.bound() == before
                assert await shop.found("红色沙发") == ["紫色沙发"]
                with pytest.raises(ModelsUnavailable, match="out of memory"):
                    await encoding.check()
                with pytest.raises(ModelsUnavailable):
                    await encoding.query_text("沙发")
                model.refused = None
                await ended
            assert shop.status(sofa) == ("indexed", None)
            assert shop.dead_letters() == []
            await encoding.check()

    run(settings.model_copy(update={"retry_backoff_max_s": 0.5}), scenario)


def test_a_poisoned_product_fails_alone_and_comes_back_when_somebody_asks_for_it(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        poisoned, sound, other = shop.create("毒 1"), shop.create("红色沙发"), shop.create("毒 2")
        async with sick_model(shop) as (model, encoding):
            model.refused = "毒"
            for _ in range(2):  # the second time nothing is left to say
                await shop.ingestor.ingest(shop.messages())
            await encoding.check()
            assert shop.status(sound) == ("indexed", None)
            status, reason = shop.status(poisoned)
            assert (status, "out of memory" in (reason or "")) == ("failed", True)
            assert len(shop.dead_letters()) == 2

            model.refused = None
            assert shop.writer.reindex(poisoned).index_status == "pending"
            await shop.ingestor.ingest(shop.messages()[-1:])
            assert (shop.status(poisoned), shop.status(other)[0]) == (("indexed", None), "failed")
            with pytest.raises(NotFound):
                shop.writer.reindex(999)

    run(on_both_databases, scenario)


def test_a_picture_that_can_not_be_prepared_fails_alone_and_all_are_where_they_were_decoded(
    on_both_databases: Settings,
) -> None:
    async def scenario(shop: Shop) -> None:
        red, green = shop.create("红色沙发"), shop.create("绿色沙发", "green")
        stores, encoders = shop.services, shop.services.encoding.encoders
        model = ColourBlindModel(encoders.clip)
        encoding = EncodingService(replace(encoders, clip=model), stores.settings)
        model.prepared_by.clear()  # the known good picture
        load = partial(load_on, asyncio.get_running_loop(), stores.settings)
        registry = IndexRegistry(stores.database, stores.vector_db, encoding, load)
        services = replace(stores, registry=registry)
        await new_ingestor(services).ingest(shop.messages())
        assert shop.status(red) == ("indexed", None)
        assert shop.status(green) == (
            "failed",
            "The model can't encode this: ZeroDivisionError('nothing of it is red')",
        )
        await encoding.check()

        searcher = new_searcher(services)
        by_picture = SearchRequest(mode=SearchMode.IMAGE_TO_IMAGE)
        assert [hit.product.product_id for hit in (await searcher.search(by_picture, picture("red"))).hits] == [red]
        with pytest.raises(EncodingFailed, match="nothing of it is red"):
            await searcher.search(by_picture, picture("green"))
        assert model.prepared_by == {"decoding", "decoding behind"}  # a search's, and the index's
        await encoding.close()

    run(on_both_databases, scenario)


def test_indexing_again_makes_new_vectors_and_the_old_ones_are_found_until_then(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        old = shop.bound()[sofa]
        for _ in range(2):
            queued = shop.writer.reindex(sofa)
            assert (queued.index_status, queued.version, queued.milvus_id) == ("pending", 1, old)
        assert await shop.found("红色沙发") == ["红色沙发"]
        await shop.ingestor.ingest(shop.messages())
        await shop.ingestor.ingest(shop.messages())
        new = shop.bound()[sofa]
        assert new != old
        assert shop.in_milvus() == {new}
        assert shop.status(sofa) == ("indexed", None)

    run(on_both_databases, scenario)


def test_all_that_failed_is_queued_page_by_page_or_what_failed_for_one_reason(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        row = {"title": "沙发", "attributes": {}, "image_path": "aa/a.png", "image_sha256": "a", "image_width": 1}
        row |= {"image_height": 1, "index_status": "failed"}
        reasons = ["out of memory"] * (PAGE + 3) + ["100% broken"] * 2 + ["1000 broken"]
        indexed = shop.create("红色沙发")
        with shop.services.database.write() as session:
            session.execute(sa.insert(ProductRow), [row | {"index_error": reason} for reason in reasons])
        database = shop.services.database
        assert list(retry_failed(database, shop.topic, reason_contains="0% broken")) == [2]
        assert list(retry_failed(database, shop.topic)) == [PAGE, 4]
        assert list(retry_failed(database, shop.topic)) == []
        events = [ProductEvent.model_validate_json(message.value) for message in shop.messages()]
        assert len({event.product_id for event in events}) == len(events) == len(reasons) + 1
        assert shop.status(indexed) == ("pending", None)

    run(on_both_databases, scenario)


def test_an_empty_folder_under_a_disk_that_is_not_mounted_takes_no_product_out_of_search(settings: Settings) -> None:
    images = settings.data_dir / "images"
    disk = images.with_name("disk")

    async def fill(shop: Shop) -> None:
        shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())

    async def without_the_disk(shop: Shop) -> None:
        shop.writer.reindex(1)
        refused: list[Callable[[], object]] = [shop.services.images.check, lambda: shop.create("灯", "blue"), shop.mend]
        for call in refused:
            with pytest.raises(ImageStoreUnavailable, match="is a disk not mounted"):
                call()
        with pytest.raises(ImageStoreUnavailable, match="is a disk not mounted"):
            await shop.ingestor.ingest(shop.messages())
        assert not list(images.rglob("*"))  # what is written there would be gone with the disk's return
        assert shop.status(1) == ("pending", None)
        assert await shop.found("红色沙发") == ["红色沙发"]

    async def with_the_disk(shop: Shop) -> None:
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(1) == ("indexed", None)

    run(settings, fill)
    images.rename(disk)
    images.mkdir()
    run(settings, without_the_disk)
    images.rmdir()
    disk.rename(images)
    run(settings, with_the_disk)


def test_a_store_of_an_older_version_has_no_mark_and_is_known_by_a_picture(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        images, lost = settings.data_dir / "images", shop.create("红色沙发")
        shop.create("蓝色灯", "blue")
        [mark] = images.rglob("installation")
        mark.unlink()
        lose_picture(shop, lost)
        await shop.ingestor.ingest(shop.messages())
        assert mark.exists()
        assert shop.status(lost)[0] == "failed"

    run(settings, scenario)


def test_a_store_that_lost_everything_is_taken_as_it_is_when_somebody_says_so(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        shutil.rmtree(settings.data_dir / "images")
        (settings.data_dir / "images").mkdir()
        assert shop.mend(may_delete_many=True).products_without_image == 1
        assert shop.status(sofa)[0] == "failed"
        shop.create("蓝色灯", "blue")

    run(settings, scenario)


def test_an_object_of_s3_that_always_fails_holds_up_its_batch_for_a_while_alone(
    settings: Settings, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "PATIENCE_S", 1.0)
    with running_s3_proxy(s3) as proxy:
        variables = new_bucket(s3) | {"AWS_ENDPOINT_URL": proxy.address}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

        async def scenario(shop: Shop) -> None:
            bad = shop.create("坏图", "red")
            with shop.services.database.read() as session:
                proxy.poison = session.get_one(ProductRow, bad).image_sha256
            good = [shop.create(f"好图 {number}", "blue") for number in range(3)]
            async with ingesting(shop, shop.ingestor, shop.messages()) as sending:
                await asyncio.wait_for(sending, 20)
            assert [shop.status(each) for each in good] == [("indexed", None)] * 3
            assert shop.status(bad) == ("pending", None)  # for reconciliation
            shop.services.images.check()
            proxy.poison = ""
            await shop.ingestor.index_products([bad])
            assert shop.status(bad) == ("indexed", None)

        address = variables["IMAGE_STORE_URL"]
        options = {"image_store_url": address, "image_store_timeout_s": 2.0, "retry_backoff_max_s": 0.5}
        run(settings.model_copy(update=options), scenario)


def test_a_malformed_message_is_buried_once_however_long_its_batch_waits(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        messages = [Message(shop.topic, "?", b"not json"), *shop.messages()]
        nowhere = on_both_databases.model_copy(update={"milvus_uri": "http://127.0.0.1:9", "milvus_timeout_s": 0.5})
        vector_db = VectorDB(nowhere)
        waiting = new_ingestor(replace(shop.services, vector_db=vector_db))
        for _ in range(2):
            with pytest.raises(VectorDBUnavailable):
                await waiting.ingest(messages)
        vector_db.close()
        await shop.ingestor.ingest(messages)
        assert len(shop.dead_letters()) == 1
        assert shop.status(sofa)[0] == "indexed"

    run(on_both_databases, scenario)


def test_a_mistake_of_ours_in_the_database_ends_as_a_dead_letter_and_holds_nothing_up(
    on_both_databases: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        shop.create("红色沙发")
        engine = shop.services.database.engine
        Base.metadata.tables[ProductVectorRow.__tablename__].drop(engine)
        async with ingesting(shop, shop.ingestor, shop.messages()) as ended:
            await asyncio.wait_for(ended, 30)
        assert "product_vector" in shop.dead_letters()[0]["error"]
        messages = shop.messages()
        Base.metadata.tables[OutboxRow.__tablename__].drop(engine)  # now even that can't be written
        caplog.set_level(logging.ERROR)
        async with ingesting(shop, shop.ingestor, messages) as ended:
            await asyncio.wait_for(ended, 30)
        assert "No dead letter can be written" in caplog.text

    run(on_both_databases, scenario)


def test_each_of_many_changes_at_once_answers_the_version_that_it_made(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")

        def change(number: int) -> tuple[int, str]:
            changed = shop.writer.change(sofa, ProductChanges(title=f"第 {number} 个"), None)
            return changed.version, changed.title

        def change_all() -> list[tuple[int, str]]:
            with ThreadPoolExecutor(20) as pool:
                return list(pool.map(change, range(20)))

        answers = await asyncio.to_thread(change_all)
        assert sorted(version for version, _ in answers) == list(range(2, 22))
        assert [title for _, title in answers] == [f"第 {number} 个" for number in range(20)]

    run(on_both_databases, scenario)


def test_a_thumbnail_that_the_store_cannot_give_keeps_no_product_from_being_compared(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        services, root = shop.services, settings.data_dir / "images"
        broken, _ = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        await shop.ingestor.ingest(shop.messages())
        with services.database.write() as session:  # as an upgrade leaves them
            session.execute(sa.delete(ProductSketchRow))
            session.execute(sa.update(ProductRow).values(sketch_version=0))
            path = root / thumbnail_path(session.get_one(ProductRow, broken).image_path)
        path.unlink()
        path.symlink_to(path.name)  # a loop: an error of the store for this one alone
        finder = DuplicateFinder(services.database, services.vector_db, services.images, services.registry)
        keeper = TwinKeeper(services.database, finder)

        away = root.with_name("away")
        root.rename(away)
        root.symlink_to(root.name)
        with pytest.raises(ImageStoreUnavailable):  # of all pictures: they wait
            keeper.take_page()
        root.unlink()
        away.rename(root)

        assert keeper.take_page()
        with services.database.read() as session:
            assert session.scalars(sa.select(ProductRow.product_id).where(ProductRow.sketch_version == 0)).all() == []

    run(settings, scenario)

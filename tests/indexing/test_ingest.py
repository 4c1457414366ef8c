"""Ingestion: what can go wrong between an event and a bound vector is made to."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data_models import ProductEvent
from nlp_models import find_models
from orm_models import ProductRow, VectorIndexRow
from tests.conftest import picture
from tests.indexing.shop import Shop, run
from tests.processes import free_port, wait_until
from tests.s3_proxy import running_s3_proxy
from tests.servers import new_bucket, running_milvus
from tests.tiny_models import save_tiny_chinese_clip, save_tiny_sentence_model
from tuwen.assembly import new_ingestor, open_services
from tuwen.encoders.base import ModelNames
from tuwen.errors import DependencyUnavailable, IndexChanged, ModelMismatch, NotFound
from tuwen.indexing import ingest
from tuwen.indexing.drift import Graces
from tuwen.messaging.in_process import InProcessQueue
from tuwen.messaging.transport import Message
from tuwen.pictures.checks import check_image
from tuwen.settings import Settings
from tuwen.vectors.indexes import activate, models_of, new_index


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


def test_deleted_products_leave_milvus_together_and_take_no_other_along(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        *deleted, kept = (shop.create(f"{color}沙发", color) for color in ("red", "tan", "navy", "blue"))
        await shop.ingestor.ingest(shop.messages())
        bound = shop.bound()
        for each in deleted:
            shop.writer.delete(each)
        vector_db, calls = shop.services.vector_db, list[tuple[str, int]]()
        has_collection, delete = vector_db.has_collection, vector_db.delete

        def count_looks(collection: str) -> bool:
            calls.append(("has_collection", 1))
            return has_collection(collection)

        def count_deletes(collection: str, milvus_ids: Sequence[int], product_ids: Sequence[int]) -> None:
            calls.append(("delete", len(milvus_ids)))
            delete(collection, milvus_ids, product_ids)

        vector_db.has_collection, vector_db.delete = count_looks, count_deletes  # type: ignore[method-assign]
        collection = shop.services.registry.live().collection
        events = [each for each in shop.messages() if b'"delete"' in each.value]
        # As of a Milvus that was restored, and has given a deleted product's id again.
        reused = ProductEvent(product_id=9999, op="delete", version=1, milvus_ids={collection: [bound[kept]]})
        lost = ProductEvent(product_id=9998, op="delete", version=1, milvus_ids={"of_another_time": [1]})
        extra = [Message(shop.topic, "x", each.model_dump_json().encode()) for each in (reused, lost)]
        await shop.ingestor.ingest([*events, *events, *extra])
        assert calls == [("has_collection", 1), ("delete", 3), ("delete", 1), ("has_collection", 1)]
        assert shop.in_milvus() == {bound[kept]}

    monkeypatch.setattr(ingest, "DELETED_AT_ONCE", 3)
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


def test_who_was_paused_before_binding_replaces_nothing_that_another_has_bound(
    on_both_databases: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, loop = shop.create("红色沙发"), asyncio.get_running_loop()
        paused, other = shop.ingestor, new_ingestor(shop.services)
        bind = paused._bind

        def bind_after_a_pause(*arguments: Any) -> Any:
            """In which Kafka gives the messages to another worker, and a sweep removes what is unbound."""
            asyncio.run_coroutine_threadsafe(other.ingest(shop.messages()), loop).result()
            assert shop.mend(graces=Graces(unbound=timedelta(0))).vectors_without_binding == 1
            return bind(*arguments)

        monkeypatch.setattr(paused, "_bind", bind_after_a_pause)
        await paused.ingest(shop.messages())
        assert shop.status(sofa) == ("indexed", None)
        assert shop.in_milvus() == set(shop.bound().values())
        assert await shop.found("红色沙发") == ["红色沙发"]

    run(on_both_databases, scenario)


def test_what_went_into_a_collection_that_was_made_anew_meanwhile_is_not_bound(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, vector_db = shop.create("红色沙发"), shop.services.vector_db
        bind = shop.ingestor._bind

        def bind_after_a_pause(*arguments: Any) -> Any:
            """In which Milvus loses the collection, and another process makes it again under a new name."""
            vector_db.drop_collection(shop.services.registry.live().collection)
            vector_db.missed_collection.set()
            shop.services.registry.look()
            return bind(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(shop.ingestor, "_bind", bind_after_a_pause)
            with pytest.raises(IndexChanged):
                await shop.ingestor.ingest(shop.messages())
        assert (shop.status(sofa)[0], shop.bound()) == ("pending", {})
        await shop.ingestor.ingest(shop.messages())
        assert await shop.found("红色沙发") == ["红色沙发"]

    run(settings, scenario)


def test_vectors_that_were_made_too_long_ago_are_made_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        with monkeypatch.context() as patched:
            patched.setattr(Graces, "of", lambda _: Graces(unbound=timedelta(0)))
            with pytest.raises(DependencyUnavailable):
                await shop.ingestor.ingest(shop.messages())
        assert (shop.status(sofa)[0], shop.bound()) == ("pending", {})
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(sofa) == ("indexed", None)

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


def test_an_index_keeps_its_prompts_when_the_settings_drop_them_or_name_another_model(
    settings: Settings, tmp_path: Path
) -> None:
    other = str(save_tiny_sentence_model(tmp_path / "other-text", seed=5))
    prompted = settings.model_copy(update={"text_document_prompt": "标题 "})

    async def scenario() -> None:
        async with open_services(prompted) as services:
            first = services.encoding.encoders
            find = partial(find_models, ModelNames(settings.clip_model, other), settings)
            found = await asyncio.to_thread(find)
            with services.database.write() as session:
                session.add(second := new_index(session, found.fingerprint, found.names))
                session.flush()
                second_id = second.vector_index_id
        async with open_services(settings) as services:
            assert services.encoding.encoders.models == first.models
            with services.database.write() as session:
                activate(session, second_id, "building")
        async with open_services(settings.model_copy(update={"text_model": other})) as services:
            await asyncio.to_thread(services.registry.prepare)
            assert services.registry.preparations() == {first.fingerprint: "ready", found.fingerprint: "ready"}

    asyncio.run(scenario())


def test_other_models_are_refused_with_the_command_that_changes_them(settings: Settings, tmp_path: Path) -> None:
    other = save_tiny_chinese_clip(tmp_path / "other-clip", seed=5)

    async def open_with(clip_model: str) -> ModelNames:
        async with open_services(settings.model_copy(update={"clip_model": clip_model})) as services:
            return services.encoding.encoders.models

    async def scenario(shop: Shop) -> None:
        models = shop.services.encoding.encoders.models
        with pytest.raises(ModelMismatch) as refused:
            await open_with(str(other))
        command = f"python cli.py reindex --clip-model {other} --text-model {settings.text_model}"
        assert refused.value.detail.endswith(command)
        assert settings.clip_model in refused.value.detail
        # The operator has switched, or rolled back, and the settings still name the other index's models.
        found = await asyncio.to_thread(find_models, ModelNames(str(other), settings.text_model), settings)
        with shop.services.database.write() as session:
            session.add(retired := new_index(session, found.fingerprint, found.names))
            retired.status = "retired"
        assert await open_with(str(other)) == models
        # An index of 0.2.0 says nothing of its models; they are known by their fingerprint.
        with shop.services.database.write() as session:
            session.execute(sa.update(VectorIndexRow).values(clip_model=None, text_model=None))
        with pytest.raises(ModelMismatch, match="set both back to what they were"):
            await open_with(str(other))
        assert await open_with(settings.clip_model) == models
        with shop.services.database.read() as session:
            assert (
                models_of(session.scalars(sa.select(VectorIndexRow).where(VectorIndexRow.status == "active")).one())
                == models
            )

    run(settings, scenario)


def test_ingestion_waits_for_what_is_down_and_then_goes_on(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    address = {"milvus_uri": f"http://127.0.0.1:{port}", "milvus_timeout_s": 1.0, "retry_backoff_max_s": 0.5}

    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        queue = InProcessQueue([shop.topic])
        working = asyncio.create_task(shop.ingestor.run(queue.consumers[shop.topic]))
        sending = asyncio.create_task(queue.send(shop.messages()))
        await asyncio.to_thread(
            wait_until,
            lambda: caplog.text.count("Milvus does not answer") >= 3,  # the start's, and two of ingestion's
            what="ingestion to try twice",
        )
        assert not sending.done()
        assert shop.status(sofa)[0] == "pending"
        with running_milvus(tmp_path / "late", port=port):
            await sending
            assert shop.status(sofa)[0] == "indexed"
        working.cancel()

    run(settings.model_copy(update=address), scenario)


@pytest.mark.parametrize("trouble", ["drop", "throttle", "slow"])
def test_a_batch_waits_for_an_s3_in_trouble_and_nothing_of_it_is_given_up(
    settings: Settings, s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: Any
) -> None:
    async def scenario(shop: Shop) -> None:
        products = [shop.create("红色沙发"), shop.create("蓝色灯", "blue"), shop.create("绿色椅子", "green")]
        proxy.mode, proxy.delay_s = trouble, 3 * timeout_s
        queue = InProcessQueue([shop.topic])
        working = asyncio.create_task(shop.ingestor.run(queue.consumers[shop.topic]))
        sending = asyncio.create_task(queue.send(shop.messages()))
        await asyncio.to_thread(
            wait_until,
            lambda: caplog.text.count("Ingestion waits") >= 2 and "IMAGE_STORE_URL" in caplog.text,
            what="ingestion to try twice",
        )
        assert not sending.done()
        proxy.mode = "pass"
        await sending
        assert {shop.status(each) for each in products} == {("indexed", None)}
        assert shop.dead_letters() == []
        working.cancel()

    timeout_s = 2.0
    with running_s3_proxy(s3) as proxy:
        variables = new_bucket(s3) | {"AWS_ENDPOINT_URL": proxy.address}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        changes = {"image_store_url": variables["IMAGE_STORE_URL"], "image_store_timeout_s": timeout_s}
        run(settings.model_copy(update=changes | {"retry_backoff_max_s": 0.5}), scenario)


def test_a_product_whose_object_is_missing_fails_with_its_reason(
    settings: Settings, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        lost, kept = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        path = shop.services.images.path_of(check_image(picture(), settings))
        shop.services.images.remove_aside(path, shop.services.images.set_aside(path))
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(kept) == ("indexed", None)
        assert shop.status(lost) == ("failed", f"There is no picture {path}.")

    variables = new_bucket(s3)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run(settings.model_copy(update={"image_store_url": variables["IMAGE_STORE_URL"]}), scenario)


def test_one_picture_that_the_store_cannot_read_holds_up_no_other(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        unreadable, readable = shop.create("坏盘上的图", "red"), shop.create("好图", "blue")
        with shop.services.database.read() as session:
            path = settings.data_dir / "images" / session.get_one(ProductRow, unreadable).image_path
        path.unlink()
        path.symlink_to(path.name)  # a loop: an error of the store for this one alone
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(readable) == ("indexed", None)
        assert shop.status(unreadable) == ("pending", None)  # reconciliation brings it up again
        path.unlink()
        path.write_bytes(picture())
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(unreadable) == ("indexed", None)

    run(settings, scenario)

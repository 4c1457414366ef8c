"""Other models for an index that is in use: built, checked, switched, rolled back; stopped between the steps."""

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data_models import ReindexJob, ReindexQuery, ReindexRequest, SearchMode, SearchRequest
from orm_models import ProcessRow, ProductRow, ProductVectorRow, VectorIndexRow, utc_now
from tests.indexing.change import TITLES, Change, fill
from tests.indexing.shop import Shop, load_on, run
from tests.servers import running_endpoint
from tuwen.assembly import new_reindexer
from tuwen.errors import IndexChanged, NotCancellable, ReindexConflict, VectorDBUnavailable
from tuwen.indexing.encoding import ProductEncoder
from tuwen.indexing.outcomes import Encoded, Failed, Pictured
from tuwen.indexing.queries import requeue
from tuwen.indexing.reindex_attempts import JobReport, begin_attempt
from tuwen.indexing.reindex_gate import ReindexGate
from tuwen.indexing.reindex_jobs import ReindexJobs
from tuwen.settings import Settings
from tuwen.vectors.indexes import activate
from tuwen.vectors.registry import IndexRegistry


def test_models_of_other_dimensions_take_over_go_back_and_lose_no_write(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, chair, *_ = await fill(shop)
        change, before = Change(shop), shop.services.registry.live()
        job = await change.run(**other_models)
        assert (job.status, job.phase, job.failed, job.live_count, job.new_count) == ("done", "switched", 0, 15, 15), (
            job
        )
        assert change.indexes() == {before.collection: "retired", job.collection: "active"}
        assert await change.index_of_a_search() == job.collection
        assert sorted(await shop.found("红色沙发")) == sorted(TITLES)
        await shop.ingestor.ingest(shop.messages())  # events that came late find their work done
        # What is written now goes to the new index alone.
        shop.change(sofa, "黑色沙发")
        shop.writer.delete(chair)
        bed = shop.create("白色床", "white")
        await shop.ingestor.ingest(shop.messages())
        with pytest.raises(ReindexConflict, match="--drop-retired"):
            change.jobs.create(ReindexRequest(**other_models))
        change.jobs.roll_back()
        assert await change.index_of_a_search() == before.collection
        assert "白色床" not in await shop.found("白色床")  # until reconciliation, which the switch wakes
        assert shop.mend().indexed_products_unbound == 2
        await shop.ingestor.ingest(shop.messages())
        assert (await shop.found("黑色沙发"))[0] == "黑色沙发"
        assert sorted(await shop.found("床")) == sorted([*TITLES[2:], "黑色沙发", "白色床"])
        assert shop.status(bed) == ("indexed", None)
        assert change.jobs.drop_retired().collections == [job.collection]
        await new_reindexer(shop.services).take_turn()
        assert change.indexes() == {before.collection: "active"}
        assert not shop.services.vector_db.has_collection(str(job.collection))
        assert shop.in_milvus() == set(shop.bound().values())
        with pytest.raises(ReindexConflict, match="no retired index"):
            change.jobs.roll_back()

    run(settings, scenario)


def test_what_ingestion_began_before_the_switch_is_begun_again_after_it(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:2])
        change, before = Change(shop), shop.services.registry.live()
        job = await change.run(**other_models, switch=False)
        assert (job.status, job.phase) == ("done", "ready")
        lamp = shop.create("黑色床灯", "black")
        with shop.services.database.write() as session:  # another process's switch, which this one has not noticed
            new = session.scalars(sa.select(VectorIndexRow).where(VectorIndexRow.collection == job.collection)).one()
            activate(session, new.vector_index_id, "building")
        assert shop.services.registry.known == before
        with pytest.raises(IndexChanged):
            await shop.ingestor.index_products([lamp])
        assert shop.status(lamp) == ("pending", None)
        await shop.ingestor.index_products([lamp])
        assert shop.status(lamp) == ("indexed", None)
        assert await change.index_of_a_search() == job.collection
        assert (await shop.found("黑色床灯"))[0] == "黑色床灯"

    run(settings, scenario)


def test_a_change_that_is_cut_off_between_its_steps_goes_on_where_it_was(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def stop_when(shop: Shop, condition: Callable[[], bool]) -> None:
        working = asyncio.create_task(new_reindexer(shop.services).take_turn())
        while not condition() and not working.done():  # noqa: ASYNC110  # a condition of the database
            await asyncio.sleep(0.001)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    async def scenario(shop: Shop) -> None:
        await fill(shop)
        change, database = Change(shop), shop.services.database
        job = change.jobs.create(ReindexRequest(**other_models))

        def state() -> ReindexJob:
            return change.jobs.read(job.job_id)

        def bound_in_new() -> int:
            old = shop.services.registry.live().vector_index_id
            with database.read() as session:
                statement = sa.select(sa.func.count()).where(ProductVectorRow.vector_index_id != old)
                return session.scalar(statement) or 0

        steps: list[Callable[[], bool]] = [
            lambda: len(change.indexes()) == 2,  # before its collection, or in the middle of it
            lambda: state().phase == "filling",
            lambda: bound_in_new() >= 8,
            lambda: state().phase == "checking",
        ]
        for number, condition in enumerate(steps):
            await stop_when(shop, condition)
            assert state().status == "running", number
            assert len(change.indexes()) == 2, number
        await new_reindexer(shop.services).take_turn()
        assert (state().status, state().phase) == ("done", "switched"), state()
        assert sorted(await shop.found("红色沙发")) == sorted(TITLES)

    run(settings, scenario)


def test_products_that_come_in_during_the_fill_make_no_more_than_a_whole_of_it(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        jobs = Change(shop).jobs
        job = jobs.create(ReindexRequest(**other_models))
        attempt = begin_attempt(shop.services.database)
        assert attempt is not None
        JobReport(shop.services.database, attempt).say("filling", done=832, total=830)
        assert (jobs.read(job.job_id).progress, jobs.read(job.job_id).done) == (1.0, 832)

    run(settings, scenario)


def test_a_product_that_would_be_lost_or_searches_that_find_less_stop_the_switch(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        broken, *_ = await fill(shop)
        change, before = Change(shop), shop.services.registry.live()
        queries = []
        for title in TITLES[1:]:
            found = await shop.searcher.search(SearchRequest(mode=SearchMode.TEXT_TO_IMAGE, text=title, top_k=3))
            queries += [
                ReindexQuery(text=title, mode=SearchMode.TEXT_TO_IMAGE, product_id=hit.product.product_id)
                for hit in found.hits
            ]
        with shop.services.database.read() as session:
            path = settings.data_dir / "images" / session.get_one(ProductRow, broken).image_path
        whole = path.read_bytes()
        path.write_bytes(whole[:-60])
        job = await change.run(**other_models)
        assert (job.status, job.failed, job.failures[0].product_id) == ("failed", 1, broken)
        assert "1 products would be lost" in str(job.error)
        assert "broken or cut off" in job.failures[0].reason
        path.write_bytes(whole)
        job = await change.run(**other_models, queries=queries)
        assert (job.status, job.recall_live) == ("failed", 1.0)
        assert "Recall at 10 falls from 1.000" in str(job.error)
        assert await change.index_of_a_search() == before.collection
        job = await change.run(**other_models, queries=queries, force=True)
        assert (job.status, job.phase) == ("done", "switched")

    run(settings, scenario)


def test_models_that_cannot_be_had_or_are_in_use_and_a_cancelled_change_leave_all_as_it_was(
    settings: Settings, other_models: dict[str, str], tmp_path: Path
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:1])
        change, before = Change(shop), shop.services.registry.live()
        job = await change.run(**{**other_models, "clip_model": str(tmp_path / "nothing")})
        assert (job.status, "there is no such folder" in str(job.error)) == ("failed", True)
        job = await change.run(clip_model=settings.clip_model, text_model=settings.text_model)
        assert (job.status, "these very models" in str(job.error)) == ("failed", True)
        job = await change.run(**other_models, switch=False)
        waiting = change.jobs.create(ReindexRequest(**other_models))
        assert change.jobs.create(ReindexRequest(**other_models)) == waiting  # asked twice
        with pytest.raises(ReindexConflict, match="under way"):
            change.jobs.create(ReindexRequest(**other_models, switch=False))
        change.jobs.cancel(waiting.job_id)
        change.jobs.cancel(waiting.job_id)
        with pytest.raises(NotCancellable):
            change.jobs.cancel(job.job_id)
        typo = await change.run(**{**other_models, "clip_model": str(tmp_path / "nothing")})
        assert typo.status == "failed"
        assert change.indexes() == {before.collection: "active", job.collection: "building"}  # it waits for its switch
        assert change.jobs.drop_retired().collections == [job.collection]
        await new_reindexer(shop.services).take_turn()
        assert change.indexes() == {before.collection: "active"}
        assert not shop.services.vector_db.has_collection(str(job.collection))
        assert await shop.found("红色沙发") == TITLES[:1]

    run(settings, scenario)


def test_an_endpoint_that_another_process_took_is_asked_by_none_whose_settings_do_not_name_it(
    settings: Settings, other_models: dict[str, str], tmp_path: Path
) -> None:
    async def scenario(shop: Shop) -> None:
        with running_endpoint(tmp_path / "endpoint") as endpoint:
            server = endpoint.url.removesuffix("/v1")
            change, services = Change(shop), shop.services
            allows = settings.model_copy(update={"endpoint_servers": (server,)})
            jobs = ReindexJobs(allows, services.database, services.vector_db, services.registry)
            job = jobs.create(ReindexRequest(**{**other_models, "text_model": endpoint.name}))
            await new_reindexer(services).take_turn()
            job = change.jobs.read(job.job_id)
            said = f"TEXT_MODEL: no setting of this process names {server}; ENDPOINT_SERVERS may."
            assert (job.status, job.error) == ("failed", said)
            assert endpoint.seen() == []

    run(settings, scenario)


def activate_elsewhere(shop: Shop, collection: str | None, status: str) -> None:
    """As another process does it, which this one has yet to notice."""
    with shop.services.database.write() as session:
        row = session.scalars(sa.select(VectorIndexRow).where(VectorIndexRow.collection == collection)).one()
        activate(session, row.vector_index_id, status)


def test_the_check_goes_by_milvus_ids_which_are_not_in_the_order_of_products(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        first, *_ = await fill(shop)
        change = Change(shop)
        await change.run(**other_models, switch=False)
        shop.change(first, "黑色沙发")
        await shop.ingestor.ingest(shop.messages())
        job = await change.run(**other_models)
        assert (job.status, job.phase) == ("done", "switched"), job
        assert (await shop.found("黑色沙发"))[0] == "黑色沙发"

    run(settings, scenario)


def test_an_event_of_a_product_that_waits_for_another_index_is_not_taken_for_done(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:2])
        change, before = Change(shop), shop.services.registry.live()
        await change.run(**other_models)
        bed = shop.create("白色床", "white")
        await shop.ingestor.ingest(shop.messages())
        activate_elsewhere(shop, before.collection, "retired")
        with shop.services.database.write() as session:
            requeue(session, [bed], "indexed", shop.topic)  # the other process reconciled
        with pytest.raises(IndexChanged):
            await shop.ingestor.ingest(shop.messages()[-1:])
        await shop.ingestor.ingest(shop.messages()[-1:])
        assert shop.status(bed) == ("indexed", None)
        assert (await shop.found("白色床"))[0] == "白色床"

    run(settings, scenario)


def test_the_models_that_are_about_to_answer_are_not_let_go(settings: Settings, other_models: dict[str, str]) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:1])
        change, registry = Change(shop), shop.services.registry
        job = await change.run(**other_models, switch=False)
        registry.prepare()
        loaded = registry.preparations()
        assert len(loaded) == 2
        activate_elsewhere(shop, job.collection, "building")
        registry.prepare()
        assert registry.preparations() == loaded
        assert registry.look().collection == job.collection

    run(settings, scenario)


def test_a_collection_that_is_made_again_does_not_undo_a_rollback(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:1])
        change, before, vector_db = Change(shop), shop.services.registry.live(), shop.services.vector_db
        job = await change.run(**other_models)
        vector_db.drop_collection(str(job.collection))
        has_collection, calls = vector_db.has_collection, list[str]()

        def has_collection_while_the_operator_rolls_back(collection: str) -> bool:
            calls.append(collection)
            if len(calls) == 2:  # the index was read as the active one by now
                activate_elsewhere(shop, before.collection, "retired")
            return has_collection(collection)

        vector_db.missed_collection.set()
        vector_db.has_collection = has_collection_while_the_operator_rolls_back  # type: ignore[method-assign]
        with pytest.raises(VectorDBUnavailable, match="Another index"):
            shop.services.registry.look()
        assert change.indexes() == {before.collection: "active", job.collection: "retired"}
        assert shop.services.registry.look().collection == before.collection

    run(settings, scenario)


def test_a_rollback_that_is_asked_for_again_stays_one(settings: Settings, other_models: dict[str, str]) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:1])
        change, before = Change(shop), shop.services.registry.live()
        job = await change.run(**other_models)
        first = change.jobs.roll_back()
        assert (first.collection, first.retired) == (before.collection, job.collection)
        assert (first.clip_model, first.text_model) == (settings.clip_model, settings.text_model)
        for name in (None, before.collection):
            assert change.jobs.roll_back(name) == first
        forth = change.jobs.roll_back(job.collection)
        assert (forth.collection, forth.retired) == (job.collection, before.collection)
        assert {"clip_model": forth.clip_model, "text_model": forth.text_model} == other_models
        assert change.jobs.roll_back(job.collection) == forth
        assert change.jobs.roll_back().collection == before.collection
        with pytest.raises(ReindexConflict, match=f"no index products_x that could answer.*{before.collection}"):
            change.jobs.roll_back("products_x")
        assert await change.index_of_a_search() == before.collection

    run(settings, scenario)


def test_two_rollbacks_at_once_are_one(settings: Settings, other_models: dict[str, str]) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:1])
        change, before, vector_db = Change(shop), shop.services.registry.live(), shop.services.vector_db
        job = await change.run(**other_models)
        has_collection = vector_db.has_collection

        def has_collection_while_the_other_rolls_back(collection: str) -> bool:
            vector_db.has_collection = has_collection  # type: ignore[method-assign]
            activate_elsewhere(shop, before.collection, "retired")
            return has_collection(collection)

        vector_db.has_collection = has_collection_while_the_other_rolls_back  # type: ignore[method-assign]
        assert change.jobs.roll_back().collection == before.collection
        assert change.indexes() == {before.collection: "active", job.collection: "retired"}

    run(settings, scenario)


def test_no_rollback_to_models_that_a_process_lacks(settings: Settings, other_models: dict[str, str]) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:1])
        change = Change(shop)
        job = await change.run(**other_models)
        with shop.services.database.write() as session:
            before = session.scalars(sa.select(VectorIndexRow).where(VectorIndexRow.status == "retired")).one()
            state = {"loaded": {before.model_fingerprint: "there is no such folder"}}
            now = utc_now()
            session.add(
                ProcessRow(
                    process_id="a" * 32, kind="worker", name="worker-2", started_at=now, seen_at=now, state=state
                )
            )
        with pytest.raises(ReindexConflict, match=r"worker-2 \(worker\) can't load the models"):
            change.jobs.roll_back()
        assert await change.index_of_a_search() == job.collection

    run(settings, scenario)


def test_what_is_written_while_others_load_the_models_is_there_after_the_switch(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:2])
        change, now, database = Change(shop), utc_now(), shop.services.database
        with database.write() as session:  # a process that takes its time
            session.add(
                ProcessRow(process_id="a" * 32, kind="api", name="api-2", started_at=now, seen_at=now, state={})
            )
        job = change.jobs.create(ReindexRequest(**other_models))
        working = asyncio.create_task(new_reindexer(shop.services).take_turn())
        while change.jobs.read(job.job_id).phase != "loading":  # noqa: ASYNC110  # of the database
            await asyncio.sleep(0.05)
        written = [f"新品 {number}" for number in range(12)]
        for title in written:
            shop.create(title)
        await shop.ingestor.ingest(shop.messages())
        with database.write() as session:
            session.execute(sa.delete(ProcessRow))
        await working
        assert change.jobs.read(job.job_id).phase == "switched"
        assert change.jobs.read(job.job_id).new_count == 14
        assert set(written) <= set(await shop.found("新品"))

    run(settings, scenario)


def test_a_product_that_failed_is_found_in_no_index(settings: Settings, other_models: dict[str, str]) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, *_ = await fill(shop, TITLES[:2])
        change = Change(shop)
        await change.run(**other_models, switch=False)
        shop.writer.reindex(sofa)
        with shop.services.database.read() as session:
            path = settings.data_dir / "images" / session.get_one(ProductRow, sofa).image_path
        path.write_bytes(path.read_bytes()[:-60])
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(sofa)[0] == "failed"
        job = await change.run(**other_models, force=True)
        assert (job.status, job.phase) == ("done", "switched"), job
        assert await shop.found("黑色沙发") == TITLES[1:2]

    run(settings, scenario)


@pytest.mark.parametrize("sizes", [(4, 64, 256), (1, 64, 1), (1000, 1, 1)])
def test_no_choice_of_sizes_has_ingestion_or_a_fill_refused_for_ever(
    settings: Settings, other_models: dict[str, str], sizes: tuple[int, int, int]
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop)
        job = await Change(shop).run(**other_models)
        assert (job.status, job.phase, job.done) == ("done", "switched", len(TITLES)), job

    names = ("ingest_batch_size", "ingest_encode_batch_size", "query_queue_size")
    run(settings.model_copy(update=dict(zip(names, sizes, strict=True))), scenario)


def test_pictures_that_cannot_be_read_are_not_taken_for_changes_that_are_too_fast(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        product_ids = await fill(shop)
        change, before = Change(shop), shop.services.registry.live()
        with shop.services.database.read() as session:
            rows = session.scalars(sa.select(ProductRow).where(ProductRow.product_id.in_(product_ids[:9])))
            paths = [settings.data_dir / "images" / row.image_path for row in rows]
        for path in paths:
            path.rename(path.with_suffix(".away"))
            path.symlink_to(path)  # an error of the store's, of this picture alone
        job = await change.run(**other_models)
        assert (job.status, job.failed) == ("failed", 9), job
        assert "9 products would be lost: their pictures can't be read at this moment" in str(job.error)
        assert f"product {product_ids[0]}: The image store" in str(job.error)
        for path in paths:
            path.unlink()
            path.with_suffix(".away").rename(path)
        assert await change.index_of_a_search() == before.collection
        job = await change.run(**other_models)
        assert (job.status, job.phase) == ("done", "switched"), job

    run(settings, scenario)


def test_a_product_that_fails_unexpectedly_is_named_and_keeps_no_other_out(
    settings: Settings, other_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        product_ids = await fill(shop)
        encode_one = ProductEncoder._encode_one

        async def stumble(encoder: ProductEncoder, pictured: Pictured, *rest: Any) -> Encoded | Failed:
            if pictured.product.title == TITLES[1]:
                raise RuntimeError("stumbled")
            return await encode_one(encoder, pictured, *rest)

        monkeypatch.setattr(ProductEncoder, "_encode_one", stumble)
        job = await Change(shop).run(**other_models)
        reason = f"1 products would be lost; product {product_ids[1]}: unexpected: RuntimeError('stumbled')"
        assert (job.status, job.failed, job.error) == ("failed", 1, reason), job
        job = await Change(shop).run(**other_models, force=True)
        assert (job.status, job.phase, job.failed) == ("done", "switched", 1), job
        assert set(shop.bound()) >= set(product_ids) - {product_ids[1]}

    run(settings, scenario)


def test_what_all_products_fail_of_is_no_products(
    settings: Settings, other_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stumble(*_: Any) -> Encoded | Failed:
        raise RuntimeError("stumbled")

    async def scenario(shop: Shop) -> None:
        await fill(shop)
        monkeypatch.setattr(ProductEncoder, "_encode_one", stumble)
        job = await Change(shop).run(**other_models, force=True)
        assert (job.status, job.error) == ("failed", "unexpected: RuntimeError('stumbled')"), job

    run(settings, scenario)


def test_products_that_cannot_be_taken_are_not_kept_whole_however_many(
    settings: Settings, other_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:1])
        row = {"title": "红色沙发", "attributes": {}, "image_path": "aa/a.png", "image_sha256": "", "image_width": 1}
        with shop.services.database.write() as session:
            session.execute(sa.insert(ProductRow), [row | {"image_height": 1, "index_status": "indexed"}] * 40)
        in_memory = set[int]()
        unbind_lost = ReindexGate.unbind_lost

        def count_rows(gate: ReindexGate) -> int:
            gc.collect()
            in_memory.add(sum(type(each) is ProductRow for each in gc.get_objects()))
            return unbind_lost(gate)

        monkeypatch.setattr(ReindexGate, "unbind_lost", count_rows)
        job = await Change(shop).run(**other_models)
        assert (job.status, job.phase, job.failed, len(job.failures)) == ("done", "switched", 40, 20), job
        assert max(in_memory) < 10, in_memory  # the last batch's may still be there

    run(settings, scenario)


def test_the_event_loop_asks_neither_the_database_nor_the_shared_threads(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:3])
        services = shop.services
        asked_by = set[str]()

        def note(*_: object) -> None:
            asked_by.add(threading.current_thread().name)

        jobs = Change(shop).jobs
        query = ReindexQuery(text=TITLES[0], mode=SearchMode.TEXT_TO_TEXT, product_id=1)
        job = jobs.create(ReindexRequest(**other_models, queries=[query]))
        load = partial(load_on, asyncio.get_running_loop(), settings)  # as after a start without Milvus
        unaware = IndexRegistry(services.database, services.vector_db, services.encoding, load)
        reindexer = new_reindexer(replace(services, registry=unaware))
        release = threading.Event()
        with ThreadPoolExecutor(1) as shared:
            asyncio.get_running_loop().set_default_executor(shared)
            shared.submit(release.wait)  # something else that hangs
            sa.event.listen(services.database.engine, "before_cursor_execute", note)
            try:
                async with asyncio.timeout(30):
                    await reindexer.take_turn()
            finally:
                release.set()
                sa.event.remove(services.database.engine, "before_cursor_execute", note)
        assert jobs.read(job.job_id).phase == "switched"
        assert {name.rpartition("_")[0] for name in asked_by} == {"reindexing", "reindex lease", "filling"}

    run(settings, scenario)

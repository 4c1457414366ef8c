"""A change of the models that kills its process, breaks, is paused, or meets a Milvus that will not let go."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data_models import ReindexPhase, ReindexRequest
from orm_models import LeaseRow, VectorIndexRow, utc_now
from tests.faults.steps import Steps
from tests.indexing.change import TITLES, Change, fill
from tests.indexing.shop import Shop, run
from tests.tiny_models import save_tiny_chinese_clip
from tuwen.assembly import new_reindexer
from tuwen.background import Lease
from tuwen.errors import IndexChanged, ModelUnavailable
from tuwen.indexing.reindex_attempts import MOST_LOST, Attempt, JobReport, begin_attempt
from tuwen.settings import Settings
from tuwen.vectors.careful_loading import DEATHS, LOADING, MOST_DEATHS, load_carefully


def let_leases_run_out(shop: Shop) -> None:
    with shop.services.database.write() as session:
        session.execute(sa.update(LeaseRow).values(expires_at=utc_now() - timedelta(hours=1)))


def test_models_that_kill_whoever_builds_with_them_end_the_job_after_a_few(
    settings: Settings, other_models: dict[str, str], steps: Steps
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:2])
        change, before = Change(shop), shop.services.registry.live()
        job = change.jobs.create(ReindexRequest(**other_models))
        for _ in range(MOST_LOST):
            # The lease of the work, the attempt, its phase, its index, and twice the lease of loading: while it loads.
            assert steps.was_killed("reindex", settings, 0, after=6)
            let_leases_run_out(shop)
        assert change.jobs.read(job.job_id).status == "running"
        await new_reindexer(shop.services).take_turn()
        ended = change.jobs.read(job.job_id)
        assert ended.status == "failed"
        assert f"{MOST_LOST} processes in a row ended" in str(ended.error)
        assert "may not fit into memory" in str(ended.error)
        await new_reindexer(shop.services).take_turn()
        assert change.indexes() == {before.collection: "active"}  # so that no process loads them any more
        again = await change.run(**other_models)  # with more memory
        assert (again.status, again.phase) == ("done", "switched"), again

    run(settings, scenario)


def test_a_process_that_stops_while_it_takes_the_lease_leaves_it_to_the_next(
    settings: Settings, other_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:1])
        change = Change(shop)
        change.jobs.create(ReindexRequest(**other_models))
        asked, stopping, take = threading.Event(), threading.Event(), Lease.take

        def slow_take(lease: Lease) -> dict[str, Any] | None:
            asked.set()
            assert stopping.wait(10)
            return take(lease)

        monkeypatch.setattr(Lease, "take", slow_take)
        turn = asyncio.create_task(new_reindexer(shop.services).take_turn())
        await asyncio.to_thread(asked.wait, 10)
        turn.cancel()
        stopping.set()
        await asyncio.wait([turn])
        assert Lease(shop.services.database, "reindex").take() is not None

    run(settings, scenario)


def test_models_that_kill_every_process_that_prepares_for_them_are_let_be(
    settings: Settings, other_models: dict[str, str], steps: Steps
) -> None:
    async def scenario(shop: Shop) -> None:
        change, registry = Change(shop), shop.services.registry
        job = await change.run(**other_models, switch=False)
        for _ in range(MOST_DEATHS):
            assert steps.was_killed("prepare", settings, 0, after=2)
            let_leases_run_out(shop)
        assert not steps.was_killed("prepare", settings, 0, after=9)
        assert registry.preparations().keys() == {
            registry.encoding.encoders.fingerprint,
            *(await asyncio.to_thread(fingerprints, shop, job.collection)),
        }  # the builder itself has them

    run(settings, scenario)


def test_deaths_are_forgotten_once_the_models_were_loaded(settings: Settings, other_models: dict[str, str]) -> None:
    def leave_a_mark(shop: Shop) -> None:
        """As a process that is killed while it loads them."""
        with shop.services.database.write() as session:
            lease = session.scalars(sa.select(LeaseRow).where(LeaseRow.name.startswith("models of"))).one()
            lease.progress = {LOADING: 1, DEATHS: lease.progress.get(DEATHS, 0) + lease.progress.get(LOADING, 0)}

    async def scenario(shop: Shop) -> None:
        job, database = await Change(shop).run(**other_models, switch=False), shop.services.database
        with database.read() as session:
            row = session.scalars(sa.select(VectorIndexRow).where(VectorIndexRow.collection == job.collection)).one()
        loaded = shop.services.encoding
        for _ in range(2 * MOST_DEATHS):
            leave_a_mark(shop)
            assert load_carefully(database, row, lambda: loaded) is loaded
        for _ in range(MOST_DEATHS):
            leave_a_mark(shop)
        with pytest.raises(ModelUnavailable, match=f"{MOST_DEATHS} processes ended"):
            load_carefully(database, row, lambda: loaded)

    run(settings, scenario)


@pytest.mark.parametrize("phase", ["preparing", "checking", "loading"])
def test_what_was_filled_outlives_the_job_that_is_killed_over_and_over(
    settings: Settings, other_models: dict[str, str], phase: ReindexPhase
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:2])
        change, before = Change(shop), shop.services.registry.live()
        built = str((await change.run(**other_models, switch=False)).collection)
        job, vectors = change.jobs.create(ReindexRequest(**other_models)), shop.bound()
        for _ in range(MOST_LOST):
            die_in(shop, built, phase)
        await new_reindexer(shop.services).take_turn()
        ended = change.jobs.read(job.job_id)
        assert (ended.status, f"the last one in phase {phase}" in str(ended.error)) == ("failed", True), ended
        assert change.indexes() == {before.collection: "active", built: "building"}
        switched = await change.run(**other_models)
        assert (switched.phase, switched.collection) == ("switched", built), switched
        assert shop.bound() == vectors  # gone on with, not filled anew

    run(settings, scenario)


def die_in(shop: Shop, collection: str, phase: ReindexPhase) -> None:
    """As a process that is killed there, having done nothing that was not done before."""
    attempt = begin_attempt(shop.services.database)
    assert attempt is not None
    report = JobReport(shop.services.database, attempt)
    with shop.services.database.write() as session:
        report.note_collection(report.require_running(session), collection)
    report.say(phase)


def test_models_that_are_away_for_a_while_cost_nothing_that_was_filled(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:2])
        change = Change(shop)
        built = str((await change.run(**other_models, switch=False)).collection)
        change.jobs.create(ReindexRequest(**other_models))
        die_in(shop, built, "filling")
        shutil.move(other_models["text_model"], settings.data_dir / "away")
        await new_reindexer(shop.services).take_turn()
        shutil.move(settings.data_dir / "away", other_models["text_model"])
        assert change.indexes()[built] == "building"
        assert (await change.run(**other_models)).collection == built

    run(settings, scenario)


def fingerprints(shop: Shop, collection: str | None) -> list[str]:
    with shop.services.database.read() as session:
        of_it = VectorIndexRow.collection == collection
        return list(session.scalars(sa.select(VectorIndexRow.model_fingerprint).where(of_it)))


def test_damaged_models_fail_the_job_and_are_loaded_by_nobody(
    settings: Settings, other_models: dict[str, str], tmp_path: Path
) -> None:
    async def scenario(shop: Shop) -> None:
        change, before = Change(shop), shop.services.registry.live()
        damaged = save_tiny_chinese_clip(tmp_path / "damaged", seed=9)
        weights = damaged / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-999])
        job = await change.run(**{**other_models, "clip_model": str(damaged)})
        assert (job.status, "the model in" in str(job.error)) == ("failed", True), job
        await new_reindexer(shop.services).take_turn()
        assert change.indexes() == {before.collection: "active"}

    run(settings, scenario)


def test_a_process_that_was_paused_writes_nothing_into_the_job_of_the_next(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        change, database = Change(shop), shop.services.database
        job = change.jobs.create(ReindexRequest(**other_models))
        first, second = begin_attempt(database), begin_attempt(database)
        assert first is not None
        assert second is not None
        paused, current = JobReport(database, first), JobReport(database, second)
        current.say("filling", done=3, total=4)
        writes: list[Callable[[], None]] = [
            lambda: paused.say("preparing"),
            lambda: paused.finish("switched", None),
            lambda: paused.fail("its models", in_vain=True),
            paused.confirm,
            paused.let_go,
        ]
        for write in writes:
            with pytest.raises(IndexChanged, match="another process"):
                write()
        state = change.jobs.read(job.job_id)
        assert (state.status, state.phase, state.done, state.error) == ("running", "filling", 3, None)

    run(settings, scenario)


def test_what_waits_for_an_engine_or_gets_on_is_no_lost_attempt(
    settings: Settings, other_models: dict[str, str]
) -> None:
    async def scenario(shop: Shop) -> None:
        database = shop.services.database
        Change(shop).jobs.create(ReindexRequest(**other_models))

        def begin() -> Attempt:
            attempt = begin_attempt(database)
            assert attempt is not None
            return attempt

        for _ in range(2 * MOST_LOST):
            JobReport(database, begin()).let_go()
        for _ in range(2 * MOST_LOST):
            JobReport(database, begin()).say("filling", got_on=True)
        last = None
        for _ in range(2 * MOST_LOST):  # the database was away when it would have been told
            last = begin_attempt(database, survived=last)
            assert last is not None
        for _ in range(MOST_LOST - 1):
            begin()
        assert begin_attempt(database) is None

    run(settings, scenario)


def test_a_collection_that_milvus_will_not_drop_holds_up_no_job(
    settings: Settings, other_models: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        await fill(shop, TITLES[:2])
        change = Change(shop)
        given_up = str((await change.run(**other_models, switch=False)).collection)
        [folder] = settings.data_dir.rglob(given_up)
        moved = folder.rename(settings.data_dir / "moved")
        folder.symlink_to(moved)  # Milvus Lite fails to remove such a one
        change.jobs.drop_retired()
        job = await change.run(**other_models)
        assert (job.status, job.phase) == ("done", "switched"), job
        assert change.indexes()[given_up] == "dropping"
        assert f"{given_up} can't be dropped, and is tried again" in caplog.text
        folder.unlink()
        moved.rename(folder)
        await new_reindexer(shop.services).take_turn()
        assert given_up not in change.indexes()
        assert not shop.services.vector_db.has_collection(given_up)

    run(settings.model_copy(update={"milvus_uri": ""}), scenario)

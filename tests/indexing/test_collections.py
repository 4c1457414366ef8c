"""Making and dropping collections: by one process at a time, and never another installation's."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import sqlalchemy as sa

from orm_models import LeaseRow, VectorIndexRow
from tests.indexing.shop import Shop, run
from tests.processes import free_port, wait_until
from tests.servers import running_milvus_process
from tuwen.assembly import new_reindexer
from tuwen.background import running_loops
from tuwen.errors import VectorDBUnavailable
from tuwen.pulse import Pulses
from tuwen.settings import Settings
from tuwen.vectors import kept_lease
from tuwen.vectors import registry as vector_registry


@pytest.fixture
def frozen(tmp_path: Path, settings: Settings) -> Iterator[tuple[Settings, Popen[bytes]]]:
    """Settings with a Milvus of their own, to be frozen."""
    with running_milvus_process(tmp_path / "milvus") as (address, process):
        yield settings.model_copy(update={"milvus_uri": address, "milvus_timeout_s": 60.0}), process


def lease_expires_at(shop: Shop) -> datetime:
    with shop.services.database.read() as session:
        return session.get_one(LeaseRow, "collections").expires_at


def test_the_lease_is_kept_while_milvus_is_slow_to_make_a_collection(
    frozen: tuple[Settings, Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, server = frozen
    monkeypatch.setattr(kept_lease, "KEEP_EVERY_S", 0.1)

    async def scenario(shop: Shop) -> None:
        vector_db, registry = shop.services.vector_db, shop.services.registry
        lost, before = registry.live().collection, lease_expires_at(shop)
        vector_db.drop_collection(lost)
        vector_db.missed_collection.set()
        has_collection = vector_db.has_collection
        looks: list[str] = []

        def freeze_behind_the_last_look(collection: str) -> bool:
            found = has_collection(collection)
            looks.append(collection)
            if len(looks) == 2:  # by the watch, and under the lease
                server.send_signal(signal.SIGSTOP)
            return found

        vector_db.has_collection = freeze_behind_the_last_look  # type: ignore[method-assign]
        making = asyncio.create_task(asyncio.to_thread(registry.look))
        moments = {before}
        while len(moments) < 8 and not making.done():  # a condition of the database
            moments.add(await asyncio.to_thread(lease_expires_at, shop))
            await asyncio.sleep(0.01)
        server.send_signal(signal.SIGCONT)
        assert not making.done()
        made = (await making).collection
        assert made != lost  # whoever drops the lost one late drops nothing
        assert has_collection(made)

    run(settings, scenario)


def give_an_unmarked_name(shop: Shop, **values: Any) -> str:
    """As version 0.2.0 named it, which another installation may have done too."""
    name = f"products_{shop.services.registry.encoding.encoders.fingerprint[:8]}_{free_port()}"
    with shop.services.database.write() as session:
        session.execute(sa.update(VectorIndexRow).values(collection=name, **values))
    return name


def create_as_another(shop: Shop, collection: str) -> None:
    encoders = shop.services.encoding.encoders
    shop.services.vector_db.create_collection(collection, clip_dim=encoders.clip.dim, text_dim=encoders.text.dim)


def test_a_collection_that_may_be_anothers_is_let_go_of_and_not_dropped(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        name = give_an_unmarked_name(shop, status="dropping")
        create_as_another(shop, name)
        await new_reindexer(shop.services).take_turn()
        assert shop.services.vector_db.has_collection(name)
        assert f"{name} stays in Milvus" in caplog.text
        with shop.services.database.read() as session:
            assert list(session.scalars(sa.select(VectorIndexRow.status))) == []
        shop.services.vector_db.drop_collection(name)

    run(settings, scenario)


def test_one_that_may_be_anothers_and_was_begun_here_is_made_under_a_name_of_ones_own(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        name = give_an_unmarked_name(shop)
        create_as_another(shop, name)  # half made, as far as the mark says
        with shop.services.database.write() as session:
            mark = {"making": name}
            session.execute(sa.update(LeaseRow).where(LeaseRow.name == "collections").values(progress=mark))
        shop.services.vector_db.missed_collection.set()
        assert shop.services.registry.look().collection != name
        assert shop.services.vector_db.has_collection(name)
        shop.mend()
        await shop.ingestor.ingest(shop.messages())
        assert await shop.found("红色沙发") == ["红色沙发"]
        shop.services.vector_db.drop_collection(name)

    run(settings, scenario)


def test_a_look_that_fails_leaves_the_collection_missing(settings: Settings) -> None:
    async def make_it(shop: Shop) -> None:
        assert shop.services.registry.known is not None

    async def scenario(shop: Shop) -> None:
        missed = shop.services.vector_db.missed_collection
        missed.set()
        with pytest.raises(VectorDBUnavailable):
            shop.services.registry.look()
        assert missed.is_set()

    run(settings, make_it)
    away = {"milvus_uri": f"http://127.0.0.1:{free_port()}", "milvus_timeout_s": 1}
    run(settings.model_copy(update=away), scenario)


def test_a_look_that_hangs_is_missed_while_the_models_are_looked_after(
    frozen: tuple[Settings, Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, server = frozen
    monkeypatch.setattr(vector_registry, "LONGEST_LOOK_S", 2.0)

    async def scenario(shop: Shop) -> None:
        pulses = Pulses(None)
        async with running_loops(shop.services.registry.loops(), pulses):

            async def until(condition: Callable[[float], bool], what: str) -> None:
                await asyncio.to_thread(
                    wait_until, lambda: condition(pulses.overdue_s().get("index watch", 0.0)), what=what
                )

            server.send_signal(signal.SIGSTOP)
            try:
                shop.services.vector_db.missed_collection.set()
                await until(lambda overdue: overdue > 0.2, "the look to be missed")
            finally:
                server.send_signal(signal.SIGCONT)
            await until(lambda overdue: overdue == 0, "the look to go on")

    run(settings, scenario)

"""SIGSTOP before every single call to Milvus of whoever makes or drops a collection, for longer than leases last.

Another process does the work meanwhile, to its end. What wakes then finds nothing that it may touch.
"""

import asyncio
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pymilvus import MilvusClient

from orm_models import ProductVectorRow, VectorIndexRow
from tests.faults.steps import Steps
from tests.faults.test_killed_between_steps import assert_right, let_time_pass, recover
from tests.indexing.change import Change, fill
from tests.indexing.shop import Shop, open_shop
from tests.tiny_models import save_tiny_chinese_clip, save_tiny_sentence_model
from tuwen.assembly import new_reindexer
from tuwen.settings import Settings
from tuwen.vectors.indexes import collection_mark

TITLES = ["红色沙发", "蓝色椅子", "绿色餐桌"]


@pytest.fixture
def settings(tmp_path: Path, tiny_models: dict[str, str], milvus: str) -> Settings:
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    return Settings(_env_file=None, data_dir=tmp_path, milvus_uri=milvus, relay_poll_s=0.05, **models)


def collections_in_milvus(shop: Shop) -> set[str]:
    """This installation's."""
    client = MilvusClient(shop.services.settings.milvus_uri, dedicated=True, timeout=60)
    mark = collection_mark(shop.services.database.installation_id())
    try:
        return {name for name in client.list_collections() if name.startswith(mark)}
    finally:
        client.close()


def collections_of_indexes(shop: Shop) -> set[str]:
    with shop.services.database.read() as session:
        return set(session.scalars(sa.select(VectorIndexRow.collection)))


def test_who_was_paused_while_making_the_live_collection_leaves_anothers_alone(
    steps: Steps, settings: Settings
) -> None:
    async def scenario() -> None:
        async with open_shop(settings) as shop:
            await fill(shop, TITLES)
            await recover(shop)
            vector_db, registry = shop.services.vector_db, shop.services.registry
            for number in itertools.count(1):
                vector_db.drop_collection(registry.live().collection)
                with steps.paused("look", settings, number) as paused:
                    let_time_pass(shop)
                    vector_db.missed_collection.set()
                    await recover(shop)
                    await assert_right(shop)
                await asyncio.to_thread(registry.look)
                await assert_right(shop)
                assert collections_in_milvus(shop) == collections_of_indexes(shop)
                if not paused:
                    break
            assert number > 3

    asyncio.run(scenario())


async def assert_whole(shop: Shop) -> None:
    """What is live, beside which another may be kept."""
    index = await asyncio.to_thread(shop.services.registry.look)
    with shop.services.database.read() as session:
        mine = ProductVectorRow.vector_index_id == index.vector_index_id
        bound = set(session.scalars(sa.select(ProductVectorRow.milvus_id).where(mine)))
    assert len(bound) == len(TITLES)
    assert shop.in_milvus() == bound
    assert [(await shop.found(title))[0] for title in TITLES] == TITLES


# Each third call in the short form, of some fifteen.
STRIDE = 1 if os.environ.get("LONG_TESTS") else 3


def test_who_was_paused_while_building_or_dropping_an_index_leaves_anothers_alone(
    steps: Steps, settings: Settings, tmp_path: Path
) -> None:
    models = {
        "clip_model": str(save_tiny_chinese_clip(tmp_path / "clip", seed=7)),
        "text_model": str(save_tiny_sentence_model(tmp_path / "text", seed=7)),
    }

    async def scenario() -> None:
        async with open_shop(settings) as shop:
            await fill(shop, TITLES)
            change = Change(shop)
            for number in itertools.count(1, STRIDE):
                job = change.begin(**models)
                with steps.paused("reindex", settings, number) as paused:
                    let_time_pass(shop)
                    await new_reindexer(shop.services).take_turn()
                    done = change.jobs.read(job.job_id)
                    assert (done.status, done.phase) == ("done", "switched"), done
                    await assert_whole(shop)
                await assert_whole(shop)
                await new_reindexer(shop.services).take_turn()
                assert list(change.indexes().values()) == ["retired", "active"]
                assert collections_in_milvus(shop) == collections_of_indexes(shop)
                if not paused:
                    break
                await asyncio.to_thread(change.jobs.roll_back)
                change.jobs.drop_retired()  # by the next turn: of whoever is paused, and of whoever goes on
            assert number > 5

    asyncio.run(scenario())

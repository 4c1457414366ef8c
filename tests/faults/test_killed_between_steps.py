"""kill -9 after every single change of a store, one by one: each time all is right again, without a hand."""

import asyncio
import itertools
import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data_models import SearchRequest
from orm_models import (
    GeneratedImageRow,
    JobRow,
    LeaseRow,
    OutboxRow,
    ProductImageRow,
    ProductRow,
    ProductVectorRow,
    utc_now,
)
from tests.faults.steps import GRACES_OVER, Steps, draw, relay
from tests.indexing.shop import Mended, Shop, open_shop
from tuwen.errors import CollectionGone
from tuwen.messaging.outbox import outbox_backlog
from tuwen.settings import Settings
from vector_db import VectorRow, new_row_token

LONG = bool(os.environ.get("LONG_TESTS"))
LONG_AGO = timedelta(hours=2)
LEAST_CHANGES = {
    "create": 3,
    "ingest": 3,
    "change_title": 4,
    "change_category": 4,
    "change_picture": 6,
    "delete": 2,
    "rebuild": 10,
}
LEAST_CHANGES |= {"sweep": 10, "relay": 6, "draw": 4}


@pytest.fixture
def settings(tmp_path: Path, tiny_models: dict[str, str], milvus: str) -> Settings:
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    return Settings(
        _env_file=None, data_dir=tmp_path, milvus_uri=milvus, relay_poll_s=0.05, generator_steps=2, **models
    )


@pytest.mark.parametrize("work", list(LEAST_CHANGES) if LONG else ["create", "ingest"])
def test_whatever_is_killed_comes_right_by_itself(work: str, steps: Steps, settings: Settings) -> None:
    async def scenario() -> None:
        async with open_shop(settings) as shop:
            for number in itertools.count(1):
                product_id = await prepare(shop, work, number)
                killed = steps.was_killed(work, settings, product_id, number)
                let_time_pass(shop)
                await recover(shop)
                await assert_right(shop)
                if not killed:
                    break
            assert number > LEAST_CHANGES[work] - 1

    asyncio.run(scenario())


async def prepare(shop: Shop, work: str, number: int) -> int:
    """What the work needs; the product that it is about."""
    services = shop.services
    product_id = shop.create(f"商品 {number}", "red", "green")
    if work not in ("ingest", "relay"):
        await relay(shop)
    if work == "rebuild":
        services.vector_db.drop_collection(services.registry.live().collection)
    if work == "sweep":
        leave_orphans(shop, product_id)
    if work == "draw":
        with services.database.write() as session:
            session.add(JobRow(kind="generate", request={"prompt": "沙发", "seed": number, "num_images": 2}))
    let_time_pass(shop)
    return product_id


def leave_orphans(shop: Shop, product_id: int) -> None:
    """A vector that nothing binds, a binding without a vector, and a picture that nothing names."""
    services = shop.services
    index = services.registry.live()
    with services.database.read() as session:
        product = session.get_one(ProductRow, product_id)
        bound = session.get_one(ProductVectorRow, (product_id, index.vector_index_id, 1)).milvus_id
    clip, text = services.encoding.encoders.clip.dim, services.encoding.encoders.text.dim
    vectors = {"image_clip_vector": [1.0] * clip, "text_clip_vector": [1.0] * clip, "text_bge_vector": [1.0] * text}
    shown = {name: getattr(product, name) for name in ("image_path", "title", "category", "attributes")}
    row = VectorRow(product_id=product_id, row_token=new_row_token(), **vectors, **shown)  # type: ignore[arg-type]
    services.vector_db.insert(index.collection, [row])
    services.vector_db.delete(index.collection, [bound], [product_id])
    unused = shop.create("会被删的商品", "yellow")
    shop.writer.delete(unused)


def let_time_pass(shop: Shop) -> None:
    """Leases, claims and signs of life of the dead run out, and pictures grow old."""
    services = shop.services
    past = utc_now() - LONG_AGO
    with services.database.write() as session:
        session.execute(sa.update(LeaseRow).values(expires_at=past))
        session.execute(sa.update(OutboxRow).where(OutboxRow.claimed_until.is_not(None)).values(claimed_until=past))
        session.execute(sa.update(JobRow).where(JobRow.heartbeat_at.is_not(None)).values(heartbeat_at=past))
    old = time.time() - LONG_AGO.total_seconds()
    for path in (services.settings.data_dir / "images").rglob("*.*"):
        os.utime(path, (old, old))


async def recover(shop: Shop) -> None:
    """What every process does from its start on: the index watch, the relay, ingestion, drawing, reconciliation."""
    for _ in range(5):
        await asyncio.to_thread(shop.services.registry.look)
        await relay(shop)
        await draw(shop)
        with suppress(CollectionGone):  # seen now: the next look makes it again
            if shop.mend(graces=GRACES_OVER) == Mended() and not waiting(shop):
                return
    pytest.fail("still not at rest")


def waiting(shop: Shop) -> int:
    with shop.services.database.read() as session:
        return outbox_backlog(session)


async def assert_right(shop: Shop) -> None:
    services = shop.services
    index = services.registry.live()
    with services.database.read() as session:
        products = list(session.scalars(sa.select(ProductRow)))
        bindings = list(session.scalars(sa.select(ProductVectorRow)))
        further = list(session.scalars(sa.select(ProductImageRow)))
        drawn = list(session.scalars(sa.select(GeneratedImageRow)))
        jobs = list(session.scalars(sa.select(JobRow)))
    assert {product.index_status for product in products} <= {"indexed"}
    assert {(row.product_id, row.image_position): row.version for row in bindings} == {
        (each.product_id, position): each.content_version
        for each in products
        for position in range(1, each.image_count + 1)
    }
    assert {row.vector_index_id for row in bindings} <= {index.vector_index_id}
    assert shop.in_milvus() == {row.milvus_id for row in bindings}
    for product in products:
        found = await shop.searcher.search(SearchRequest(mode="text_to_text", text=product.title, top_k=100))
        hits = [hit for hit in found.hits if hit.product.product_id == product.product_id]
        assert [(hit.product.title, round(hit.score, 3)) for hit in hits] == [(product.title, 1.0)]
    assert [(job.status, job.attempts) for job in jobs if job.status != "done" or job.attempts > 2] == []
    assert [(row.job_id, row.position) for row in drawn] == [(job.job_id, at) for job in jobs for at in (0, 1)]
    named = {row.image_path for row in products} | {row.image_path for row in further}
    named |= {row.image_path for row in drawn}
    assert {file.path for page in services.images.list_pages(50) for file in page} == named
    assert [file for page in services.images.list_pages_aside(50) for file in page] == []
    assert all(services.images.read(path) for path in named)

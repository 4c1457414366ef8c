"""Installations that share one Milvus and one bucket: each mends its own, and touches nothing of the other's."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
import sqlalchemy as sa

from orm_models import ProductRow, VectorIndexRow, utc_now
from tests.conftest import picture
from tests.indexing.shop import Shop, encoders_of, open_shop
from tests.servers import new_bucket
from tuwen.assembly import open_stores
from tuwen.indexing.drift import Graces
from tuwen.pictures.thumbnails import thumbnail_path
from tuwen.settings import Settings
from tuwen.vectors.binding import bound_rows

PASSES = 3


@pytest.fixture
def shared(settings: Settings, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Settings]:
    """The settings of an installation with a database of its own; graces are over at once."""
    variables = new_bucket(s3)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stores = {"image_store_url": variables["IMAGE_STORE_URL"]}
    return lambda name: settings.model_copy(update=stores | {"data_dir": tmp_path / name})


def run_two(first: Settings, second: Settings, scenario: Callable[[Shop, Shop], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(120), open_shop(first) as one, open_shop(second) as other:
            await scenario(one, other)

    asyncio.run(go())


async def fill(shop: Shop, *, own_color: str) -> None:
    """Pictures that both have, one of its own, and one that is deleted again."""
    for color in ("red", "blue", own_color):
        shop.create(f"{color} 沙发", color)
    shop.writer.delete(shop.create("白床", "white"))
    await shop.ingestor.ingest(shop.messages())


def mend_at_once(shop: Shop) -> dict[str, int]:
    mended = shop.mend(graces=Graces(unbound=timedelta(0), image=timedelta(0)))
    return {name: count for name, count in asdict(mended).items() if count}


def pictures_of(shop: Shop) -> list[str]:
    with shop.services.database.read() as session:
        return list(session.scalars(sa.select(ProductRow.image_path)))


async def require_whole(shop: Shop) -> None:
    """Every product is indexed, each bound row is in Milvus, and pictures and thumbnails can be read."""
    services, index = shop.services, shop.services.registry.live()
    keys = [key for page in services.vector_db.iterate_rows(index.collection) for key in page]
    with services.database.read() as session:
        assert len(bound_rows(session, index.vector_index_id, keys)) == len(shop.bound()) == 3
    assert {shop.status(each)[0] for each in shop.bound()} == {"indexed"}
    assert len(await shop.found("沙发")) == 3
    for path in pictures_of(shop):
        assert services.images.read(path)
        assert services.images.read(thumbnail_path(path))


def objects_in(settings: Settings) -> set[str]:
    root = settings.image_store_address
    files, _ = fsspec.core.url_to_fs(root, skip_instance_cache=True, use_listings_cache=False)
    return set(files.find(root))


def test_two_that_share_milvus_and_a_bucket_leave_each_other_alone(shared: Callable[[str], Settings]) -> None:
    async def scenario(production: Shop, staging: Shop) -> None:
        await fill(production, own_color="green")
        await fill(staging, own_color="black")
        for number in range(PASSES):
            for shop in (production, staging):
                removed = {"images_without_product": 1} if number == 0 else {}  # its own deleted product's
                assert mend_at_once(shop) == removed
        for shop in (production, staging):
            await require_whole(shop)
            assert shop.in_milvus() == set(shop.bound().values())

    async def with_a_fresh_one(production: Shop, fresh: Shop) -> None:
        before = objects_in(production.services.settings)
        for _ in range(PASSES):
            assert mend_at_once(fresh) == {}
        assert objects_in(production.services.settings) == before
        await require_whole(production)

    run_two(shared("production"), shared("staging"), scenario)
    run_two(shared("production"), shared("fresh"), with_a_fresh_one)


def test_two_that_shared_a_collection_and_pictures_in_0_2_0_leave_each_other_alone(
    shared: Callable[[str], Settings],
) -> None:
    """Which 0.2.0 named alike for all: nobody can tell by them whose they are."""

    async def scenario(production: Shop, staging: Shop) -> None:
        assert production.services.registry.live().collection == staging.services.registry.live().collection
        await fill(production, own_color="green")
        await fill(staging, own_color="black")
        for shop in (production, staging):
            lose_mark(shop)
        nobodys = f"{production.services.settings.image_store_address}/ab/{'ab' * 32}.png"
        fsspec.core.url_to_fs(nobodys)[0].pipe_file(nobodys, picture())
        before, rows = objects_in(production.services.settings), production.in_milvus()
        for _ in range(PASSES):
            for shop in (production, staging):
                mend_at_once(shop)
        assert production.in_milvus() == rows
        marks = [shop.services.database.installation_id()[:12] for shop in (production, staging)]
        gone = before - objects_in(production.services.settings)
        assert {any(mark in path for mark in marks) for path in gone} == {True}  # the deleted products' alone
        for shop in (production, staging):
            await require_whole(shop)

    first, second = shared("production"), shared("staging")
    for settings in (first, second):
        activate_unmarked(settings)
    run_two(first, second, scenario)


def activate_unmarked(settings: Settings) -> None:
    encoders = encoders_of(settings.clip_model, settings.text_model)
    fingerprint = encoders.fingerprint
    row: dict[str, Any] = {"model_fingerprint": fingerprint, "status": "active", "activated_at": utc_now()}
    name = f"products_{fingerprint[:8]}_{settings.data_dir.parent.name[-40:].replace('-', '_')}"
    with open_stores(settings) as stores:
        if not stores.vector_db.has_collection(name):
            stores.vector_db.create_collection(name, clip_dim=encoders.clip.dim, text_dim=encoders.text.dim)
        with stores.database.write() as session:
            session.add(VectorIndexRow(collection=name, **row))


def lose_mark(shop: Shop) -> None:
    """Its pictures lie where 0.2.0 put them."""
    root = shop.services.settings.image_store_address
    files, _ = fsspec.core.url_to_fs(root, skip_instance_cache=True)
    with shop.services.database.write() as session:
        for product in session.scalars(sa.select(ProductRow)):
            old = product.image_path
            product.image_path = old.partition("/")[2]
            for source, target in (
                (old, product.image_path),
                *[(thumbnail_path(old), thumbnail_path(product.image_path))],
            ):
                files.cp_file(f"{root}/{source}", f"{root}/{target}")
                files.rm_file(f"{root}/{source}")

"""Reconciliation: what a crash can leave behind is made by hand, found, and mended."""

import os
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from PIL import Image

from data_models import ProductFields
from orm_models import GeneratedImageRow, JobRow, OutboxRow, ProductRow, utc_now
from tests.indexing.shop import Shop, run
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.provenance import encode_generated
from tuwen.settings import Settings
from vector_db import VectorRow


def test_rows_that_nothing_binds_are_invisible_and_removed_later(settings: Settings) -> None:
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
        # They may still be on their way to be bound.
        assert shop.reconciler().reconcile().vectors_without_binding == 0
        assert shop.reconciler(unbound_grace=timedelta(0)).reconcile().vectors_without_binding == 30
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

        mended = shop.reconciler().reconcile()
        assert asdict(mended) == {
            "stale_pending_products": 1,
            "bindings_without_vector": 1,
            "vectors_without_binding": 0,
            "images_without_product": 1,
        }
        await shop.ingestor.ingest(shop.messages())
        assert set(shop.bound()) == {sofa, lamp, forgotten}
        assert len(list((settings.data_dir / "images").rglob("*.png"))) == 3
        assert not any(asdict(shop.reconciler().reconcile()).values())

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
        assert shop.reconciler().reconcile().images_without_product == 1
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

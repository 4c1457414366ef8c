"""Reconciliation: what a crash can leave behind is made by hand, found, and mended."""

import asyncio
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from data_models import ProductChanges, ProductEvent, ProductFields
from orm_models import (
    Base,
    GeneratedImageRow,
    JobRow,
    LeaseRow,
    OutboxRow,
    ProductRow,
    ProductVectorRow,
    UnusedImageRow,
    utc_now,
)
from tests.conftest import picture
from tests.indexing.shop import Mended, Shop, age_notes, age_pictures, lose_picture, run
from tests.processes import wait_until
from tests.promises import require_in_time
from tests.servers import new_mysql_database
from tuwen.background import Lease, LeaseLost
from tuwen.catalogue.queries import count_by_index_status, lock_products
from tuwen.errors import ImageStoreUnavailable
from tuwen.indexing.drift import PAGE, Graces, Kind, Pass, Step, rebind_lost, requeue_forgotten
from tuwen.indexing.picture_drift import FEW_LOST, MANY_IMAGES, PICTURED_PAGE, Listings
from tuwen.indexing.reconciliation import KINDS, WAITING_SINCE, PassRecord, last_pass
from tuwen.messaging.outbox import WAITING, add_upsert_events, count_refused, mark_refused, outbox_backlog
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.checks import check_image
from tuwen.pictures.provenance import encode_generated
from tuwen.pictures.thumbnails import thumbnail_path
from tuwen.settings import Settings
from vector_db import RowKey, VectorDB, VectorRow, new_row_token


def test_rows_that_nothing_binds_are_invisible_and_removed_later(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        collection, encoders = shop.services.registry.live().collection, shop.services.encoding.encoders
        orphan = VectorRow(
            product_id=sofa,
            row_token=new_row_token(),
            image_clip_vector=np.ones(encoders.clip.dim, np.float32),
            text_clip_vector=np.ones(encoders.clip.dim, np.float32),
            text_bge_vector=encoders.text.encode_documents(["红色沙发"])[0],
            image_path="x",
            title="红色沙发",
            category=None,
            attributes={},
        )
        shop.services.vector_db.insert(collection, [orphan] * 30)
        assert await shop.found("红色沙发") == ["红色沙发"]
        # They may still be on their way to be bound.
        assert shop.mend().vectors_without_binding == 0
        assert shop.mend(graces=Graces(unbound=timedelta(0))).vectors_without_binding == 30
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
        shop.services.vector_db.delete(collection, [shop.bound()[sofa]], [sofa])
        with shop.services.database.write() as session:
            old = utc_now() - timedelta(hours=2)
            session.execute(sa.update(ProductRow).where(ProductRow.product_id == forgotten).values(updated_at=old))
            session.execute(sa.delete(OutboxRow))
        age_pictures(shop)

        drift = Mended(stale_pending_products=1, bindings_without_vector=1, images_without_product=1)
        assert shop.look() == drift
        assert shop.mend() == drift
        await shop.ingestor.ingest(shop.messages())
        assert set(shop.bound()) == {sofa, lamp, forgotten}
        assert len(list((settings.data_dir / "images").rglob("*.png"))) == 3
        assert not any(asdict(shop.mend()).values())

    run(settings, scenario)


def test_old_generated_pictures_go_and_those_that_a_product_shows_stay(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        kept, unused, recent = (
            encode_generated(Image.new("RGB", (8, 8), color), {}) for color in ("red", "tan", "skyblue")
        )
        for image, hours in ((kept, 200), (unused, 200), (recent, 1)):
            add_finished_job(shop, image, utc_now() - timedelta(hours=hours))
        shop.writer.create(ProductFields(title="红色的沙发"), kept)
        assert shop.mend().images_without_product == 0  # its job goes first
        age_pictures(shop)
        assert shop.mend().images_without_product == 1
        left = {file.name for file in (settings.data_dir / "images").rglob("*.png")}
        assert left == {f"{kept.sha256}.png", f"{recent.sha256}.png"}
        with shop.services.database.read() as session:
            rows = session.scalars(sa.select(GeneratedImageRow))
            assert [row.image_path for row in rows] == [shop.services.images.path_of(recent)]

    run(settings, scenario)


def add_finished_job(shop: Shop, image: CheckedImage, finished_at: datetime) -> None:
    shop.services.images.save(image)
    with shop.services.database.write() as session:
        job = JobRow(kind="generate", status="done", request={"prompt": "x"}, finished_at=finished_at)
        session.add(job)
        session.flush()
        path = shop.services.images.path_of(image)
        columns = {"image_path": path, "image_sha256": image.sha256, "image_width": 8, "image_height": 8}
        session.add(GeneratedImageRow(job_id=job.job_id, position=0, seed=1, **columns))


def test_a_collection_that_milvus_lost_is_built_again(settings: Settings) -> None:
    async def lose(shop: Shop) -> None:
        shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        shop.services.vector_db.drop_collection(shop.services.registry.live().collection)

    async def find_again(shop: Shop) -> None:
        assert await shop.found("红色沙发") == []
        assert shop.mend().bindings_without_vector == 1
        assert shop.bound() == {}
        await shop.ingestor.ingest(shop.messages())
        assert await shop.found("红色沙发") == ["红色沙发"]

    run(settings, lose)
    run(settings, find_again)


def add_rows(shop: Shop, count: int, **values: Any) -> list[int]:
    """Many products at once, without events, and without pictures that anybody would miss: they have no hash."""
    row = {"title": "红色沙发", "attributes": {}, "image_path": "aa/a.png", "image_sha256": "", "image_width": 1}
    with shop.services.database.write() as session:
        before = session.scalar(sa.select(sa.func.max(ProductRow.product_id))) or 0
        session.execute(sa.insert(ProductRow), [row | {"image_height": 1} | values] * count)
        return list(session.scalars(sa.select(ProductRow.product_id).where(ProductRow.product_id > before)))


def bind_to_nothing(shop: Shop, product_ids: list[int], version: int = 1) -> None:
    index_id = shop.services.registry.live().vector_index_id
    rows = [
        {"product_id": each, "vector_index_id": index_id, "milvus_id": 10**6 + each, "row_token": 7, "version": version}
        for each in product_ids
    ]
    with shop.services.database.write() as session:
        session.execute(sa.insert(ProductVectorRow), rows)


def count(shop: Shop, status: str) -> int:
    with shop.services.database.read() as session:
        return count_by_index_status(session).get(status, 0)


def test_a_rebuild_finds_every_product_of_many_pages(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        product_ids = add_rows(shop, 2 * PAGE + 7, index_status="indexed")
        half = len(product_ids) // 2
        bind_to_nothing(shop, product_ids[:half])
        mended = shop.mend()
        assert (mended.bindings_without_vector, mended.indexed_products_unbound) == (half, len(product_ids) - half)
        assert count(shop, "pending") == len(product_ids)
        assert shop.bound() == {}
        events = [ProductEvent.model_validate_json(message.value) for message in shop.messages()]
        assert sorted(event.product_id for event in events) == product_ids
        assert not any(asdict(shop.mend()).values())

    run(on_both_databases, scenario)


def test_long_waiting_products_are_queued_again_once_and_never_beside_a_waiting_event(
    on_both_databases: Settings,
) -> None:
    async def scenario(shop: Shop) -> None:
        old = utc_now() - timedelta(hours=3)
        forgotten = add_rows(shop, PAGE + 3, updated_at=old)
        with shop.services.database.write() as session:
            add_upsert_events(session, shop.topic, {forgotten[0]: 1})
        assert shop.mend().stale_pending_products == len(forgotten) - 1
        for _ in range(2):  # an engine that is away for long
            assert shop.mend().stale_pending_products == 0
        assert len(shop.messages()) == len(forgotten)
        with shop.services.database.write() as session:
            session.execute(sa.update(OutboxRow).values(published_at=utc_now()))
            session.execute(sa.update(ProductRow).values(queued_at=old))
        assert shop.mend().stale_pending_products == len(forgotten)

    run(on_both_databases, scenario)


def test_a_product_whose_message_was_refused_is_queued_again_and_the_message_forgotten(
    on_both_databases: Settings,
) -> None:
    async def scenario(shop: Shop) -> None:
        def age_and_refuse() -> None:
            with shop.services.database.write() as session:
                [waiting] = session.scalars(sa.select(OutboxRow.outbox_id).where(*WAITING))
                mark_refused(session, waiting, "CorruptRecordException")
                old = utc_now() - timedelta(hours=2)
                session.execute(sa.update(ProductRow).values(updated_at=old, queued_at=None))

        shop.create("红色沙发")
        for _ in range(2):
            age_and_refuse()
            assert shop.mend().stale_pending_products == 1
            with shop.services.database.read() as session:
                assert (outbox_backlog(session), count_refused(session)) == (1, 0)

    run(on_both_databases, scenario)


def test_old_records_are_deleted_and_those_that_cannot_be_keep_nothing_from_being_mended(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        def messages_left() -> int:
            with shop.services.database.read() as session:
                return session.scalar(sa.select(sa.func.count()).select_from(OutboxRow)) or 0

        for title in ("删掉的沙发", "删掉的椅子"):
            shop.writer.delete(shop.create(title))
        waiting = add_rows(shop, 3, updated_at=utc_now() - timedelta(hours=3))
        long_ago = utc_now() - timedelta(days=8)
        sent, refused = {"published_at": long_ago}, {"refused_at": long_ago, "error": "too large"}
        with shop.services.database.write() as session:
            for position, row in enumerate(session.scalars(sa.select(OutboxRow)).all()):
                for name, value in (refused if position % 2 else sent).items():
                    setattr(row, name, value)
            guard = "CREATE TRIGGER guard BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'not now'); END"
            session.execute(sa.text(guard))
        old = messages_left()
        assert shop.mend().stale_pending_products == len(waiting)
        assert messages_left() == old + len(waiting)
        with shop.services.database.write() as session:
            session.execute(sa.text("DROP TRIGGER guard"))
        shop.mend()
        assert messages_left() == len(waiting)

    run(settings, scenario)


def test_who_has_lost_the_lease_between_two_pages_changes_nothing_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    async def scenario(shop: Shop) -> None:
        def overtaken(_: Pass, __: int) -> Iterator[Step]:
            begun.append("first page")
            with shop.services.database.write() as session:  # a pause of minutes, in which another begins
                session.execute(sa.update(LeaseRow).values(expires_at=utc_now() - timedelta(minutes=1)))
            assert Lease(shop.services.database, "reconciliation").take() is not None
            yield Step(1, (), 0)
            begun.append("second page")

        monkeypatch.setitem(KINDS, "stale_pending_products", overtaken)
        with pytest.raises(LeaseLost):
            shop.reconciler().reconcile()
        assert begun == ["first page"]

    run(settings, scenario)


def test_a_row_that_a_server_does_not_show_yet_is_not_lost(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Milvus with several nodes may answer within its bounded staleness, which Milvus Lite does not have."""

    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        existing = VectorDB.existing_rows

        def stale(vector_db: VectorDB, collection: str, ids: Sequence[int], *, strong: bool = False) -> set[RowKey]:
            return existing(vector_db, collection, ids, strong=True) if strong else set()

        monkeypatch.setattr(VectorDB, "existing_rows", stale)
        assert shop.look().bindings_without_vector == 0
        assert shop.mend().bindings_without_vector == 0
        assert shop.status(sofa) == ("indexed", None)

    run(settings, scenario)


def test_a_product_that_was_bound_meanwhile_is_indexed_and_not_queued_again(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        bound = add_rows(shop, 3, updated_at=utc_now() - timedelta(hours=3))
        bind_to_nothing(shop, bound)
        await shop.ingestor.index_products(bound[:1])  # an event that comes again says it as well
        assert shop.status(bound[0]) == ("indexed", None)
        assert next(requeue_forgotten(new_pass(shop), 0)).mended == len(bound) - 1
        assert count(shop, "indexed") == len(bound)
        assert shop.messages() == []

    run(on_both_databases, scenario)


def waiting_for_locks(shop: Shop) -> int:
    with shop.services.database.read() as session:  # not information_schema.innodb_trx, old for whoever asks often
        return int(session.execute(sa.text("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")).one()[1])


@pytest.mark.parametrize(
    ("kind", "status"), [(requeue_forgotten, "pending"), (rebind_lost, "indexed")], ids=["forgotten", "lost"]
)
def test_what_mends_waits_for_who_binds_and_holds_nothing_that_it_needs(
    settings: Settings, mariadb: str, kind: Kind, status: str
) -> None:
    """Else the two lock the product and its binding in different orders, and the database ends one of them."""

    async def scenario(shop: Shop) -> None:
        [sofa] = add_rows(shop, 1, updated_at=utc_now() - timedelta(hours=3), index_status=status)
        bind_to_nothing(shop, [sofa])
        with shop.services.database.write() as session:
            assert lock_products(session, [sofa]) == {sofa: 1}
            mending = asyncio.create_task(asyncio.to_thread(next, kind(new_pass(shop), 0)))
            await asyncio.to_thread(
                wait_until, lambda: waiting_for_locks(shop) > 0, what="the pass to come to the product"
            )
            binding = session.get_one(ProductVectorRow, (sofa, shop.services.registry.live().vector_index_id, 1))
            binding.milvus_id, binding.row_token = 1_000_000, new_row_token()
            session.flush()
            session.execute(sa.update(ProductRow).values(index_status="indexed"))
        await mending
        assert shop.bound() == {sofa: 1_000_000}
        assert shop.status(sofa) == ("indexed", None)
        assert shop.messages() == []

    run(settings.model_copy(update={"database_url": new_mysql_database(mariadb)}), scenario)


def new_pass(shop: Shop) -> Pass:
    services = shop.services
    index = services.registry.live()
    return Pass(services.settings, services.database, services.vector_db, services.images, index)


def test_a_pass_that_is_cut_off_goes_on_where_it_was(on_both_databases: Settings, milvus: str) -> None:
    async def scenario(shop: Shop) -> None:
        product_ids = add_rows(shop, PAGE + 1, index_status="indexed")
        lease = Lease(shop.services.database, "reconciliation")
        assert lease.take() == {}
        assert shop.reconciler().reconcile() is None  # one at a time
        activation = str(shop.services.registry.live().activated_at)
        lease.give_back({"indexed_products_unbound": product_ids[PAGE - 1], "activation": activation})
        assert shop.mend().indexed_products_unbound == 1
        assert shop.mend().indexed_products_unbound == PAGE  # and the next one begins at the beginning

    run(on_both_databases, scenario)


def test_writers_go_on_while_thousands_of_products_are_queued_again(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        shop.create("第一件")  # the picture store is in use
        add_rows(shop, 6000, updated_at=utc_now() - timedelta(hours=3))

        async def create_s() -> float:
            started = time.monotonic()
            await asyncio.to_thread(shop.create, "新商品")
            return time.monotonic() - started

        alone = statistics.median([await create_s() for _ in range(20)])
        mending = asyncio.create_task(asyncio.to_thread(shop.mend))
        slowest = 0.0
        while not mending.done():
            slowest = max(slowest, await create_s())
        assert (await mending).stale_pending_products == 6000
        print(f"a create: {alone:.3f} s alone, at most {slowest:.2f} s beside it")
        # One transaction of 1,500 rows held them up for 8 s, of 0.03 alone.
        require_in_time(slowest, max(3.0, 100 * alone))

    run(on_both_databases, scenario)


# --- Pictures --------------------------------------------------------------------------------------------------------


def pictures_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*.png")}


def test_a_picture_stays_for_the_grace_from_its_last_row_on_however_old_it_is(on_both_databases: Settings) -> None:
    """A backup copies the rows first, and has as long for the pictures that they name."""

    async def scenario(shop: Shop) -> None:
        services, folder, grace = shop.services, on_both_databases.data_dir / "images", Graces().image
        deleted, changed = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        age_pictures(shop)
        before = pictures_in(folder)
        assert len(before) == 2
        shop.writer.delete(deleted)
        shop.writer.change(changed, ProductChanges(), check_image(picture("tan"), services.settings))
        for _ in range(2):
            assert shop.look() == shop.mend() == Mended()
        age_notes(shop, grace - timedelta(minutes=1))
        assert shop.mend().images_without_product == 0
        assert before < pictures_in(folder)
        age_notes(shop, timedelta(minutes=1))
        assert shop.look().images_without_product == shop.mend().images_without_product == 2
        assert len(pictures_in(folder)) == 1
        with services.database.read() as session:
            assert session.scalars(sa.select(UnusedImageRow)).all() == []

    run(on_both_databases, scenario)


def test_a_picture_that_was_named_again_meanwhile_begins_its_grace_anew(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        folder = settings.data_dir / "images"
        shop.writer.delete(shop.create("红色沙发"))
        age_pictures(shop)
        named_again = shop.create("红色沙发")
        for file in folder.rglob("*.*"):
            os.utime(file, (time.time() - 7200,) * 2)  # no sweep came in two hours
        shop.writer.delete(named_again)
        assert shop.mend() == shop.look() == Mended()
        assert len(pictures_in(folder)) == 1
        age_notes(shop, Graces().image)
        assert shop.mend().images_without_product == 1

    run(settings, scenario)


def test_installations_that_share_a_store_never_remove_each_others_pictures(settings: Settings, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    first, second = (
        settings.model_copy(update={"data_dir": tmp_path / name, "image_store_url": str(shared)})
        for name in ("production", "staging")
    )

    async def add(shop: Shop) -> None:
        for color in ("red", "blue"):
            shop.create(f"{color} 沙发", color)

    async def reconcile(shop: Shop) -> None:
        await add(shop)  # the very same pictures
        shop.writer.delete(shop.create("白床", "white"))
        age_pictures(shop)
        for _ in range(3):
            shop.mend()

    async def everything_is_there(shop: Shop) -> None:
        with shop.services.database.read() as session:
            paths = list(session.scalars(sa.select(ProductRow.image_path)))
        assert len(paths) == 2
        assert all(shop.services.images.read(path) for path in paths)
        assert shop.mend().images_without_product == 0

    run(first, add)
    old = shared / "ab" / f"{'ab' * 32}.png"  # of version 0.2.0, which named no owner: whose is it?
    old.parent.mkdir()
    old.write_bytes(picture())
    run(second, reconcile)
    run(first, everything_is_there)
    assert old.exists()
    fresh = first.model_copy(update={"data_dir": tmp_path / "fresh"})  # a new database on an old store
    before = pictures_in(shared)
    run(fresh, reconcile)
    assert before <= pictures_in(shared)


def test_a_large_share_of_the_pictures_is_not_removed_without_being_told_to(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        images, folder = shop.services.images, settings.data_dir / "images"
        for number in range(MANY_IMAGES + 1):
            images.save(encode_generated(Image.new("RGB", (1, 1)), {"number": str(number)}))
        age_pictures(shop)
        assert shop.mend().images_without_product == 0
        assert "is this the right database" in caplog.text
        assert len(pictures_in(folder)) == MANY_IMAGES + 1
        assert shop.mend(may_delete_many=True).images_without_product == MANY_IMAGES + 1
        assert pictures_in(folder) == set()

    run(settings, scenario)


def test_leftovers_and_foreign_files_stop_no_clean_up(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        folder = settings.data_dir / "images"
        shop.writer.delete(shop.create("白床", "white"))
        [path] = pictures_in(folder)
        for name in (f"{path}.0123.part", "readme.txt", str(Path(path).with_name("cat.png"))):
            (folder / name).write_bytes(b"somebody's")
        age_pictures(shop)
        assert shop.mend().images_without_product == 1
        assert pictures_in(folder) == {str(Path(path).with_name("cat.png"))}

    run(settings, scenario)


def test_a_picture_that_is_named_while_it_is_being_removed_is_kept(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        images, folder = shop.services.images, settings.data_dir / "images"
        sofa = shop.create("红色沙发")
        with shop.services.database.read() as session:
            path = session.get_one(ProductRow, sofa).image_path
        images.set_aside(path)  # a sweep that looked before the product was there, and was killed
        assert images.read(path) == picture()  # so ingestion and browsers miss nothing
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(sofa) == ("indexed", None)
        assert shop.mend().images_without_product == 0
        assert (folder / path).is_file()
        assert (folder / thumbnail_path(path)).is_file()
        assert pictures_in(folder / "aside") == set()

    run(settings, scenario)


def test_an_upload_while_a_picture_is_being_removed_keeps_picture_and_thumbnail(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        images, folder = shop.services.images, settings.data_dir / "images"
        image = check_image(picture(), settings)
        path = images.path_of(image)
        for upload_at in range(3):  # before the first step, between the two, after the second
            images.save(image)
            if upload_at == 0:
                images.save(image)
            mark = images.set_aside(path)
            if upload_at == 1:
                images.save(image)
            images.remove_aside(path, mark)
            if upload_at == 2:
                images.save(image)
            images.save_if_gone(image)  # after the upload's transaction
            assert (folder / path).is_file(), upload_at
            assert (folder / thumbnail_path(path)).is_file(), upload_at

    run(settings, scenario)


def test_a_product_without_its_picture_is_marked_for_a_person_and_keeps_its_row(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        lost, kept, aside = (shop.create(f"{color}沙发", color) for color in ("red", "tan", "blue"))
        await shop.ingestor.ingest(shop.messages())
        path = lose_picture(shop, lost)
        with shop.services.database.read() as session:
            shop.services.images.set_aside(session.get_one(ProductRow, aside).image_path)  # by a sweep that was killed
        assert shop.look().products_without_image == 1
        assert shop.mend().products_without_image == 1
        assert shop.status(lost) == ("failed", f"There is no picture {path}.")
        assert shop.status(kept) == shop.status(aside) == ("indexed", None)
        assert sorted(await shop.found("沙发")) == ["blue沙发", "tan沙发"]
        assert shop.in_milvus() == set(shop.bound().values())
        for _ in range(2):
            assert not any(asdict(shop.mend()).values())
        shop.services.images.save(check_image(picture("red"), shop.services.settings))
        shop.writer.reindex(lost)
        await shop.ingestor.index_products([lost])
        assert shop.status(lost) == ("indexed", None)

    run(on_both_databases, scenario)


def test_a_product_whose_picture_came_back_while_it_was_looked_for_is_not_marked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        path = lose_picture(shop, sofa)
        lacks = Listings.lacks

        def mended_behind_its_back(listings: Listings, looked_for: str) -> bool:
            is_lacking = lacks(listings, looked_for)
            if is_lacking and not (settings.data_dir / "images" / path).exists() and len(looks) == 1:
                shop.writer.change(sofa, ProductChanges(), check_image(picture(), settings))  # the very same picture
            looks.append(is_lacking)
            return is_lacking

        looks: list[bool] = []
        monkeypatch.setattr(Listings, "lacks", mended_behind_its_back)
        assert shop.mend().products_without_image == 0
        assert looks[:2] == [True, True]
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(sofa) == ("indexed", None)
        assert await shop.found("红色沙发") == ["红色沙发"]

    run(settings, scenario)


def test_a_picture_store_that_is_empty_takes_no_product_out_of_search(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("沙发")
        await shop.ingestor.ingest(shop.messages())
        path = lose_picture(shop, sofa)
        sha256 = path.rpartition("/")[2].partition(".")[0]
        add_rows(shop, FEW_LOST, index_status="indexed", image_path=path, image_sha256=sha256)
        assert shop.look().products_without_image == FEW_LOST + 1
        assert shop.mend().products_without_image == 0
        assert "is this the right picture store" in caplog.text
        assert shop.status(sofa) == ("indexed", None)
        assert shop.mend(may_delete_many=True).products_without_image == FEW_LOST + 1

    run(settings, scenario)


def test_each_folder_of_pictures_is_listed_once_however_many_pages_it_fills(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        images, listed = shop.services.images, list[str]()
        paths_in = images.paths_in

        def note(folder: str) -> set[str]:
            listed.append(folder)
            return paths_in(folder)

        hashes = [f"{first}{number:062x}" for first in ("a1", "c3") for number in range(PICTURED_PAGE + 20)]
        folders = ["a1", "c3", "0123456789ab/a1", "0123456789ab/c3"]  # as version 0.2.0 had it, and with an owner
        paths = []
        for number, sha256 in enumerate(hashes):
            path = f"{folders[2 * (number % 2) + (sha256[0] == 'c')]}/{sha256}.png"
            (settings.data_dir / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            (settings.data_dir / "images" / path).touch()
            paths.append(path)
        (settings.data_dir / "images" / paths[PICTURED_PAGE]).unlink()
        same = {"title": "红色沙发", "attributes": {}, "image_width": 1, "image_height": 1}
        rows = [{"image_path": path, "image_sha256": path.split("/")[-1][:64]} for path in paths]
        with shop.services.database.write() as session:
            session.execute(sa.insert(ProductRow), [same | row for row in rows])
        monkeypatch.setattr(images, "paths_in", note)
        assert shop.look().products_without_image == 1
        assert sorted(listed) == sorted(folders)

    run(settings, scenario)


def test_a_store_that_fails_after_the_commit_fails_no_write(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        image = check_image(picture(), settings)
        folder = settings.data_dir / "images"
        folder.rename(settings.data_dir / "away")
        folder.write_text("a file where the folder should be")
        shop.services.images.save_if_gone(image)
        assert "could not be seen" in caplog.text

    async def with_a_folder(shop: Shop) -> None:
        shop.create("红色沙发")
        await scenario(shop)

    run(settings, with_a_folder)


def test_of_many_processes_one_makes_the_pass_of_an_interval(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        hour = timedelta(hours=1)
        assert shop.reconciler().reconcile(hour) is not None
        for _ in range(3):
            assert shop.reconciler().reconcile(hour) is None
        assert shop.reconciler().reconcile() is not None  # at a start, or by hand

    run(settings, scenario)


def test_one_kind_that_fails_keeps_no_other_from_being_mended(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        add_rows(shop, 3, index_status="indexed")
        images = settings.data_dir / "images"
        images.rmdir()
        images.write_text("a file where the folder should be")
        with pytest.raises(ImageStoreUnavailable, match="IMAGE_STORE_URL"):
            shop.mend()
        assert count(shop, "pending") == 3

    run(settings, scenario)


def test_a_store_that_is_down_for_hours_keeps_no_other_from_being_mended_at_each_interval(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        images = settings.data_dir / "images"
        images.rmdir()
        images.write_text("a file where the folder should be")
        for _ in range(2):
            add_rows(shop, 3, index_status="indexed")
            with pytest.raises(ImageStoreUnavailable):
                shop.mend()
            assert count(shop, "pending") == 3
            with pytest.raises(ImageStoreUnavailable):  # a few seconds later, for the pictures alone
                shop.mend()
            with shop.services.database.write() as session:
                row = session.get_one(LeaseRow, "reconciliation")
                hour_ago = utc_now().timestamp() - 3600
                row.progress = row.progress | {name: hour_ago for name in row.progress if name == WAITING_SINCE}
                session.execute(sa.delete(ProductRow))
            with pytest.raises(ImageStoreUnavailable):
                shop.mend()

    run(settings, scenario)


def test_a_folder_of_pictures_that_cannot_be_listed_is_a_finding_and_stops_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        broken, lost = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        await shop.ingestor.ingest(shop.messages())
        with shop.services.database.read() as session:
            path = settings.data_dir / "images" / session.get_one(ProductRow, broken).image_path
        aside = path.parent.with_name("moved")
        path.parent.rename(aside)
        lose_picture(shop, lost)
        shop.services.images.save(check_image(picture("tan"), settings))
        age_pictures(shop)
        path.parent.symlink_to(path.parent)  # ELOOP, as EIO of a bad sector, ESTALE of NFS, EACCES of a wrong owner
        findings = shop.reconciler().reconcile()
        assert findings is not None
        folder = str(path.parent.relative_to(settings.data_dir / "images"))
        kinds = {kind: (drift.found, drift.mended) for kind, drift in findings.items() if drift.found}
        assert kinds == {"products_without_image": (2, 1), "images_without_product": (2, 1)}
        assert folder in findings["products_without_image"].sample
        assert "Too many levels" in caplog.text
        assert (shop.status(broken)[0], shop.status(lost)[0]) == ("indexed", "failed")
        path.parent.unlink()
        aside.rename(path.parent)
        assert not any(drift.found for drift in (shop.reconciler().reconcile() or {}).values())

    run(settings, scenario)


def test_a_picture_that_cannot_be_moved_is_a_finding_and_stops_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(shop: Shop) -> None:
        images, root = shop.services.images, settings.data_dir / "images"
        shown = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        unused = [check_image(picture(color), settings) for color in ("tan", "skyblue", "navy")]
        for each in unused:
            images.save(each)
        age_pictures(shop)
        with shop.services.database.read() as session:
            path = session.get_one(ProductRow, shown).image_path
        images.set_aside(path)  # by a sweep that was killed
        stuck = images.path_of(unused[1])
        # A file stands where a folder belongs: one picture can't be set aside, another can't be taken back.
        blocked = [root / "aside" / Path(stuck).parent, (root / path).parent]
        assert len({each.name for each in blocked} | {each.sha256[:2] for each in unused}) == 4
        blocked[1].rmdir()
        for folder in blocked:
            folder.write_text("")

        findings = shop.reconciler().reconcile()
        assert findings is not None
        found = findings["images_without_product"]
        assert (found.found, found.mended) == (4, 2)
        assert {path, stuck} < set(found.sample)
        assert "2 pictures can't be removed, the first because: The image store" in caplog.text
        assert [(root / images.path_of(each)).exists() for each in unused] == [False, True, False]
        assert images.read(path), "what lies aside is there to be read"

        for folder in blocked:
            folder.unlink()
        assert shop.mend() == Mended(images_without_product=1)  # with no new grace
        assert (root / path).exists()
        assert not (root / stuck).exists()

    run(settings, scenario)


def test_a_long_backlog_is_walked_page_by_page_to_what_is_due(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        old = utc_now() - timedelta(hours=3)
        add_rows(shop, 2 * PAGE, updated_at=old, queued_at=utc_now())
        due = add_rows(shop, 1, updated_at=old)
        steps = list(requeue_forgotten(new_pass(shop), 0))
        assert [(len(step.found), step.mended) for step in steps] == [(0, 0), (0, 0), (1, 1)]
        assert steps[-1].found == due

    run(on_both_databases, scenario)


# --- Looking without mending, and what is told of it ------------------------------------------------------------------


def everything(shop: Shop, folder: Path) -> tuple[Any, ...]:
    """All rows of all tables, all vectors, all files."""
    with shop.services.database.read() as session:
        tables = {name: session.execute(sa.select(table)).all() for name, table in Base.metadata.tables.items()}
    return tables, shop.in_milvus(), sorted(str(file) for file in folder.rglob("*"))


def test_looking_names_every_kind_of_drift_and_changes_nothing(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        images = on_both_databases.data_dir / "images"
        forgotten = await add_every_kind_of_drift(shop)
        age_pictures(shop)
        before = everything(shop, images)
        findings = shop.reconciler(graces=Graces(unbound=timedelta(0))).look()
        assert everything(shop, images) == before
        assert {kind: (drift.found, drift.mended) for kind, drift in findings.items()} == {
            "stale_pending_products": (7, 0),
            "indexed_products_unbound": (2, 0),
            "bindings_without_vector": (1, 0),
            "vectors_without_binding": (1, 0),
            "products_without_image": (1, 0),
            "images_without_product": (1, 0),
        }
        assert findings["stale_pending_products"].sample == forgotten[:5]
        with shop.services.database.read() as session:
            used = set(session.scalars(sa.select(ProductRow.image_path)))
        assert findings["images_without_product"].sample == list(pictures_in(images) - used)
        assert asdict(shop.mend(graces=Graces(unbound=timedelta(0)))) == {
            kind: drift.found for kind, drift in findings.items()
        }
        assert not any(asdict(shop.look(graces=Graces(unbound=timedelta(0)))).values())

    run(on_both_databases, scenario)


async def add_every_kind_of_drift(shop: Shop) -> list[int]:
    """Returns the products whose message was lost."""
    sofa, lamp, bed = (shop.create(title, color) for title, color in (("沙发", "red"), ("灯", "blue"), ("床", "tan")))
    await shop.ingestor.ingest(shop.messages())
    index = shop.services.registry.live()
    shop.services.vector_db.delete(index.collection, [shop.bound()[sofa]], [sofa])
    with shop.services.database.write() as session:
        session.execute(sa.delete(ProductVectorRow).where(ProductVectorRow.product_id == lamp))
    add_rows(shop, 1, index_status="indexed")
    shop.writer.delete(shop.create("白床", "white"))
    lose_picture(shop, bed)
    with shop.services.database.write() as session:
        session.execute(sa.delete(OutboxRow))
    return add_rows(shop, 7, updated_at=utc_now() - timedelta(hours=2))


def test_a_row_whose_product_was_just_deleted_or_changed_is_no_drift_yet(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("沙发")
        await shop.ingestor.ingest(shop.messages())
        shop.writer.delete(sofa)  # its message comes to ingestion when its turn is
        now = {"graces": Graces(unbound=timedelta(0))}
        assert shop.look(**now).vectors_without_binding == 0
        with shop.services.database.write() as session:
            session.execute(sa.update(OutboxRow).values(published_at=utc_now() - timedelta(seconds=1)))
        assert shop.look(**now).vectors_without_binding == 1

    run(on_both_databases, scenario)


def test_each_pass_leaves_what_it_found_and_how_long_it_took(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        def record() -> PassRecord | None:
            with shop.services.database.read() as session:
                return last_pass(session)

        assert record() is None
        add_rows(shop, PAGE + 2, index_status="indexed")
        shop.look()
        assert record() is None
        began = utc_now().timestamp()
        shop.mend()
        first = record()
        assert first is not None
        assert first.found == asdict(Mended(indexed_products_unbound=PAGE + 2))
        assert began <= first.finished_at <= utc_now().timestamp()
        assert 0 < first.took_s <= utc_now().timestamp() - began
        shop.mend()
        second = record()
        assert second is not None
        assert second.found == asdict(Mended())
        assert second.mended_in_all == first.found

    run(on_both_databases, scenario)

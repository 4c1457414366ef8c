"""The same cases on SQLite and on MariaDB: schema, transactions, bindings, outbox."""

import asyncio
import itertools
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import orm
from sqlalchemy.exc import IntegrityError

from orm_models import (
    ApiKeyRow,
    Base,
    GeneratedImageRow,
    JobRow,
    LeaseRow,
    OutboxRow,
    ProcessRow,
    ProductImageRow,
    ProductRow,
    ProductVectorRow,
    VectorIndexRow,
    utc_now,
)
from tests.processes import ROOT, environment, wait_until
from tests.servers import new_mysql_database
from tuwen.background import Lease, LeaseLost
from tuwen.catalogue.filters import Selection
from tuwen.catalogue.pictures import pictures_of
from tuwen.catalogue.queries import find_product, list_products, lock_products, sku_owner
from tuwen.database.engine import Database
from tuwen.database.jobs import find_job
from tuwen.database.start import open_database
from tuwen.errors import ConfigurationError, DatabaseUnavailable
from tuwen.generation.queries import (
    claim_generation_job,
    count_jobs_waiting,
    delete_jobs_finished_before,
    finish_job,
    generated_images,
    give_back_job,
    has_unfinished_jobs,
    report_on_job,
)
from tuwen.indexing.coverage import count_covered, covered_by_first_alone, next_unbound
from tuwen.indexing.queries import (
    image_paths_in_use,
    pending_products_after,
    pictured_products_after,
    product_versions_after,
    products_with_message_since,
    requeue,
    unused_since,
    without_waiting_message,
)
from tuwen.messaging.outbox import (
    add_product_event,
    claim_outbox,
    count_refused,
    delete_published_before,
    delete_refused_before,
    give_back_claims,
    mark_published,
    mark_refused,
    oldest_waiting_at,
    outbox_backlog,
)
from tuwen.processes import FORGET_AFTER, GONE_AFTER, Presence, living_processes
from tuwen.settings import Settings
from tuwen.vectors.binding import (
    PictureRow,
    bind_all,
    bindings_after,
    bound_milvus_id,
    bound_milvus_ids,
    bound_rows,
    confirm_indexed,
    indexed_versions,
    made_of,
    mark_failed,
    release_milvus_ids,
    row_at_version,
    sha256_of,
    unbind,
)
from tuwen.vectors.bound_products import products_bound_to
from tuwen.vectors.indexes import has_bindings
from vector_db import RowKey


@pytest.fixture(params=["sqlite", "mariadb"])
def empty_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tuwen.db'}"
    return new_mysql_database(request.getfixturevalue("mariadb"))


@pytest.fixture
def database(empty_dsn: str) -> Iterator[Database]:
    opened = Database(empty_dsn)
    opened.migrate()
    yield opened
    opened.close()


def add_product(database: Database, **values: Any) -> ProductRow:
    row = ProductRow(
        **{
            "title": "红色沙发",
            "image_path": "aa/a.png",
            "image_sha256": "a" * 64,
            "image_width": 4,
            "image_height": 3,
            **values,
        }
    )
    with database.write() as session:
        session.add(row)
    return row


def bind_vectors(session: orm.Session, product: ProductRow, index_id: int, row: RowKey) -> int | None:
    """One alone; what it replaced."""
    return next(
        iter(bind_all(session, [(product, [PictureRow(row, product.image_sha256)])], index_id, is_live=True)), None
    )


def add_index(database: Database, collection: str = "products_x_1") -> int:
    row = VectorIndexRow(collection=collection, model_fingerprint="f", status="active")
    with database.write() as session:
        session.add(row)
    return row.vector_index_id


def test_the_migrations_make_exactly_the_models_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
        tables = set(sa.inspect(connection).get_table_names())
    assert differences == []
    assert tables == {*Base.metadata.tables, "alembic_version"}


def test_migrating_twice_changes_nothing_and_an_old_schema_is_named(database: Database, tmp_path: Path) -> None:
    database.migrate()
    database.require_current_schema()
    with pytest.raises(ConfigurationError, match=r"cli.py migrate"):
        open_database(Settings(_env_file=None, database_url=f"sqlite:///{tmp_path / 'old.db'}", auto_migrate=False))


def test_three_processes_that_start_at_once_migrate_once(empty_dsn: str, tmp_path: Path) -> None:
    command, env = [sys.executable, "cli.py", "migrate"], environment(DATABASE_URL=empty_dsn)
    with sqlite3.connect(tmp_path / "tuwen.db", isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")  # until all of them wait, those on SQLite at least
        starts = [subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE) for _ in range(3)]
        if empty_dsn.startswith("sqlite"):
            wait_until(lambda: all(has_open(start, "tuwen.db") for start in starts), what="all three to be waiting")
        holder.execute("ROLLBACK")
    holder.close()
    for start in starts:
        _, said = start.communicate(timeout=60)
        assert start.returncode == 0, said.decode()
    database = Database(empty_dsn)
    database.require_current_schema()
    add_product(database)
    database.close()


def has_open(process: subprocess.Popen[bytes], name: str) -> bool:
    return any(Path(file.path).name == name for file in psutil.Process(process.pid).open_files())


def test_a_process_that_waits_for_a_migration_finds_it_done_whenever_its_commit_comes(empty_dsn: str) -> None:
    """The revision is committed after the changes that it names: nobody may look in between."""
    databases = [Database(empty_dsn) for _ in range(3)]
    for database in databases:
        sa.event.listen(
            database.migration_engine, "commit", lambda _: time.sleep(0.1)
        )  # a busy disk, a replica far away
    with ThreadPoolExecutor(len(databases)) as pool:
        for done in [pool.submit(database.migrate) for database in databases]:
            done.result()
    databases[0].require_current_schema()
    for database in databases:
        database.close()


def test_a_migration_that_was_killed_before_its_revision_was_noted_may_come_again(empty_dsn: str) -> None:
    database = Database(empty_dsn)
    revisions = [script.revision for script in ScriptDirectory(str(ROOT / "migrations")).walk_revisions()]
    for before, revision in itertools.pairwise(["base", *reversed(revisions)]):
        database.migrate(revision)
        with database.write() as session:
            if before == "base":
                session.execute(sa.text("DELETE FROM alembic_version"))
            else:
                session.execute(sa.text("UPDATE alembic_version SET version_num = :before"), {"before": before})
        database.migrate(revision)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.close()


def test_a_connection_that_is_lost_while_migrating_is_named(mariadb: str) -> None:
    database = Database(new_mysql_database(mariadb))

    killer = Database(str(database.engine.url))

    def lose(connection: sa.Connection, clause: object, *_: object) -> None:
        if "CREATE TABLE product " in str(clause):
            number = connection.scalar(sa.text("SELECT CONNECTION_ID()"))
            with killer.engine.connect() as other:
                other.execute(sa.text(f"KILL {number}"))

    sa.event.listen(database.migration_engine, "before_execute", lose)
    with pytest.raises(DatabaseUnavailable, match="DATABASE_URL"):
        database.migrate()
    database.close()
    killer.migrate()  # the lock went with the connection
    killer.close()


def test_rows_of_version_0_2_0_stay_as_they_are(empty_dsn: str) -> None:
    database = Database(empty_dsn)
    database.migrate("0002")
    moment = "2026-11-25 08:00:00.123456"
    with database.write() as session:
        for statement in (
            "INSERT INTO product (id, title, attributes, image_path, image_sha256, image_width, image_height,"
            " image_is_generated, version, index_status, created_at, updated_at)"
            f" VALUES (7, '红色沙发', '{{}}', 'bb/1.png', 'b', 8, 8, 1, 2, 'indexed', '{moment}', '{moment}')",
            "INSERT INTO vector_index (id, collection, model_fingerprint, status, created_at)"
            f" VALUES (1, 'products_x_1', 'f', 'active', '{moment}')",
            "INSERT INTO product_vector (product_id, vector_index_id, milvus_id, version) VALUES (7, 1, 9, 2)",
            "INSERT INTO job (id, kind, status, progress, request, result, created_at, attempts)"
            f" VALUES (5, 'generate', 'done', 1, '{{\"prompt\": \"沙发\"}}', NULL, '{moment}', 1)",
            "INSERT INTO generated_image (id, job_id, position, seed, image_path, image_sha256, image_width,"
            " image_height) VALUES (9, 5, 0, 1, 'bb/1.png', 'b', 8, 8)",
        ):
            session.connection().exec_driver_sql(statement)
    database.migrate()
    with database.read() as session:
        found = find_product(session, 7, None)
        job = find_job(session, "generate", 5)
        assert found is not None
        assert job is not None
        assert (found.product.title, found.product.version, found.product.image_is_generated) == ("红色沙发", 2, True)
        assert found.product.content_version == 2
        binding = session.get_one(ProductVectorRow, (7, 1, 1))
        assert (binding.image_sha256, binding.title_sha256) == ("b", sha256_of("红色沙发"))
        assert (job.status, job.request) == ("done", {"prompt": "沙发"})
        assert [image.image_id for image in generated_images(session, 5)] == [9]
    assert add_product(database).product_id == 8
    assert add_job(database) == 6
    database.close()


def test_old_skus_that_are_one_but_for_how_they_are_typed_both_stay(
    empty_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(empty_dsn)
    database.migrate("0012")
    skus = {1: "Ａ-1", 2: "A-1", 3: "A\u200b-1", 4: "B 2", 5: None, 6: "㌢" * 64, 7: "b 2"}
    with database.write() as session:
        for number, sku in skus.items():
            session.execute(
                sa.text(
                    "INSERT INTO product (id, sku, title, category, attributes, image_path, image_sha256, image_width,"
                    " image_height, image_is_generated, version, index_status, created_at, updated_at) VALUES (:id,"
                    " :sku, '木製　Ｂｉｇ書櫃', '書櫃', '{}', 'a.png', 'a', 1, 1, 0, 1, 'indexed', :now, :now)"
                ),
                {"id": number, "sku": sku, "now": "2026-11-25 08:00:00.123456"},
            )
    database.migrate()
    assert [record.getMessage()[:18] for record in caplog.records] == ["Products 2 and 1 h", "Products 2 and 3 h"]
    with database.read() as session:
        assert dict(session.execute(sa.select(ProductRow.product_id, ProductRow.sku)).all()) == skus
        assert {number: sku_owner(session, sku) for number, sku in skus.items() if sku} == {
            n: n for n in skus if n != 5
        }
        assert sku_owner(session, "Ａ－1") == 2
        assert listed(session, words="书柜 big") == list(skus)
        assert listed(session, category="书柜 ") == list(skus)
    with database.write() as session:  # an unchanged sku is no change of it
        product = session.get_one(ProductRow, 1)
        product.sku, product.title = "Ａ-1", "椅子"
    with pytest.raises(IntegrityError), database.write() as session:
        session.get_one(ProductRow, 4).sku = "Ａ－1"
    database.close()


def listed(session: orm.Session, sort: str = "product_id", **wanted: Any) -> list[int]:
    found, total = list_products(
        session, vector_index_id=None, page=1, page_size=200, sort=sort, selection=Selection(**wanted)
    )
    assert total == len(found)
    return [each.product.product_id for each in found]


def test_products_are_found_by_words_in_any_order_and_width(database: Database) -> None:
    sofa = add_product(database, title="红色布艺三人沙发", sku="Ｓ_1").product_id
    lamp = add_product(database, title="Ｆloor LAMP 100%\u00a0cotton", category="燈具").product_id
    with database.read() as session:
        for query in ("沙发 红色", " 紅色　沙發\u200b", "s_1".upper(), "Ｓ_1"):
            assert listed(session, words=query) == [sofa], query
        for query in ("lamp floor", "Cotton\u00a0100%", "floor lamp 100% cotton", "0%"):
            assert listed(session, words=query) == [lamp], query
        for query in ("沙发 lamp", "_", "s-1", "100%cotton"):
            assert listed(session, words=query) == [], query
        assert listed(session, words=" \u3000") == [sofa, lamp]
        assert listed(session, category="灯具") == [lamp]


def test_products_without_a_price_come_last_whichever_way_they_are_sorted(database: Database) -> None:
    cheap, none, dear = (add_product(database, price=price).product_id for price in (Decimal(1), None, Decimal(2)))
    with database.read() as session:
        assert listed(session, "price") == [cheap, dear, none]
        assert listed(session, "-price") == [dear, cheap, none]


def test_values_come_back_as_they_went_in(database: Database) -> None:
    title = "图" * 498 + "𠮷🛋"
    attributes = {"颜色": "红", "尺寸": [1, 2.5, None], "嵌套": {"a": True}}
    row = add_product(database, title=title, price=Decimal("9999999999.99"), attributes=attributes, sku="A-1")
    with database.read() as session:
        found = find_product(session, row.product_id, None)
    assert found is not None
    product, milvus_id = found
    assert (product.title, product.price, product.attributes, milvus_id) == (title, row.price, attributes, None)
    assert product.created_at == row.created_at
    assert product.created_at.utcoffset() is not None


def test_a_sku_is_unique_to_the_letter(database: Database) -> None:
    add_product(database, sku="abc")
    add_product(database, sku="ABC")
    add_product(database, sku=None)
    add_product(database, sku=None)
    for sku in ("abc", "ａｂｃ", "a\u200bbc"):
        with pytest.raises(IntegrityError):
            add_product(database, sku=sku)


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    row = add_product(database)

    def fail_after_writing() -> None:
        with database.write() as session:
            session.add(ProductRow(title="b", image_path="b", image_sha256="b", image_width=1, image_height=1))
            add_product_event(session, "topic", row, "upsert")
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_writing()
    with database.read() as session:
        _, total = list_products(session, vector_index_id=None, page=1, page_size=9, sort="title")
        assert (total, outbox_backlog(session)) == (1, 0)


def test_a_deleted_products_id_is_not_given_again(database: Database) -> None:
    first = add_product(database)
    with database.write() as session:
        session.delete(session.get_one(ProductRow, first.product_id))
    assert add_product(database).product_id > first.product_id


def key(product: ProductRow, milvus_id: int, token: int | None) -> RowKey:
    return RowKey(milvus_id, product.product_id, token)


def test_a_row_counts_only_with_its_product_and_its_token(database: Database) -> None:
    index_id, product, other = add_index(database), add_product(database), add_product(database)
    bound, of_0_2_0 = key(product, 7, token=70), key(other, 8, token=None)
    with database.write() as session:
        bind_vectors(session, product, index_id, bound)
        bind_vectors(session, other, index_id, of_0_2_0)
    strangers = [key(other, 7, token=70), key(product, 7, token=71), key(product, 7, None), key(other, 8, token=70)]
    with database.read() as session:
        assert set(products_bound_to(session, index_id, [bound, of_0_2_0, *strangers])) == {bound, of_0_2_0}
        assert bound_rows(session, index_id, [bound, of_0_2_0, *strangers]) == {bound, of_0_2_0}


def test_an_id_that_is_given_again_is_taken_from_whoever_had_it(database: Database) -> None:
    index_id, old, new = add_index(database), add_product(database), add_product(database)
    with database.write() as session:
        bind_vectors(session, old, index_id, key(old, 7, token=70))
    with database.write() as session:
        assert release_milvus_ids(session, index_id, [7, 8]) == [old.product_id]
        assert bind_vectors(session, new, index_id, key(new, 7, token=71)) is None
    with database.read() as session:
        assert bound_milvus_ids(session, [old.product_id, new.product_id]) == {new.product_id: {"products_x_1": [7]}}


def test_unbinding_takes_only_what_is_still_the_same(database: Database) -> None:
    index_id, product = add_index(database), add_product(database)
    with database.write() as session:
        bind_vectors(session, product, index_id, key(product, 8, token=71))
    with database.write() as session:
        assert unbind(session, index_id, [key(product, 7, token=70), key(product, 8, token=70)]) == []
        assert unbind(session, index_id, [key(product, 8, token=71)]) == [product.product_id]


def test_a_pending_product_that_is_bound_at_its_version_is_confirmed(database: Database) -> None:
    index_id, same, changed = add_index(database), add_product(database), add_product(database, version=2)
    with database.write() as session:
        for number, product in enumerate((same, changed)):
            bind_vectors(session, product, index_id, key(product, number, token=None))
        session.execute(sa.update(ProductRow).values(index_status="pending"))
        session.execute(
            sa.update(ProductRow).where(ProductRow.product_id == changed.product_id).values(content_version=3)
        )
    with database.write() as session:
        assert confirm_indexed(session, index_id, [same.product_id, changed.product_id]) == 1
    with database.read() as session:
        assert session.get_one(ProductRow, same.product_id).index_status == "indexed"
        assert session.get_one(ProductRow, changed.product_id).index_status == "pending"


def test_requeueing_leaves_alone_what_is_no_longer_as_it_was(database: Database) -> None:
    pending, indexed = add_product(database), add_product(database, index_status="indexed")
    both = [pending.product_id, indexed.product_id]
    with database.write() as session:
        assert requeue(session, both, "pending", "topic") == [pending.product_id]
        assert without_waiting_message(session, both, "topic") == [indexed.product_id]
        assert without_waiting_message(session, both, "other") == both
    with database.read() as session:
        [row] = session.scalars(sa.select(OutboxRow))
        assert (row.message_key, row.payload["version"]) == (str(pending.product_id), 1)
        soon = utc_now() + timedelta(minutes=1)
        assert pending_products_after(session, 0, soon, utc_now() - timedelta(hours=1), 9) == {
            pending.product_id: False
        }
        assert pending_products_after(session, 0, soon, soon, 9) == {pending.product_id: True}
        assert pending_products_after(session, pending.product_id, soon, soon, 9) == {}


def test_of_many_processes_one_has_a_lease_and_the_next_goes_on_where_it_was(database: Database) -> None:
    first, second = Lease(database, "work"), Lease(database, "work")
    assert first.take() == {}
    assert second.take() is None
    first.keep({"page": 3})
    assert first.take() == {"page": 3}
    with database.write() as session:  # as if it had been silent for long
        session.execute(sa.update(LeaseRow).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert second.take() == {"page": 3}
    with pytest.raises(LeaseLost):
        first.keep({"page": 4})
    assert first.take() is None
    second.give_back({"page": 5})
    with pytest.raises(LeaseLost):  # it is free, but what the first one found before is old by now
        first.keep({"page": 4})
    with pytest.raises(LeaseLost), database.write() as session:
        first.end(session)
    first.give_back({})
    assert first.take() == {"page": 5}
    with database.write() as session:
        first.end(session)
    assert second.take() == {}


def test_a_process_is_seen_as_long_as_it_renews_its_row(database: Database) -> None:
    models = {"models": "old"}
    api, killed = Presence(database, "api", lambda: dict(models)), Presence(database, "worker", dict)
    api.renew()
    killed.renew()

    def age_all(by: timedelta) -> None:
        with database.write() as session:
            session.execute(sa.update(ProcessRow).values(seen_at=utc_now() - by))

    def living() -> list[tuple[str, dict[str, Any]]]:
        with database.read() as session:
            return [(row.kind, row.state) for row in living_processes(session)]

    assert living() == [("worker", {}), ("api", {"models": "old"})]
    age_all(GONE_AFTER)
    models["models"] = "new"
    api.renew()
    assert living() == [("api", {"models": "new"})]
    age_all(FORGET_AFTER)
    api.renew()  # takes the dead out, and stays one row itself
    with database.read() as session:
        assert [row.kind for row in session.scalars(sa.select(ProcessRow))] == ["api"]


def test_a_process_that_ends_takes_its_row_away(database: Database) -> None:
    async def live_shortly() -> None:
        run = asyncio.create_task(Presence(database, "api", dict).run())
        await asyncio.to_thread(wait_until, lambda: bool(living()), what="the row")
        run.cancel()
        await asyncio.wait([run])

    def living() -> list[ProcessRow]:
        with database.read() as session:
            return living_processes(session)

    asyncio.run(live_shortly())
    assert living() == []


def test_binding_replaces_and_deleting_unbinds(database: Database) -> None:
    index_id, product = add_index(database), add_product(database)
    first, second = (key(product, 450_000_000_000_000_001 + number, token=70 + number) for number in range(2))
    with database.write() as session:
        assert bind_vectors(session, product, index_id, first) is None
    with database.write() as session:
        assert bind_vectors(session, product, index_id, second) == first.milvus_id
    with database.read() as session:
        found = products_bound_to(session, index_id, [first, second])
        assert {row: found[row].index_status for row in found} == {second: "indexed"}
        assert bound_milvus_ids(session, [product.product_id]) == {
            product.product_id: {"products_x_1": [450_000_000_000_000_002]}
        }
    with database.write() as session:
        session.delete(session.get_one(ProductRow, product.product_id))
    with database.read() as session:
        assert session.scalars(sa.select(ProductVectorRow)).all() == []


def test_a_failed_product_loses_its_old_vectors(database: Database) -> None:
    index_id, product = add_index(database), add_product(database)
    with database.write() as session:
        bind_vectors(session, product, index_id, key(product, 7, token=70))
    with database.write() as session:
        assert mark_failed(session, product, index_id, "x" * 5000) == [7]
    with database.read() as session:
        row = session.get_one(ProductRow, product.product_id)
        assert (row.index_status, row.index_error) == ("failed", "x" * 1000)
        assert products_bound_to(session, index_id, [key(product, 7, token=70)]) == {}


def test_rows_of_several_pictures_are_bound_lost_and_replaced_as_one_product(database: Database) -> None:
    index_id, product, other = add_index(database), add_product(database), add_product(database)

    def bind(*rows: int) -> list[int]:
        made = [PictureRow(key(product, each, token=each), f"{each:064x}") for each in rows]
        with database.write() as session:
            return bind_all(session, [(product, made)], index_id, is_live=True)

    def bound() -> dict[int, tuple[int, str | None, bool]]:
        with database.read() as session:
            rows = session.scalars(sa.select(ProductVectorRow).where(ProductVectorRow.product_id == product.product_id))
            return {row.milvus_id: (row.image_position, row.image_sha256, bool(row.title_sha256)) for row in rows}

    with database.write() as session:
        bind_vectors(session, other, index_id, key(other, 70, token=70))
    assert bind(7, 8, 9) == []
    assert bound() == {7: (1, f"{7:064x}", True), 8: (2, f"{8:064x}", False), 9: (3, f"{9:064x}", False)}
    with database.read() as session:
        assert indexed_versions(session, index_id, [product.product_id]) == {product.product_id: 1}
        assert bound_milvus_ids(session, [product.product_id]) == {product.product_id: {"products_x_1": [7, 8, 9]}}
        assert row_at_version(session, index_id, product.product_id, 1) == key(product, 7, token=7)
        assert bound_milvus_id(session, index_id, product.product_id) == 7
        found = products_bound_to(session, index_id, [key(product, 9, token=9)])
        assert {(row.image_position, row.row_image_sha256) for row in found.values()} == {(3, f"{9:064x}")}
        listed, _ = list_products(session, vector_index_id=index_id, page=1, page_size=9, sort="product_id")
        assert [each.milvus_id for each in listed] == [7, 70]
    assert bind(17, 18) == [7, 8, 9]
    assert {milvus_id: position for milvus_id, (position, *_) in bound().items()} == {17: 1, 18: 2}
    with database.write() as session:
        assert unbind(session, index_id, [key(product, 18, token=18), key(product, 18, token=1)]) == [
            product.product_id
        ]
    assert set(bound()) == {17}
    with database.write() as session:
        assert indexed_versions(session, index_id, [product.product_id]) == {product.product_id: 0}
        session.execute(sa.update(ProductRow).values(index_status="pending"))
        assert confirm_indexed(session, index_id, [product.product_id, other.product_id]) == 1  # not half of one
        assert made_of(session, index_id, [product.product_id])[product.product_id][0].image_sha256 == f"{17:064x}"
    assert bind(27, 28, 29) == [17]
    with database.write() as session:
        assert release_milvus_ids(session, index_id, [28, 29]) == [product.product_id]
    assert set(bound()) == {27}
    with database.write() as session:
        assert mark_failed(session, product, index_id, "x") == [27]


def test_pictures_of_products_come_in_the_order_of_their_hashes_whichever_table_has_them(database: Database) -> None:
    hashes = [f"{number:064x}" for number in range(6)]
    first = add_product(database, image_sha256=hashes[3], image_count=3, image_path="o/3.png")
    second = add_product(database, image_sha256=hashes[1], image_count=2, image_path="o/1.png", index_status="failed")
    shown = {"image_width": 1, "image_height": 1, "image_is_generated": False}
    further = [(first, 2, 0), (first, 3, 5), (second, 2, 3)]
    with database.write() as session:
        for product, position, number in further:
            of = {"image_path": f"o/{hashes[number]}.png", "image_sha256": hashes[number]}
            session.add(ProductImageRow(product_id=product.product_id, position=position, **of, **shown))
    seen, after = [], ("", 0)
    while True:
        with database.read() as session:
            page = pictured_products_after(session, *after, 2)
        if not page:
            break
        seen += [(hashes.index(each.image_sha256), each.product_id, each.index_status) for each in page]
        after = page[-1].image_sha256, page[-1].product_id
    a, b = (first.product_id, "pending"), (second.product_id, "failed")
    assert seen == [(0, *a), (1, *b), (3, *a), (3, *b), (5, *a)]
    with database.read() as session:
        paths = [f"o/{hashes[number]}.png" for number in (0, 2, 5)]
        assert image_paths_in_use(session, paths) == {paths[0], paths[2]}
        assert [len(each) for each in pictures_of(session, [first, second]).values()] == [3, 2]
        assert [each.image_sha256 for each in pictures_of(session, [first])[first.product_id]] == [
            hashes[number] for number in (3, 0, 5)
        ]


def test_a_picture_that_many_products_share_is_one_row_of_an_answer_and_walked_once(database: Database) -> None:
    path, sha256 = f"o/77/{'7' * 64}.png", "7" * 64
    other = f"o/78/{'8' * 64}.png"
    products = [add_product(database, image_sha256=sha256, image_path=path).product_id for _ in range(12)]
    add_product(database, image_sha256="8" * 64, image_path=other)
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        sent.append((sql, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    with database.read() as session:
        used = image_paths_in_use(session, [path, other, f"o/77/{'7' * 64}.jpg"])
    sa.event.remove(database.engine, "before_cursor_execute", note)
    assert used == {path, other}
    with database.engine.connect() as connection:
        asked = [(sql, parameters) for sql, parameters in sent if sql.startswith("SELECT")]
        assert [len(connection.exec_driver_sql(*each).all()) for each in asked] == [2, 0, 0]

    seen, after = [], (sha256, 0)
    with database.read() as session:
        while page := [each for each in pictured_products_after(session, *after, 5) if each.image_sha256 == sha256]:
            seen += [each.product_id for each in page]
            after = sha256, seen[-1]
    assert seen == products


def test_bindings_get_a_key_with_the_pictures_position_and_stay_as_they_are(empty_dsn: str) -> None:
    database = Database(empty_dsn)
    database.migrate("0016")
    moment = "2026-11-25 08:00:00.123456"
    with database.write() as session:
        for statement in (
            "INSERT INTO vector_index (id, collection, model_fingerprint, status, created_at)"
            f" VALUES (1, 'products_x_1', 'f', 'active', '{moment}')",
            *(
                "INSERT INTO product (id, title, attributes, image_path, image_sha256, image_width, image_height,"
                " image_is_generated, version, content_version, index_status, created_at, updated_at)"
                f" VALUES ({each}, '沙发', '{{}}', 'bb/1.png', 'b', 8, 8, 1, 2, 2, 'indexed', '{moment}', '{moment}')"
                for each in (7, 8)
            ),
            "INSERT INTO product_vector (product_id, vector_index_id, milvus_id, row_token, version, image_sha256,"
            " title_sha256) VALUES (7, 1, 90, 91, 2, 'b', 't'), (8, 1, 80, NULL, 1, NULL, NULL)",
        ):
            session.connection().exec_driver_sql(statement)
    database.migrate()
    inspector = sa.inspect(database.engine)
    columns = ["product_id", "vector_index_id", "image_position"]
    assert inspector.get_pk_constraint("product_vector")["constrained_columns"] == columns
    assert {key["referred_table"] for key in inspector.get_foreign_keys("product_vector")} == {
        "product",
        "vector_index",
    }
    with database.read() as session:
        assert indexed_versions(session, 1, [7, 8]) == {7: 2, 8: 1}
        assert row_at_version(session, 1, 7, 2) == RowKey(90, 7, 91)
        assert made_of(session, 1, [7, 8])[7][0].title_sha256 == "t"
        found = find_product(session, 7, 1)
        assert found is not None
        assert (found.milvus_id, found.product.image_count) == (90, 1)
    of_index = {"vector_index_id": 1, "version": 2}
    with database.write() as session:
        session.add(ProductVectorRow(product_id=7, image_position=2, milvus_id=92, **of_index))
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(ProductVectorRow(product_id=7, image_position=3, milvus_id=80, **of_index))  # another's
    with database.write() as session:
        session.delete(session.get_one(ProductRow, 7))
    with database.read() as session:
        assert [row.product_id for row in session.scalars(sa.select(ProductVectorRow))] == [8]
    database.close()


def test_products_of_before_are_the_default_shops_and_skus_are_unique_within_a_shop(empty_dsn: str) -> None:
    database = Database(empty_dsn)
    database.migrate("0022")
    moment = "2026-11-25 08:00:00.123456"
    with database.write() as session:
        for statement in (
            "INSERT INTO vector_index (id, collection, model_fingerprint, status, created_at)"
            f" VALUES (1, 'products_x_1', 'f', 'active', '{moment}')",
            *(
                "INSERT INTO product (id, sku, sku_normalised, title, attributes, price, image_path, image_sha256,"
                " image_width, image_height, image_count, version, content_version, index_status, created_at,"
                f" updated_at) VALUES ({each}, 'S{each}', 's{each}', '沙发', '{{\"颜色\": \"红\"}}', 12.5, 'bb/1.png',"
                f" 'b', 8, 8, 2, 2, 2, 'indexed', '{moment}', '{moment}')"
                for each in (7, 9)
            ),
            "INSERT INTO product_vector (product_id, vector_index_id, milvus_id, row_token, version)"
            " VALUES (7, 1, 90, 91, 2)",
            "INSERT INTO product_image (product_id, position, image_path, image_sha256, image_width, image_height,"
            " image_is_generated) VALUES (7, 2, 'cc/1.png', 'c', 8, 8, 0)",
            "INSERT INTO job (id, kind, status, progress, request, created_at, attempts)"
            f" VALUES (5, 'import', 'done', 1, '{{}}', '{moment}', 1)",
            "DELETE FROM product WHERE id = 9",
        ):
            session.connection().exec_driver_sql(statement)
    database.migrate()
    with database.read() as session:
        row = session.get_one(ProductRow, 7)
        assert (row.shop_id, row.sku, row.attributes, row.price) == ("default", "S7", {"颜色": "红"}, Decimal("12.50"))
        assert [each.image_sha256 for each in pictures_of(session, [row])[7]] == ["b", "c"]
        assert row_at_version(session, 1, 7, 2) == RowKey(90, 7, 91)
        assert session.get_one(JobRow, 5).shop_id == "default"
    assert add_product(database, sku="S7", shop_id="b").product_id == 10  # 9 is not given again
    for sku in ("S7", "Ｓ7"):  # to the letter, or but for how it is typed
        with pytest.raises(IntegrityError):
            add_product(database, sku=sku, shop_id="b")
    with database.write() as session:
        session.delete(session.get_one(ProductRow, 7))
    with database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ProductVectorRow)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(ProductImageRow)) == 0
        if database.is_sqlite:
            assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


def test_a_shops_key_is_not_one_of_all_shops_after_a_way_back(empty_dsn: str) -> None:
    database = Database(empty_dsn)
    database.migrate()
    with database.write() as session:
        for name, shop_id in (("all", None), ("of-b", "b"), ("of-default", "default")):
            session.add(ApiKeyRow(name=name, key_sha256=name.ljust(64), scopes=["search"], shop_id=shop_id))
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    writer = database.migration_engine.execution_options(sqlite_write=True)
    with writer.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.downgrade(config, "0022")
    database.migrate()
    with database.read() as session:
        assert session.execute(sa.select(ApiKeyRow.name, ApiKeyRow.shop_id)).all() == [("all", None)]
    database.close()


def test_locked_products_are_those_that_exist(database: Database) -> None:
    product = add_product(database)
    with database.write() as session:
        assert lock_products(session, [product.product_id, 999]) == {product.product_id: 1}


def test_two_relays_never_claim_the_same_row_until_the_claim_runs_out(database: Database) -> None:
    product = add_product(database)
    with database.write() as session:
        for topic in ("topic", "topic", "other", "topic"):
            add_product_event(session, topic, product, "upsert")

    def claim_two(until: datetime) -> list[int]:
        with database.write() as session:
            return [row.outbox_id for row in claim_outbox(session, "topic", 2, until=until)]

    soon, ago = utc_now() + timedelta(minutes=1), utc_now() - timedelta(seconds=1)
    first, second, third = claim_two(soon), claim_two(ago), claim_two(soon)
    assert len(first) == 2
    assert second == third  # a relay that died lets go
    assert not set(first) & set(second)
    with database.write() as session:
        mark_published(session, first)
        give_back_claims(session, second)
        mark_refused(session, second[0], "x" * 5000)
        assert (outbox_backlog(session), count_refused(session)) == (1, 1)  # the other topic's
    assert claim_two(soon) == []
    with database.read() as session:
        rows = session.scalars(sa.select(OutboxRow).order_by(OutboxRow.outbox_id)).all()
        assert [(row.attempts, row.published_at is not None, len(row.error or "")) for row in rows] == [
            (1, True, 0),
            (1, True, 0),
            (0, False, 0),
            (2, False, 1000),
        ]


@pytest.mark.parametrize("empty_dsn", ["mariadb"], indirect=True)  # SQLite has one writer at a time
def test_claiming_at_the_same_moment_blocks_neither_relays_nor_writers(database: Database) -> None:
    product = add_product(database)
    with database.write() as session:
        for _ in range(4):
            add_product_event(session, "topic", product, "upsert")
    soon = utc_now() + timedelta(minutes=1)
    with database.write() as session:
        first = [row.outbox_id for row in claim_outbox(session, "topic", 2, until=soon)]
        with database.write() as other:
            second = [row.outbox_id for row in claim_outbox(other, "topic", 2, until=soon)]
            add_product_event(other, "topic", product, "upsert")
    assert len({*first, *second}) == 4


def add_job(database: Database) -> int:
    job = JobRow(kind="generate", request={"prompt": "红色的沙发"})
    with database.write() as session:
        session.add(job)
    return job.job_id


def claim(database: Database, silent_since: datetime) -> tuple[int, int] | None:
    """(job, attempt)."""
    with database.write() as session:
        job = claim_generation_job(session, silent_since)
        return (job.job_id, job.attempts) if job else None


def generated(job_id: int) -> GeneratedImageRow:
    return GeneratedImageRow(
        job_id=job_id, position=0, seed=1, image_path=f"bb/{job_id:064}.png", image_sha256=f"{job_id:064}",
        image_width=8, image_height=8,
    )  # fmt: skip


def test_jobs_are_claimed_once_in_order_and_taken_over_when_their_worker_falls_silent(database: Database) -> None:
    first, second = add_job(database), add_job(database)
    long_ago = utc_now() - timedelta(hours=1)
    assert claim(database, long_ago) == (first, 1)
    assert claim(database, long_ago) == (second, 1)
    assert claim(database, long_ago) is None
    soon = utc_now() + timedelta(seconds=1)
    assert claim(database, soon) == (first, 2)
    with database.write() as session:
        assert not report_on_job(session, first, 1, 0.5)  # the silent worker wakes up, and is told
        assert report_on_job(session, first, 2, 0.5)
        assert report_on_job(session, first, 2, 0.5)  # nothing changed, and still its own
        assert not finish_job(session, first, 1, images=[generated(first)])
        assert finish_job(session, first, 2, images=[generated(first)])
        assert not finish_job(session, first, 2, error="twice")
    with database.read() as session:
        job = find_job(session, "generate", first)
        assert job is not None
        assert (job.status, job.progress, job.error) == ("done", 1.0, None)
        assert [image.image_path for image in generated_images(session, first)] == [f"bb/{first:064}.png"]
        assert image_paths_in_use(session, [f"bb/{first:064}.png", "cc/other.png"]) == {f"bb/{first:064}.png"}


def test_a_job_that_is_given_back_waits_again_and_a_cancelled_one_does_not(database: Database) -> None:
    given_back, cancelled = add_job(database), add_job(database)
    long_ago = utc_now() - timedelta(hours=1)
    assert claim(database, long_ago) == (given_back, 1)
    assert claim(database, long_ago) == (cancelled, 1)
    with database.write() as session:
        give_back_job(session, given_back, 1)
        job = find_job(session, "generate", cancelled, lock=True)
        assert job is not None
        job.status = "cancelled"
    with database.write() as session:
        assert count_jobs_waiting(session) == 1
        assert has_unfinished_jobs(session)
        assert not report_on_job(session, cancelled, 1)
        assert not finish_job(session, cancelled, 1)
    assert claim(database, utc_now() + timedelta(hours=1)) == (given_back, 1)
    assert claim(database, long_ago) is None


def test_two_workers_never_claim_the_same_job(database: Database) -> None:
    jobs = [add_job(database) for _ in range(12)]
    claims: list[tuple[int, int]] = []

    def work() -> None:
        while found := claim(database, utc_now() - timedelta(hours=1)):
            claims.append(found)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(claims) == [(job, 1) for job in jobs]


def test_old_results_go_with_their_pictures_and_their_ids_never_return(database: Database) -> None:
    old, unfinished = add_job(database), add_job(database)
    assert claim(database, utc_now()) == (old, 1)
    with database.write() as session:
        finish_job(session, old, 1, images=[generated(old)])
    with database.write() as session:
        assert delete_jobs_finished_before(session, utc_now() - timedelta(hours=1), 9) == 0
        assert delete_jobs_finished_before(session, utc_now() + timedelta(hours=1), 9) == 1
    with database.read() as session:
        assert find_job(session, "generate", old) is None
        assert find_job(session, "generate", unfinished) is not None
        assert generated_images(session, old) == []
        assert image_paths_in_use(session, [f"bb/{old:064}.png"]) == set()
    assert add_job(database) > unfinished


def test_a_database_that_is_down_or_misnamed_is_told_apart() -> None:
    with pytest.raises(DatabaseUnavailable, match="DATABASE_URL"):
        Database("mysql+pymysql://root@127.0.0.1:9/none").check()
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        Database("not a dsn")


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])  # FULL, NORMAL
def test_sqlite_writes_through_to_the_disk_if_it_shall(tmp_path: Path, durable: bool, synchronous: int) -> None:
    database = open_database(Settings(_env_file=None, data_dir=tmp_path, durable_writes=durable))
    with database.write() as session:
        assert session.scalar(sa.text("PRAGMA synchronous")) == synchronous
    database.close()


def test_no_statement_of_a_page_reads_or_sorts_a_whole_table(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'plans.db'}")
    database.migrate()
    index_id, now, some = add_index(database), utc_now(), [1, 2, 3]
    rows, paths = [RowKey(each, each, each) for each in some], [f"o/ab/{'ab' * 32}.png"]
    statements: dict[str, Callable[[orm.Session], object]] = {
        "pending_products_after": lambda session: pending_products_after(session, 1, now, now, 500),
        "without_waiting_message": lambda session: without_waiting_message(session, some, "topic"),
        "products_with_message_since": lambda session: products_with_message_since(session, some, "topic", now),
        "product_versions_after": lambda session: product_versions_after(session, 1, 500),
        "product_versions_after, of a status": lambda session: product_versions_after(session, 1, 500, "indexed"),
        "pictures_of": lambda session: pictures_of(session, [ProductRow(product_id=1, image_count=2)]),
        "pictured_products_after": lambda session: pictured_products_after(session, "ab", 1, 100),
        "has_bindings": lambda session: has_bindings(session, index_id),
        "indexed_versions": lambda session: indexed_versions(session, index_id, some),
        "bindings_after": lambda session: bindings_after(session, index_id, 1, 500),
        "bound_rows": lambda session: bound_rows(session, index_id, rows),
        "image_paths_in_use": lambda session: image_paths_in_use(session, paths),
        "unused_since": lambda session: unused_since(session, paths),
        "claim_outbox": lambda session: claim_outbox(session, "topic", 100, until=now),
        "delete_published_before": lambda session: delete_published_before(session, now, 500),
        "delete_refused_before": lambda session: delete_refused_before(session, now, 500),
        "oldest_waiting_at": oldest_waiting_at,
        "outbox_backlog": outbox_backlog,
        "count_refused": count_refused,
    }
    for name, statement in statements.items():
        plan = plan_of(database, statement)
        assert plan, name
        whole = [step for step in plan if step.startswith(("SCAN", "USE TEMP B-TREE"))]
        # What an index has found comes once each: no more than was asked for.
        assert not whole or (name == "image_paths_in_use" and set(whole) == {"USE TEMP B-TREE FOR DISTINCT"}), name
    walked = plan_of(database, statements["pictured_products_after"])
    of_this = [step for step in walked if "(image_sha256=? AND " in step]
    assert len(of_this) == 2, walked  # no page begins at the first product that has its picture
    assert "SCAN product" in " ".join(plan_of(database, lambda session: session.scalars(sa.select(ProductRow.title))))
    database.close()


def test_a_change_of_the_models_asks_mariadb_for_pages_alone(mariadb: str) -> None:
    database = Database(new_mysql_database(mariadb))
    database.migrate()
    live, shadow = add_index(database), add_index(database, "products_x_2")
    product_ids = list(range(1, 4001))
    shown = {"title": "红色沙发", "attributes": {}, "image_path": "aa/a.png", "image_width": 1, "image_height": 1}
    with database.write() as session:
        products = [
            {"product_id": each, "image_sha256": f"{each:064x}", "index_status": "indexed" if each % 4 else "failed"}
            for each in product_ids
        ]
        session.execute(sa.insert(ProductRow), [shown | product for product in products])
        bindings = [
            {"product_id": each, "vector_index_id": index, "milvus_id": each, "row_token": 1, "version": 1}
            for each in product_ids[:-1]
            for index in (live, shadow)
        ]
        session.execute(sa.insert(ProductVectorRow), bindings)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE TABLE product, product_vector")
    steps = list[Any]()

    def explain(connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        if sql.startswith("SELECT"):
            steps.extend((sql, row) for row in connection.exec_driver_sql(f"EXPLAIN {sql}", parameters))

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    assert count_covered(database, live) == (3999, 4000)
    assert next_unbound(database, live, 3990) == (4000, [4000])
    assert next_unbound(database, live, 4000) is None
    assert sum(live for live, _ in covered_by_first_alone(database, live, shadow)) == 3999
    with database.read() as session:
        product_versions_after(session, 1000, 500, "failed")
        pictured_products_after(session, f"{1000:064x}", 1, 100)
        assert has_bindings(session, shadow)
    assert len(steps) > 30
    for sql, step in steps:
        assert step.type in ("range", "ref", "eq_ref", "const"), (sql, step)
        assert "filesort" not in step.Extra, (sql, step)
    database.close()


def plan_of(database: Database, statement: Callable[[orm.Session], object]) -> list[str]:
    """What SQLite would do for the SELECTs of it."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        sent.append((sql, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    with database.write() as session:
        statement(session)
        sa.event.remove(database.engine, "before_cursor_execute", note)
        connection = session.connection()
        selects = [(sql, parameters) for sql, parameters in sent if sql.startswith("SELECT")]
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters) for sql, parameters in selects]
        return [row.detail for plan in plans for row in plan]

"""The same cases on SQLite and on MariaDB: schema, transactions, bindings, outbox."""

import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from errors import ConfigurationError, DatabaseUnavailable
from orm_models import (
    Base,
    Database,
    OutboxRow,
    ProductRow,
    ProductVectorRow,
    VectorIndexRow,
    add_product_event,
    bind_vectors,
    bound_milvus_ids,
    claim_outbox,
    find_product,
    list_products,
    lock_products,
    mark_failed,
    mark_published,
    open_database,
    outbox_backlog,
    products_bound_to,
)
from settings import Settings
from tests.servers import new_mysql_database


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        dsn = f"sqlite:///{tmp_path / 'tuwen.db'}"
    else:
        dsn = new_mysql_database(request.getfixturevalue("mariadb"))
    opened = Database(dsn)
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
    with pytest.raises(IntegrityError):
        add_product(database, sku="abc")


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


def test_binding_replaces_and_deleting_unbinds(database: Database) -> None:
    index_id, product = add_index(database), add_product(database)
    with database.write() as session:
        assert bind_vectors(session, product, index_id, 450_000_000_000_000_001) is None
    with database.write() as session:
        assert bind_vectors(session, product, index_id, 450_000_000_000_000_002) == 450_000_000_000_000_001
    with database.read() as session:
        found = products_bound_to(session, index_id, [450_000_000_000_000_001, 450_000_000_000_000_002])
        assert {milvus_id: row.index_status for milvus_id, row in found.items()} == {450_000_000_000_000_002: "indexed"}
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
        bind_vectors(session, product, index_id, 7)
    with database.write() as session:
        assert mark_failed(session, product, index_id, "x" * 5000) == [7]
    with database.read() as session:
        row = session.get_one(ProductRow, product.product_id)
        assert (row.index_status, row.index_error) == ("failed", "x" * 1000)
        assert products_bound_to(session, index_id, [7]) == {}


def test_locked_products_are_those_that_exist(database: Database) -> None:
    product = add_product(database)
    with database.write() as session:
        assert lock_products(session, [product.product_id, 999]) == {product.product_id: 1}


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)  # SQLite has one process, and so one relay
def test_two_relays_never_claim_the_same_row(database: Database) -> None:
    product = add_product(database)
    with database.write() as session:
        for _ in range(4):
            add_product_event(session, "topic", product, "upsert")
    claims: list[list[int]] = []
    claimed, checked = threading.Event(), threading.Event()

    def first_relay() -> None:
        with database.write() as session:
            rows = claim_outbox(session, 2)
            claims.append([row.outbox_id for row in rows])
            claimed.set()
            checked.wait(10)
            mark_published(session, claims[0])

    thread = threading.Thread(target=first_relay)
    thread.start()
    claimed.wait(10)
    with database.write() as session:
        claims.append([row.outbox_id for row in claim_outbox(session, 2)])
        add_product_event(session, "topic", product, "upsert")  # claiming must not block new events
    checked.set()
    thread.join()
    assert len({*claims[0], *claims[1]}) == 4
    with database.read() as session:
        assert outbox_backlog(session) == 3
        published = session.scalars(sa.select(OutboxRow).where(OutboxRow.published_at.is_not(None))).all()
        assert [(row.outbox_id, row.attempts) for row in published] == [(claims[0][0], 1), (claims[0][1], 1)]


def test_a_database_that_is_down_or_misnamed_is_told_apart() -> None:
    with pytest.raises(DatabaseUnavailable, match="DATABASE_URL"):
        Database("mysql+pymysql://root@127.0.0.1:9/none").check()
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        Database("not a dsn")

"""The keys of products with the same picture on SQLite and MariaDB, where pictures change while they are compared."""

import pytest
import sqlalchemy as sa

from orm_models import ProductRow
from tests.contract.test_database import add_product
from tuwen.catalogue.twins import find_same, forget_picture, settle, twin_key
from tuwen.database.engine import Database
from tuwen.twins.reports import DuplicateReports

SHOP = "default"
FIRST, SECOND, OTHER = "1" * 64, "2" * 64, "3" * 64


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    with database.write() as session:
        session.execute(sa.delete(ProductRow))


def keys_of(database: Database, *products: ProductRow) -> list[int]:
    """A product without one has its own id."""
    with database.read() as session:
        rows = dict(session.execute(sa.select(ProductRow.product_id, ProductRow.twin_id)).all())
    return [rows[each.product_id] or each.product_id for each in products]


def change_picture(database: Database, product: ProductRow, sha256: str) -> None:
    with database.write() as session:
        row = session.get_one(ProductRow, product.product_id)
        forget_picture(session, row)
        row.image_sha256 = sha256


def compare(database: Database, product: ProductRow) -> None:
    with database.write() as session:
        row = session.get_one(ProductRow, product.product_id)
        found = find_same(session, SHOP, row.image_sha256, None, without=row.product_id)
        settle(session, row.product_id, row.image_sha256, found)


def test_products_with_one_picture_have_one_key(database: Database) -> None:
    products = [add_product(database, image_sha256=FIRST) for _ in range(3)]
    stranger = add_product(database, image_sha256=OTHER)
    for each in (products[2], products[1], stranger):
        compare(database, each)
    first = products[0].product_id
    assert keys_of(database, *products, stranger) == [first, first, first, stranger.product_id]


def test_a_picture_that_changes_while_it_is_compared_is_no_twin(database: Database) -> None:
    older, newer = (add_product(database, image_sha256=FIRST) for _ in range(2))
    with database.read() as session:
        found = find_same(session, SHOP, FIRST, None, without=newer.product_id)
    assert [each.product_id for each in found] == [older.product_id]
    change_picture(database, older, OTHER)
    with database.write() as session:
        settle(session, newer.product_id, FIRST, found)
        assert twin_key(session, found) is None  # nor of one that is made now
    one, another = keys_of(database, older, newer)
    assert one != another
    change_picture(database, newer, SECOND)
    before = keys_of(database, newer)
    with database.write() as session:
        settle(session, newer.product_id, FIRST, [])  # of the picture that it had
    assert keys_of(database, newer) == before


def test_who_shares_a_key_with_none_that_is_like_it_gets_another(database: Database) -> None:
    one, another = add_product(database, image_sha256=FIRST), add_product(database, image_sha256=OTHER)
    with database.write() as session:
        session.execute(sa.update(ProductRow).values(twin_id=-7))
    compare(database, another)
    assert keys_of(database, one)[0] == -7
    assert keys_of(database, another)[0] not in (-7, one.product_id)


def test_a_shop_has_one_report_at_a_time(database: Database) -> None:
    reports = DuplicateReports(database)
    assert reports.create().job_id == reports.create().job_id

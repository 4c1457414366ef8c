"""The terms of products on SQLite and MariaDB: written, counted, scored, swept."""

from decimal import Decimal

import pytest
import sqlalchemy as sa

from data_models import SearchFilters
from orm_models import ProductRow, ProductTermRow
from tests.contract.test_database import add_product
from tuwen.catalogue.changes import apply_changes
from tuwen.catalogue.terms import best_products, count_products, known_terms, write_terms
from tuwen.database.engine import Database
from tuwen.indexing.missing_terms import make_missing_terms
from tuwen.lexical.lexicon import Lexicon
from tuwen.lexical.terms import VERSION
from tuwen.search.lexical import LexicalSearch, WordQuery


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    with database.write() as session:
        session.execute(sa.delete(ProductRow))


def with_terms(database: Database, *products: ProductRow) -> None:
    with database.write() as session:
        write_terms(session, [session.merge(product) for product in products])


def terms_in(database: Database) -> int:
    with database.read() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(ProductTermRow)) or 0


def test_products_are_scored_by_the_terms_that_they_have(database: Database) -> None:
    red = add_product(database, title="红色沙发", sku="XR-500A", price=Decimal(10))
    blue = add_product(database, title="蓝色沙发", attributes={"材质": ["布艺"], "n": 3}, price=Decimal(20))
    with_terms(database, red, blue)
    with database.read() as session:
        assert count_products(session, ["沙发", "红色", "xr500a", "布艺", "没有"]) == {
            "沙发": 2, "红色": 1, "xr500a": 1, "布艺": 1,
        }  # fmt: skip
        assert known_terms(session, ["红色", "黑色"]) == {"红色"}
        both = best_products(session, {"沙发": 1.0, "红色": 2.0}, SearchFilters(), 10)
        assert [product_id for product_id, _ in both] == [red.product_id, blue.product_id]
        assert both[0][1] == pytest.approx(3 * both[1][1])
        assert best_products(session, {"沙发": 1.0, "红色": 2.0}, SearchFilters(), 1) == both[:1]
        within = best_products(session, {"沙发": 1.0}, SearchFilters(price_min=Decimal(15)), 10)
        assert [product_id for product_id, _ in within] == [blue.product_id]
        of_attribute = SearchFilters(attributes={"n": 3})
        assert [each for each, _ in best_products(session, {"沙发": 1.0}, of_attribute, 10)] == [blue.product_id]


def test_of_what_all_have_the_cost_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        with_terms(database, add_product(database, title=f"沙发{number}" if number < 11 else "沙发 稀有"))
    monkeypatch.setattr("tuwen.search.lexical.MOST_READ", 2)
    [found] = LexicalSearch(database, Lexicon(None)).find_all([WordQuery("稀有沙发", SearchFilters(), 20)])
    assert len(found.products) == 1  # by the rare word alone; that all others are sofas, meaning knows


def test_what_no_product_has_is_counted_once_for_all_who_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuwen.catalogue.terms.COUNT_EVERY_S", 3600.0)
    with_terms(database, add_product(database, title="红色沙发"))
    search = LexicalSearch(database, Lexicon(None))
    texts = [f"红色沙法 {number}" for number in range(4)]  # nobody knows the number, nor 沙法, which sounds like 沙发
    search.find_all([WordQuery("红色", SearchFilters(), 20)])
    said: list[str] = []
    listener = (database.engine, "before_cursor_execute", lambda *of: said.append(of[2]))
    sa.event.listen(*listener)
    try:
        found = search.find_all([WordQuery(text, SearchFilters(), 20) for text in texts])
    finally:
        sa.event.remove(*listener)
    assert [len(each.products) for each in found] == [1] * len(texts)
    assert sum("COUNT(*)" in statement for statement in said) == 2  # of all terms, and of what may have been meant


def test_changes_replace_terms_and_deletion_takes_them(database: Database) -> None:
    product = add_product(database, title="红色沙发")
    with_terms(database, product)
    with database.write() as session:
        row = session.get_one(ProductRow, product.product_id)
        assert apply_changes(session, row, {"title": "黑色书桌", "price": Decimal(3)}, "topic")
    with database.read() as session:
        assert set(count_products(session, ["红色", "沙发", "黑色", "书桌"])) == {"黑色", "书桌"}
    with database.write() as session:
        session.delete(session.get_one(ProductRow, product.product_id))
    assert terms_in(database) == 0


def test_a_price_touches_no_term(database: Database) -> None:
    product = add_product(database, title="红色沙发")
    with database.write() as session:
        row = session.get_one(ProductRow, product.product_id)
        assert apply_changes(session, row, {"price": Decimal(3)}, "topic")
    assert terms_in(database) == 0


def test_what_an_older_version_wrote_gets_its_terms(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuwen.indexing.missing_terms.PAGE", 2)
    products = [add_product(database, title=f"旧沙发{number}") for number in range(5)]
    pages: list[int] = []
    make_missing_terms(database, lambda: pages.append(terms_in(database)))
    assert len(pages) == 3
    assert pages == sorted(pages)
    with database.read() as session:
        assert count_products(session, ["沙发"]) == {"沙发": len(products)}
        assert set(session.scalars(sa.select(ProductRow.terms_version))) == {VERSION}
    before = terms_in(database)
    make_missing_terms(database, lambda: pages.append(0))
    assert (len(pages), terms_in(database)) == (3, before)


def test_a_stop_between_two_pages_loses_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuwen.indexing.missing_terms.PAGE", 2)
    for number in range(4):
        add_product(database, title=f"旧沙发{number}")

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        make_missing_terms(database, stop)
    make_missing_terms(database, lambda: None)
    with database.read() as session:
        assert count_products(session, ["沙发"]) == {"沙发": 4}


@pytest.mark.parametrize(
    ("text", "title"), [("shafa", "红色沙发"), ("tabel", "Wooden table"), ("woden table", "Wooden table")]
)
def test_a_guess_is_as_good_as_what_was_meant_however_rare_the_other_guesses_are(
    database: Database, text: str, title: str
) -> None:
    """Of a word's corrections a product has one, and sounds go before them: shafa is 沙发 rather than a shaft."""
    titles = ["红色沙发"] * 6 + ["Wooden table"] * 6 + ["Driver shaft", "Golden label", "Woven carpet"]
    for each in titles:
        with_terms(database, add_product(database, title=each))
    [found] = LexicalSearch(database, Lexicon(None)).find_all([WordQuery(text, SearchFilters(), 20)])
    with database.read() as session:
        best = [session.get_one(ProductRow, product_id).title for product_id, _ in found.products]
    assert best[:6] == [title] * 6
    assert found.products[0][1] > 0.6


@pytest.mark.parametrize(("text", "title"), [("30500331", "零件 305.003.31"), ("XR 500A", "电钻 XR500A")])
def test_separators_of_an_articles_number_say_nothing(database: Database, text: str, title: str) -> None:
    for each in ("零件 305.003.32", "零件 305.003.31", "电钻 500A", "电钻 XR500A", "电钻 XR"):
        with_terms(database, add_product(database, title=each))
    [found] = LexicalSearch(database, Lexicon(None)).find_all([WordQuery(text, SearchFilters(), 20)])
    (best, share), *others = found.products
    assert share > 0.9
    assert all(share > 1.1 * of_other for _, of_other in others)
    with database.read() as session:
        assert session.get_one(ProductRow, best).title == title


@pytest.mark.parametrize(
    ("text", "title"), [("1.5L", "水壶 1.5L"), ("1.5 l 水壶", "水壶 1.5L"), ("15l水壶", "水壶 15L")]
)
def test_a_fraction_is_another_number(database: Database, text: str, title: str) -> None:
    for each in ("水壶 15L", "水壶 1.5L", "水壶 5L"):
        with_terms(database, add_product(database, title=each))
    [found] = LexicalSearch(database, Lexicon(None)).find_all([WordQuery(text, SearchFilters(), 20)])
    (best, share), (_, of_second), *_ = found.products
    with database.read() as session:
        assert session.get_one(ProductRow, best).title == title
    assert share > 1.1 * of_second

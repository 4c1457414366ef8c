"""A session of one shop, on SQLite and on MariaDB: what it reads, counts and changes, whatever is asked of it."""

import itertools
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy as sa
from PIL import Image
from sqlalchemy import orm

from data_models import Boost, Facet, SearchFilters
from orm_models import (
    GeneratedImageRow,
    ImportErrorRow,
    JobRow,
    ProductImageRow,
    ProductRow,
    ProductTermRow,
    ProductVectorRow,
    VectorIndexRow,
)
from tests.contract.test_database import plan_of
from tuwen.catalogue.boosts import Boosting, lifts
from tuwen.catalogue.facets import count_facets, count_facets_among
from tuwen.catalogue.filters import Selection
from tuwen.catalogue.prices import Prices, first_fitting_rows, page_of_fitting_rows
from tuwen.catalogue.queries import (
    find_product,
    group_sizes,
    groups_of,
    list_products,
    load_products,
    lock_products,
    sku_owner,
    sku_owners,
    sort_values,
)
from tuwen.catalogue.terms import TermCounts, best_products, count_products, known_terms, write_terms
from tuwen.catalogue.twins import as_duplicates, find_same, same_as, sketches_of, to_compare, write_sketch
from tuwen.database.engine import Database
from tuwen.database.shops import UnscopedStatement
from tuwen.generation.queries import count_jobs_waiting, find_generated_image
from tuwen.importing.export import products_after
from tuwen.lexical.lexicon import Lexicon
from tuwen.pictures.resemblance import sketch_of
from tuwen.pictures.thumbnails import make_thumbnail
from tuwen.search.lexical import LexicalSearch, WordHits, WordQuery
from tuwen.vectors.binding import made_of
from tuwen.vectors.bound_products import BoundColumns, products_bound_to, products_with_binding
from vector_db import RowKey

PICTURE = {"image_path": "a.png", "image_sha256": "0" * 64, "image_width": 1, "image_height": 1}
SHOPS = ("default", "a", "b")
SKETCH = sketch_of(make_thumbnail(Image.linear_gradient("L").convert("RGB"))) or b""
PRODUCTS = 5  # of each shop, one after another in turn
FACETS = ["category", "price", "attributes", "attributes.颜色", "attributes.标签"]


@pytest.fixture(scope="module")
def database(database: Database) -> Database:
    fill(database)
    return database


def ids_of(shop_id: str) -> list[int]:
    return [number * len(SHOPS) + SHOPS.index(shop_id) + 1 for number in range(PRODUCTS)]


def fill(database: Database) -> None:
    with database.write() as session:
        session.add(VectorIndexRow(vector_index_id=1, collection="c", model_fingerprint="f", status="active"))
        session.flush()
        for number, shop_id in itertools.product(range(PRODUCTS), SHOPS):
            product_id = ids_of(shop_id)[number]
            attributes = {"颜色": f"{shop_id}{number}", "标签": [f"{shop_id}{number}", "x"], f"k{shop_id}": number}
            product = ProductRow(
                product_id=product_id, shop_id=shop_id, sku=f"S{number}", title=f"沙发 {shop_id}", group_id="g",
                category={"a": "Ｃ", "b": "C", "default": "C "}[shop_id], price=number * 10, attributes=attributes,
                image_count=2, **PICTURE,
            )  # fmt: skip
            session.add(product)
            session.flush()
            further = PICTURE | {"image_sha256": f"{product_id:064}"}
            session.add(ProductImageRow(product_id=product_id, position=2, **further))
            of_row = {"milvus_id": product_id, "row_token": product_id, "version": 1}
            session.add(ProductVectorRow(product_id=product_id, vector_index_id=1, **of_row))
            write_terms(session, [product], are_new=True)
            write_sketch(session, product, SKETCH)
        for number, shop_id in enumerate(SHOPS, start=1):
            session.add(JobRow(job_id=number, kind="generate", shop_id=shop_id, request={}))
            session.flush()
            session.add(ImportErrorRow(job_id=number, line=1, field="x", reason=shop_id))
            session.add(GeneratedImageRow(image_id=number, job_id=number, position=0, seed=1, **PICTURE))


@pytest.mark.parametrize("shop_id", SHOPS)
def test_products_with_the_same_picture_are_of_the_shop(database: Database, shop_id: str) -> None:
    """Whoever asks: each product is compared with those of its own shop."""
    mine = ids_of(shop_id)
    for view in (database, database.of_shop(shop_id)):
        with view.read() as session:
            for sha256, is_same_file in (("0" * 64, True), ("f" * 64, False)):
                found = find_same(session, shop_id, sha256, SKETCH, without=mine[0], also=range(99))
                assert {(each.product_id, each.is_same_file) for each in found} == {
                    (each, is_same_file) for each in mine[1:]
                }
            [product] = load_products(session, mine[:1])
            assert {each.product_id for each in same_as(session, product)} == set(mine[1:])
            assert len(as_duplicates(session, same_as(session, product))) == len(mine) - 1
    with database.of_shop(shop_id).read() as session:
        assert set(sketches_of(session, range(99))) == set(mine)
        assert set(to_compare(session, 99)) <= set(mine)


@pytest.mark.parametrize("shop_id", SHOPS)
def test_whatever_is_asked_is_of_the_shop(database: Database, shop_id: str) -> None:
    mine, others = ids_of(shop_id), [each for other in SHOPS if other != shop_id for each in ids_of(other)]
    everything = mine + others
    of_shop = database.of_shop(shop_id)
    with of_shop.read() as session:
        listed, total = list_products(session, vector_index_id=1, page=1, page_size=99, sort="-price")
        assert ({each.product.product_id for each in listed}, total) == (set(mine), PRODUCTS)
        assert all(find_product(session, each, 1) is None for each in others)
        assert all(session.get(ProductRow, each) is None for each in others)
        assert {row.product_id for row in load_products(session, everything)} == set(mine)
        assert set(sort_values(session, everything, "price")) == set(mine)
        assert set(lock_products(session, everything)) == set(mine)
        assert group_sizes(session, everything) == dict.fromkeys(mine, PRODUCTS)
        assert [sku_owner(session, f"S{n}") for n in range(PRODUCTS)] == mine
        assert set(sku_owners(session, [f"S{n}" for n in range(PRODUCTS)]).values()) == set(mine)
        boosting = Boosting.by([Boost(attribute=f"k{shop_id}", pivot=1, weight=0.5)])
        assert boosting is not None
        assert set(lifts(session, everything, boosting)) == set(mine)
        assert set(made_of(session, 1, everything)) == set(mine)
        rows = [RowKey(each, each, each) for each in everything]
        for columns in get_args(BoundColumns):
            assert {row.product_id for row in products_bound_to(session, 1, rows, columns=columns)} == {*mine}
        prices = Prices(Decimal(0), Decimal(1000))
        assert set(first_fitting_rows(session, 1, prices)) == set(mine)
        page = page_of_fitting_rows(session, 1, prices, None)
        assert page is not None
        assert set(page.rows) == set(mine)
        job_id = SHOPS.index(shop_id) + 1
        assert count_jobs_waiting(session) == 1
        assert [find_generated_image(session, each) is not None for each in (1, 2, 3)] == [
            each == job_id for each in (1, 2, 3)
        ]
        assert session.scalars(sa.select(ImportErrorRow.reason)).all() == [shop_id]
        assert session.scalar(sa.select(sa.func.count()).select_from(ProductImageRow)) == PRODUCTS
        assert not session.scalar(sa.select(sa.exists().where(ProductImageRow.image_sha256 == f"{others[0]:064}")))
    assert [row.product_id for row in products_after(of_shop, 0)] == mine


@pytest.mark.parametrize("shop_id", SHOPS)
def test_counts_are_those_of_a_database_with_this_shop_alone(database: Database, shop_id: str, tmp_path: Path) -> None:
    alone = Database(f"sqlite:///{tmp_path / 'alone.db'}")
    alone.migrate()
    fill(alone)
    with alone.write() as session:
        session.execute(sa.delete(ProductRow).where(ProductRow.shop_id != shop_id))
    selections = [
        Selection(),
        Selection(category="C"),
        Selection(words="沙发"),
        Selection(filters=SearchFilters(attributes={"标签": {"contains_any": ["x"]}}, price_min=Decimal(10))),
        Selection(filters=SearchFilters(attributes={"颜色": "a1"})),
    ]
    with alone.read() as expected, database.of_shop(shop_id).read() as session:
        for selection in selections:
            assert sorted_facets(session, selection) == sorted_facets(expected, selection)
        everything = [each for shop in SHOPS for each in ids_of(shop)]
        assert in_order(count_facets_among(session, everything, FACETS)) == in_order(
            count_facets_among(expected, everything, FACETS)
        )
    alone.close()


def sorted_facets(session: orm.Session, selection: Selection) -> tuple[int, object]:
    total, facets = count_facets(session, selection, FACETS)
    return total, in_order(facets)


def in_order(facets: dict[str, Facet]) -> dict[str, object]:
    """Of equal counts the two databases have another first."""
    return {
        name: (sorted((str(each.value), each.count) for each in facet.values or []), facet.ranges, facet.missing)
        for name, facet in facets.items()
    }


@pytest.mark.parametrize("shop_id", SHOPS)
def test_words_are_found_counted_and_known_within_the_shop(database: Database, shop_id: str) -> None:
    everything = [each for shop in SHOPS for each in ids_of(shop)]
    mine, counts = ids_of(shop_id), TermCounts()
    with database.read() as session:  # what all have is no answer to one
        assert counts.of(session, ["沙发", "b"]) == {"沙发": len(everything), "b": PRODUCTS}
    known = {"沙发", shop_id}
    with database.of_shop(shop_id).read() as session:
        for _ in range(2):
            assert counts.of(session, ["沙发", *SHOPS]) == dict.fromkeys(known, PRODUCTS)
            assert counts.products(session) == PRODUCTS
        assert count_products(session, ["沙发", *SHOPS]) == dict.fromkeys(known, PRODUCTS)
        assert known_terms(session, ["沙发", *SHOPS]) == known
        weights = dict.fromkeys(["沙发", *SHOPS], 1.0)
        for filters in (SearchFilters(), SearchFilters(price_min=Decimal(0), price_max=Decimal(1000))):
            assert [each for each, _ in best_products(session, weights, filters, 99)] == mine
        assert groups_of(session, everything) == dict.fromkeys(mine, (shop_id, "g"))
        assert {row.product_id for row in products_with_binding(session, 1, everything)} == set(mine)
    with database.of_shop("nobody").read() as session:
        assert counts.of(session, ["沙发"]) == {}


def test_a_typo_is_corrected_to_no_word_of_another_shop(database: Database) -> None:
    """Nor is what sounds alike: only the shop default has a title with "default"."""
    search = LexicalSearch(database, Lexicon(None))
    for _ in range(2):  # what one has asked for tells nothing to the next
        for shop_id, found in ((None, ids_of("default")), ("default", ids_of("default")), ("a", []), ("nobody", [])):
            [hits] = search.find_all([WordQuery("defualt", SearchFilters(), 99, shop_id)])
            assert ([each for each, _ in hits.products], bool(hits.words)) == (found, bool(found)), shop_id


@pytest.mark.parametrize("text", ["defualt", "default 沙发", "a 沙法"])
def test_shops_that_search_at_once_find_as_each_does_alone(database: Database, text: str) -> None:
    def found(*shop_ids: str | None) -> list[WordHits]:
        asked = [WordQuery(text, SearchFilters(), 99, shop_id) for shop_id in shop_ids]
        return LexicalSearch(database, Lexicon(None)).find_all(asked)

    shop_ids = (None, *SHOPS, "nobody")
    alone = {shop_id: found(shop_id)[0] for shop_id in shop_ids}
    for order in (shop_ids, shop_ids[::-1]):
        assert dict(zip(order, found(*order), strict=True)) == alone


def test_terms_are_rewritten_within_the_shop(database: Database) -> None:
    with database.of_shop("b").write() as session:
        row = session.get_one(ProductRow, ids_of("b")[0])
        write_terms(session, [row])
        session.execute(sa.delete(ProductTermRow).where(ProductTermRow.product_id.in_(ids_of("a"))))
    with database.read() as session:
        assert count_products(session, ["沙发", "a", "b"]) == {"沙发": 3 * PRODUCTS, "a": PRODUCTS, "b": PRODUCTS}
        shops = sa.select(ProductTermRow.shop_id, sa.func.count(ProductTermRow.product_id.distinct()))
        counted = dict(iter(session.execute(shops.group_by(ProductTermRow.shop_id))))
        assert counted == dict.fromkeys(SHOPS, PRODUCTS)


def test_changes_reach_the_shop_alone(database: Database) -> None:
    of_shop = database.of_shop("a")
    with of_shop.write() as session:
        session.execute(sa.update(ProductRow).values(index_error="mine"))
        session.execute(sa.update(ProductVectorRow).values(version=7).execution_options(synchronize_session=False))
        session.execute(sa.delete(ProductImageRow).execution_options(synchronize_session=False))
        row = session.get_one(ProductRow, ids_of("a")[0])
        row.title = "changed"
        session.add(ProductRow(sku="NEW", title="新", shop_id="b", **PICTURE))
    with database.read() as session:
        marked = session.scalars(sa.select(ProductRow.product_id).where(ProductRow.index_error == "mine"))
        assert set(marked) == set(ids_of("a"))
        moved = session.scalars(sa.select(ProductVectorRow.product_id).where(ProductVectorRow.version == 7))
        assert set(moved) == set(ids_of("a"))
        assert session.scalar(sa.select(sa.func.count()).select_from(ProductImageRow)) == 2 * PRODUCTS
        made = session.scalars(sa.select(ProductRow).where(ProductRow.sku == "NEW")).one()
        assert made.shop_id == "a"
    with of_shop.write() as session:
        session.get_one(ProductRow, made.product_id).shop_id = "b"
    with of_shop.write() as session:
        session.delete(session.get_one(ProductRow, made.product_id))  # it stays in its shop
    with pytest.raises(UnscopedStatement), of_shop.write() as session:
        session.execute(sa.insert(ProductRow), [{"title": "新", **PICTURE}])


@pytest.mark.parametrize(
    "statement",
    [
        sa.select(ProductRow.__table__.c.title),
        sa.select(ProductVectorRow.__table__.c.milvus_id),
        sa.select(ImportErrorRow.__table__),
        sa.text("UPDATE product SET title = 'x'"),
        sa.text("SELECT id FROM product WHERE id IN (SELECT p.id FROM product AS p WHERE p.shop_id = 'a')"),
        sa.text("SELECT * FROM product"),
        sa.text("SELECT product_id FROM (SELECT product_id FROM product_term WHERE term = 'x' LIMIT 5) AS l0"),
        sa.text("select title from   product p where p.id = 1"),
        sa.text("SELECT 1 FROM lease, product"),
        sa.text("UPDATE product SET title = (SELECT title FROM product WHERE id = 2) WHERE product.id = 1"),
        sa.text("DELETE FROM job"),
    ],
    ids=str,
)
def test_what_lacks_the_condition_is_refused(database: Database, statement: Any) -> None:
    with pytest.raises(UnscopedStatement), database.of_shop("a").write() as session:
        session.connection().execute(statement)
    with database.write() as session:  # and to nobody else
        if isinstance(statement, sa.Select):
            session.connection().execute(statement)


def test_sqlite_does_not_walk_over_a_shop_for_a_few_rows(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'plans.db'}")
    database.migrate()
    of_shop = database.of_shop("a")
    statements: dict[str, tuple[Callable[[orm.Session], object], str]] = {
        "a picture": (
            lambda session: session.scalar(sa.select(sa.exists().where(ProductRow.image_sha256 == "0"))),
            "ix_product_image_sha256 ",
        ),
        "a group": (lambda session: group_sizes(session, [1, 2]), "ix_product_group_id "),
        "hits": (
            lambda session: products_bound_to(session, 1, [RowKey(each, each, each) for each in range(20)]),
            "PRIMARY KEY (rowid=?)",
        ),
        "the same file": (lambda session: find_same(session, SHOPS[0], "0", None), "ix_product_image_sha256 "),
        "the same picture": (
            lambda session: find_same(session, SHOPS[0], "0", SKETCH),
            "ix_product_sketch_band_0 (band_0=? AND shop_id=?)",
        ),
        "to be compared": (lambda session: to_compare(session, 20), "ix_product_sketch_version "),
        "words": (lambda session: count_products(session, ["a", "b"]), "PRIMARY KEY (term=? AND shop_id=?)"),
        "corrections": (lambda session: known_terms(session, ["a", "b"]), "PRIMARY KEY (term=? AND shop_id=?)"),
        "best": (
            lambda session: best_products(session, {"a": 1.0}, SearchFilters(price_min=Decimal(1)), 9),
            "PRIMARY KEY (term=? AND shop_id=?)",
        ),
        "by words": (lambda session: products_with_binding(session, 1, [1, 2]), "PRIMARY KEY (rowid=?)"),
        "by sku": (lambda session: sku_owners(session, ["a", "b"]), "(sku=? AND shop_id=?)"),
        "a page": (
            lambda session: session.scalars(
                sa.select(ProductRow).where(ProductRow.product_id > 1).order_by(ProductRow.product_id).limit(1)
            ),
            "ix_product_shop_id (shop_id=? AND rowid>?)",
        ),
    }
    for name, (statement, wanted) in statements.items():
        plan = "\n".join(plan_of(of_shop, statement))
        assert wanted in plan, (name, plan)
        assert "SCAN product" not in plan, (name, plan)
        assert name == "a page" or "ix_product_shop_id" not in plan, (name, plan)
    database.close()

"""Filters and facets in SQL, on SQLite and on MariaDB: they mean what Milvus's filter means, and count it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from data_models import AttributeFilter, Boost, Facet, Scalar, SearchFilters
from orm_models import ProductRow
from tests.test_lite_filters import VALUES, Table, is_number, same
from tuwen.catalogue.attributes import LONGEST_COUNTED
from tuwen.catalogue.boosts import Boosting, lifts
from tuwen.catalogue.facets import MAX_FACET_VALUES, count_facets, count_facets_among
from tuwen.catalogue.filters import Selection
from tuwen.catalogue.queries import list_products
from tuwen.database.engine import Database
from tuwen.errors import DatabaseUnavailable

PICTURE = {"image_path": "a.png", "image_sha256": "0" * 64, "image_width": 1, "image_height": 1}
KEYS = ["颜色", "a", "", 'q"x', "b\\s", "a.b", "a ", "A", "😀", "x'y", "n\nl", "$", "[0]", "é"]
MORE_VALUES: list[Any] = [
    "a",
    "a ",
    "A",
    "😀",
    'q"\\',
    "null",
    "true",
    1e300,
    1e-7,
    -0.0,
    0,
    [1, 1.0, "a", "a"],
    [None, "A"],
]


def fill(database: Database, products: Sequence[dict[str, Any]]) -> None:
    with database.write() as session:
        session.execute(sa.delete(ProductRow))
        rows = [{"title": "灯", "category": None, "price": None, **PICTURE, **each} for each in products]
        session.execute(sa.insert(ProductRow), [{"product_id": number, **row} for number, row in enumerate(rows, 1)])


def listed(session: orm.Session, **filters: Any) -> list[ProductRow]:
    selection = Selection(filters=SearchFilters(**filters))
    found, total = list_products(
        session, vector_index_id=None, page=1, page_size=1000, sort="product_id", selection=selection
    )
    assert total == len(found)
    return [each.product for each in found]


def conditions(random: Random, literal: Any) -> Iterator[Scalar | AttributeFilter]:
    other = random.choice([2, "x", True])
    yield literal
    yield AttributeFilter(any_of=[literal, other])
    yield AttributeFilter(none_of=[literal, other])
    if not isinstance(literal, bool):
        yield AttributeFilter(contains_any=[literal, "x"])
        yield AttributeFilter(contains_all=[literal, "a"])
        yield AttributeFilter(contains_any=[literal], none_of=[1])
    if is_number(literal):
        yield AttributeFilter(min=literal)
        yield AttributeFilter(max=literal)
        yield AttributeFilter(min=min(literal, -1), max=literal)


def test_attributes_in_sql_mean_what_they_mean_to_milvus(database: Database) -> None:
    values, random = VALUES + MORE_VALUES, Random(0)
    attributes: list[dict[str, Any]] = [{}] + [{"a": each, "b": 1} for each in values]
    fill(database, [{"attributes": each} for each in attributes])
    in_milvus = Table(attributes)
    literals = [1, 1.0, "1", True, False, -2.5, 2**53, 2**53 + 1, float(2**53), "红", "", "a", "a ", "A", "😀", 'q"\\']
    literals += [1e300, 1e-7, 0, "true", -(2**63), 2**63 - 1, 0.5, "null"]
    asked = [each for literal in literals for each in conditions(random, literal)]
    asked += [AttributeFilter(is_set=True), AttributeFilter(is_set=False)]
    with database.read() as session:
        for wanted in asked:
            found = [product.product_id - 1 for product in listed(session, attributes={"a": wanted})]
            assert found == in_milvus.fitting(a=wanted), wanted


def test_every_key_is_an_attribute_of_its_own(database: Database) -> None:
    fill(database, [{"attributes": {key: "v", "z": 5}} for key in KEYS])
    with database.read() as session:
        for number, key in enumerate(KEYS, 1):
            assert [each.product_id for each in listed(session, attributes={key: "v"})] == [number], key
            name = f"attributes.{key}"
            facet = count_facets(session, Selection(), [name])[1][name]
            assert ([(each.value, each.count) for each in facet.values], facet.missing) == ([("v", 1)], len(KEYS) - 1)
        names = count_facets(session, Selection(), ["attributes"])[1]["attributes"]
    assert (names.values[0].value, {each.value for each in names.values}) == ("z", {"z", *KEYS})


def random_catalogue(random: Random, products: int) -> list[dict[str, Any]]:
    categories = ["灯", "燈", "Ｌamp", "lamp", "椅", None]
    sizes = ["M", "M ", 40, 40.0, True, None, "长" * (LONGEST_COUNTED + 1), {"w": 1}, *range(20)]
    colours = ["红", "蓝", "red", "Red"]
    return [
        {
            "category": random.choice(categories),
            "price": random.choice([None, Decimal(random.randrange(100_000)) / 100, Decimal(10), Decimal("9.99")]),
            "attributes": {
                key: value
                for key, value in {
                    "尺寸": random.choice(sizes),
                    "颜色": random.sample(colours, random.randrange(4))
                    + random.choices([1, 1.0, True, None, [1]], k=1),
                    "材质": random.choice([*colours, ["红", "红"]]),
                    "库存": random.choice([0, 1.5, 7, "7"]),
                }.items()
                if random.random() < 0.8
            },
        }
        for _ in range(products)
    ]


def random_filters(random: Random) -> dict[str, Any]:
    possible: dict[str, Any] = {
        "category": random.choice([["灯"], ["lamp", "椅"]]),
        "category_not": random.choice([["燈"], ["椅", "凳"]]),
        "has_category": random.random() < 0.7,
        "price_min": random.choice([0, 5, 9.99]),
        "price_max": random.choice([10, 500, 900]),
        "has_price": random.random() < 0.7,
        "attributes": dict(
            random.sample(
                [
                    ("尺寸", random.choice([40, "M", {"none_of": [40, True]}, {"min": 3, "max": 12}])),
                    ("颜色", random.choice([{"contains_any": ["红", 1]}, {"contains_all": ["蓝", "red"]}])),
                    ("材质", random.choice([{"any_of": ["红", "蓝", "Red"]}, {"is_set": False}])),
                    ("库存", random.choice([{"min": 1}, {"max": 1.5}, "7", 7])),
                ],
                k=random.randrange(1, 3),
            )
        ),
    }
    return {name: possible[name] for name in random.sample(sorted(possible), k=random.randrange(1, 4))}


def fits(product: ProductRow, filters: dict[str, Any]) -> bool:
    """As the API's documentation says it."""
    category = {"燈": "灯", "Ｌamp": "Lamp"}.get(product.category or "", product.category)
    price = product.price
    of_name: dict[str, Callable[[Any], bool]] = {
        "category": lambda wanted: category in [{"燈": "灯"}.get(each, each) for each in wanted],
        "category_not": lambda wanted: category not in [{"燈": "灯"}.get(each, each) for each in wanted],
        "has_category": lambda wanted: (category is not None) == wanted,
        "price_min": lambda wanted: price is not None and price >= Decimal(str(wanted)),
        "price_max": lambda wanted: price is not None and price <= Decimal(str(wanted)),
        "has_price": lambda wanted: (price is not None) == wanted,
        "attributes": lambda wanted: all(has(product.attributes.get(key), each) for key, each in wanted.items()),
    }
    return all(of_name[name](wanted) for name, wanted in filters.items())


def has(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return same(value, wanted)
    members = value if isinstance(value, list) else []
    of_name: dict[str, Callable[[Any], bool]] = {
        "any_of": lambda of: any(same(value, each) for each in of),
        "none_of": lambda of: not any(same(value, each) for each in of),
        "min": lambda of: is_number(value) and value >= of,
        "max": lambda of: is_number(value) and value <= of,
        "contains_any": lambda of: any(same(member, each) for member in members for each in of),
        "contains_all": lambda of: all(any(same(member, each) for member in members) for each in of),
        "is_set": lambda of: (value is not None) == of,
    }
    return all(of_name[name](of) for name, of in wanted.items())


def counted(products: Sequence[ProductRow], key: str) -> tuple[Counter[tuple[str, Any, bool]], int, int]:
    """Of an attribute: the values that are counted, how many others, how many products without."""
    values: Counter[tuple[str, Any, bool]] = Counter()
    others = missing = 0
    for product in products:
        value = product.attributes.get(key)
        is_list = isinstance(value, list)
        for each in unique(value or []) if is_list else [value]:
            if (
                isinstance(each, list | dict)
                or (each is None and is_list)
                or (isinstance(each, str) and len(each) > 200)
            ):
                others += 1
            elif each is None:
                missing += 1
            else:
                values[kind(each), each, is_list] += 1
    return values, others, missing


def unique(members: Sequence[Any]) -> list[Any]:
    """What has no value to show is one other."""
    plain = {(kind(each), each): each for each in members if isinstance(each, str | int | float)}
    return [*plain.values(), *([None] if [e for e in members if isinstance(e, list | dict) or e is None] else [])]


def kind(value: Any) -> str:
    return "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def require_counts(facet: Facet, products: Sequence[ProductRow], key: str) -> None:
    values, others, missing = counted(products, key)
    shown = Counter({(kind(each.value), each.value, each.is_member): each.count for each in facet.values})
    assert shown == values
    assert (facet.other, facet.missing) == (others, missing)
    counts = [each.count for each in facet.values]
    assert counts == sorted(counts, reverse=True)


def test_facets_count_what_the_list_has_on_200_random_filtered_queries(database: Database) -> None:
    random = Random(13)
    fill(database, random_catalogue(random, 200))
    with database.read() as session:
        everything = listed(session)
        found = 0
        for number in range(200):
            filters = random_filters(random)
            products = [each for each in everything if fits(each, filters)]
            selection = Selection(filters=SearchFilters(**filters))
            assert [each.product_id for each in listed(session, **filters)] == [each.product_id for each in products]
            keys = random.sample(["尺寸", "颜色", "材质", "库存", "没有"], k=2)
            names = ["category", "price", "attributes", *(f"attributes.{key}" for key in keys)]
            total, facets = count_facets(session, selection, names)
            assert (total, list(facets)) == (len(products), names), filters
            for key in keys:
                require_counts(facets[f"attributes.{key}"], products, key)
            require_categories_and_prices(session, facets, products, filters, number)
            require_names(facets["attributes"], products)
            found += total
            if number % 20 == 0:
                among = count_facets_among(session, [each.product_id for each in products], names)
                assert among == facets
    assert found > 200 * 10


def require_categories_and_prices(
    session: orm.Session, facets: dict[str, Facet], products: Sequence[ProductRow], filters: dict[str, Any], number: int
) -> None:
    category = facets["category"]
    assert category.missing == sum(each.category is None for each in products)
    assert sum(each.count for each in category.values) + category.missing == len(products)
    for value in category.values:  # each is found by the filter that it stands for
        same_category = [each for each in products if fits(each, {"category": [str(value.value).replace("Ｌ", "L")]})]
        assert value.count == len(same_category)
    prices = facets["price"]
    assert prices.missing == sum(each.price is None for each in products)
    assert sum(each.count for each in prices.ranges) + prices.missing == len(products)
    for each in prices.ranges:
        assert each.count == sum(p.price is not None and each.min <= p.price <= each.max for p in products) > 0


def require_names(facet: Facet, products: Sequence[ProductRow]) -> None:
    names = Counter(name for each in products for name in each.attributes)
    assert Counter({str(each.value): each.count for each in facet.values}) == names
    assert (facet.other, facet.missing) == (0, sum(not each.attributes for each in products))


def test_a_facet_shows_so_many_values_and_counts_the_rest(database: Database) -> None:
    products = [
        {"attributes": {"sku": f"{number}"}, "category": f"{number}"} for number in range(MAX_FACET_VALUES + 20)
    ]
    fill(database, [*products, products[69], {"attributes": {}}])
    with database.read() as session:
        total, facets = count_facets(session, Selection(), ["attributes.sku", "category"])
    assert total == MAX_FACET_VALUES + 22
    for facet in facets.values():
        assert (len(facet.values), facet.other, facet.missing) == (MAX_FACET_VALUES, 20, 1)
        assert (facet.values[0].value, facet.values[0].count) == ("69", 2)


def test_boosts_go_by_numbers_alone_and_by_age(database: Database) -> None:
    now = datetime(2026, 11, 27, 12, tzinfo=UTC)
    values = [*VALUES, *MORE_VALUES, 2, 6.0, -3, 2**63 - 1]
    days = [-1, 0, 10, 30, 3000]
    products = [{"attributes": {'销"量': value}, "created_at": now} for value in values]
    fill(database, [*products, *({"created_at": now - timedelta(days=each)} for each in days)])
    by_number = Boost(attribute='销"量', pivot=2, weight=0.5)
    by_age = Boost(freshness_half_life_days=10, weight=0.25)
    ids = range(1, len(values) + len(days) + 1)
    with database.read() as session:
        of_number, of_age, of_both = (
            list(lifts(session, ids, Boosting(boosts, now)).values())
            for boosts in ([by_number], [by_age], [by_number, by_age])
        )
    positive = [value if is_number(value) and value > 0 else 0 for value in values]
    assert of_number == pytest.approx([*(0.5 * value / (value + 2) for value in positive), *[0.0] * len(days)])
    assert of_age[len(values) :] == pytest.approx([0.25, 0.25, 0.125, 0.03125, 0])
    assert of_both == pytest.approx([each + other for each, other in zip(of_number, of_age, strict=True)])
    assert max(of_both) <= 0.75


def test_sqlite_too_gives_up_what_takes_too_long(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'tuwen.db'}", timeout_s=0.2)
    for_ever = sa.text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    with pytest.raises(DatabaseUnavailable), database.read_at_length() as session:
        session.execute(for_ever)
    with database.read() as session:  # its connection has no deadline any more
        assert session.scalar(sa.text("SELECT 1")) == 1
    database.close()

"""Searches that wait together: what they share, and what each keeps to itself."""

import asyncio
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from orm_models import ProductRow, ProductVectorRow, VectorIndexRow, utc_now
from tuwen.catalogue import prices
from tuwen.catalogue.prices import Prices
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import Overloaded, VectorDBUnavailable, VectorsRejected
from tuwen.search import lookup
from tuwen.search.lookup import MAX_BATCH, SPARE_HITS, Found, Lookup, Lookups
from tuwen.settings import Settings
from tuwen.vectors.registry import LiveIndex
from vector_db import VectorDB, VectorField, VectorHit, VectorRow, new_row_token

DIM = 16
PRODUCTS = 40
COLLECTION = "products"


class WatchedVectorDB(VectorDB):
    """Notes each search of Milvus: how many vectors it brought."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.calls: list[int] = []

    def search(
        self, collection: str, field: VectorField, vectors: Sequence[Vector], **how: Any
    ) -> list[list[VectorHit]]:
        self.calls.append(len(vectors))
        return super().search(collection, field, vectors, **how)


class Stores:
    def __init__(self, folder: Path) -> None:
        settings = Settings(_env_file=None, data_dir=folder)
        self.database = Database(settings.database_dsn)
        self.database.migrate()
        self.vector_db = WatchedVectorDB(settings)
        self.vector_db.create_collection(COLLECTION, clip_dim=DIM, text_dim=DIM)
        with self.database.write() as session:
            index = VectorIndexRow(
                collection=COLLECTION, model_fingerprint="f" * 64, status="active", activated_at=utc_now()
            )
            session.add(index)
            session.flush()
            self.index = LiveIndex(index.vector_index_id, COLLECTION, index.activated_at)
        for number in range(PRODUCTS):
            category, price = "even" if number % 2 == 0 else "odd", Decimal(number) if number else None
            self.add(f"product {number}", direction(number), category=category, price=price)

    def add(
        self,
        title: str,
        vector: Vector,
        *,
        category: str | None = None,
        price: Decimal | None = None,
        bound: bool = True,
        further: Sequence[Vector] = (),
    ) -> int:
        picture = {"image_path": "a.png", "image_sha256": "0" * 64, "image_width": 1, "image_height": 1}
        with self.database.write() as session:
            product = ProductRow(title=title, category=category, price=price, **picture)
            session.add(product)
            session.flush()
            product_id = product.product_id
            for position, each in enumerate((vector, *further), start=1):
                token, of_title = new_row_token(), vector if position == 1 else -vector
                row = VectorRow(product_id, token, each, of_title, of_title, "a.png", title, category, {})
                (milvus_id,) = self.vector_db.insert(COLLECTION, [row])
                if bound:
                    session.add(
                        ProductVectorRow(
                            product_id=product_id,
                            vector_index_id=self.index.vector_index_id,
                            image_position=position,
                            milvus_id=milvus_id,
                            row_token=token,
                            version=1,
                        )
                    )
        return product_id

    def lookup(self, vector: Vector, wanted: int = 3, **other: Any) -> Lookup:
        values: dict[str, Any] = {"field": "image_clip_vector", "filter_expression": "", "without_product_id": None}
        return Lookup(index=self.index, vector=vector, wanted=wanted, **(values | other))


def direction(number: int) -> Vector:
    """Of length 1, another one for each number, the same in every run."""
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def titles(found: Found) -> list[str]:
    return [hit.product.title for hit in found.hits]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    opened = Stores(tmp_path_factory.mktemp("lookup"))
    yield opened
    opened.vector_db.close()
    opened.database.close()


def find_together(stores: Stores, lookups: Sequence[Lookup], *, queue_size: int = 256) -> list[Found | BaseException]:
    async def go() -> list[Found | BaseException]:
        together = Lookups(stores.database, stores.vector_db, lanes=1, queue_size=queue_size)
        return await asyncio.gather(*(together.find(lookup) for lookup in lookups), return_exceptions=True)

    stores.vector_db.calls.clear()
    return asyncio.run(go())


def found(outcome: Found | BaseException) -> Found:
    assert isinstance(outcome, Found), outcome
    return outcome


def test_forty_searches_are_two_calls_and_each_gets_its_own_answer(stores: Stores) -> None:
    together = find_together(stores, [stores.lookup(direction(number)) for number in range(PRODUCTS)])

    assert stores.vector_db.calls == [PRODUCTS] or sum(stores.vector_db.calls) == PRODUCTS
    assert len(stores.vector_db.calls) <= 2  # the first may have gone before the others came
    for number, outcome in enumerate(together):
        alone = find_together(stores, [stores.lookup(direction(number))])[0]
        assert titles(found(outcome))[0] == f"product {number}"
        assert titles(found(outcome)) == titles(found(alone))
        assert [hit.score for hit in found(outcome).hits] == pytest.approx([hit.score for hit in found(alone).hits])


def test_fields_filters_and_limits_do_not_mix(stores: Stores) -> None:
    outcomes = find_together(
        stores,
        [
            stores.lookup(direction(2), 5),
            stores.lookup(direction(2), 20, filter_expression='category == "odd"'),
            stores.lookup(direction(2), 1, field="text_bge_vector"),
            stores.lookup(direction(2), 5, without_product_id=3),
        ],
    )

    assert [len(found(outcome).hits) for outcome in outcomes] == [5, 20, 1, 5]
    assert {hit.product.category for hit in found(outcomes[1]).hits} == {"odd"}
    assert titles(found(outcomes[0]))[0] == titles(found(outcomes[2]))[0] == "product 2"
    assert titles(found(outcomes[3])) == titles(found(find_together(stores, [stores.lookup(direction(2), 6)])[0]))[1:]


@pytest.mark.parametrize("few", [5000, 2])
@pytest.mark.parametrize("deep_limit", [2048, 4])
def test_within_prices_the_nearest_are_found_however_many_fit_and_however_far_they_are(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, few: int, deep_limit: int
) -> None:
    """Named to Milvus, picked out of the nearest, or gone through page by page."""
    for module in (prices, lookup):
        monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(lookup, "DEEP_LIMIT", deep_limit)
    everything = titles(found(find_together(stores, [stores.lookup(direction(3), PRODUCTS)])[0]))
    by_rank = [int(title.split()[1]) for title in everything]
    for wanted, lowest, highest, category in (
        (3, 1, 39, None),
        (3, by_rank[-1], by_rank[-1], None),
        (5, 10, 20, "odd"),
        (40, None, 12, None),
        (40, 30, None, "even"),
        (3, 50, None, None),
    ):
        within = Prices(
            None if lowest is None else Decimal(lowest),
            None if highest is None else Decimal(highest),
            categories=(category,) if category else (),
        )
        expression = f'category == "{category}"' if category else ""
        asked = stores.lookup(direction(3), wanted, filter_expression=expression, prices=within)
        fitting = [
            f"product {number}"
            for number in by_rank
            if (lowest or 1) <= number <= (highest or PRODUCTS)
            and category in (None, "even" if number % 2 == 0 else "odd")
        ]
        beside = stores.lookup(direction(3), 5)
        outcome, others = find_together(stores, [asked, beside])
        assert titles(found(outcome)) == fitting[:wanted]
        assert titles(found(others)) == everything[:5]


def test_products_with_a_price_and_without(stores: Stores) -> None:
    for is_set, fitting in ((True, PRODUCTS - 1), (False, 1)):
        asked = stores.lookup(direction(0), PRODUCTS, prices=Prices(None, None, is_set))
        prices_found = [hit.product.price for hit in found(find_together(stores, [asked])[0]).hits]
        assert len(prices_found) == fitting
        assert all((price is not None) == is_set for price in prices_found)
    nothing = stores.lookup(direction(0), 3, prices=Prices(Decimal(1), None, False))
    assert titles(found(find_together(stores, [nothing])[0])) == []


def test_what_milvus_cant_answer_of_one_is_not_the_others_matter(stores: Stores) -> None:
    wrong = np.ones(DIM + 1, np.float32)
    outcomes = find_together(stores, [stores.lookup(v) for v in (direction(0), wrong, direction(1))])

    assert isinstance(outcomes[1], VectorsRejected | VectorDBUnavailable)
    assert titles(found(outcomes[0]))[0] == "product 0"
    assert titles(found(outcomes[2]))[0] == "product 1"


def test_rows_that_nothing_binds_cost_no_hits(stores: Stores) -> None:
    near = direction(1000)
    strangers = [stores.add("unbound", near, bound=False) for _ in range(SPARE_HITS * 4)]
    wanted = stores.add("bound", near)

    hits = found(find_together(stores, [stores.lookup(near, 4)])[0]).hits

    assert len(hits) == 4
    assert hits[0].product.product_id == wanted
    assert not {hit.product.product_id for hit in hits} & set(strangers)


def test_past_the_bound_a_search_is_refused_at_once(stores: Stores) -> None:
    outcomes = find_together(stores, [stores.lookup(direction(0))] * 9, queue_size=4)

    assert [isinstance(outcome, Overloaded) for outcome in outcomes] == [False] * 4 + [True] * 5


def test_nobody_is_worked_for_who_has_hung_up(stores: Stores) -> None:
    async def go() -> None:
        together = Lookups(stores.database, stores.vector_db, lanes=1, queue_size=256)
        tasks = [asyncio.create_task(together.find(stores.lookup(direction(number)))) for number in range(4)]
        await asyncio.sleep(0)  # all of them wait
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.cancelled() for task in tasks] == [False, True, False, False]

    stores.vector_db.calls.clear()
    asyncio.run(go())

    assert sum(stores.vector_db.calls) == 3


def test_all_of_a_batch_hear_that_milvus_is_away(stores: Stores, tmp_path: Path) -> None:
    nobody = VectorDB(Settings(_env_file=None, data_dir=tmp_path, milvus_uri="http://127.0.0.1:9", milvus_timeout_s=1))

    async def go() -> list[Found | BaseException]:
        together = Lookups(stores.database, nobody, lanes=1, queue_size=MAX_BATCH)
        lookups = [together.find(stores.lookup(direction(number))) for number in range(5)]
        return await asyncio.gather(*lookups, return_exceptions=True)

    assert all(isinstance(outcome, VectorDBUnavailable) for outcome in asyncio.run(go()))


def test_more_hits_than_a_statement_takes_ids(stores: Stores) -> None:
    """64 searches 1,100 deep name more rows than SQLite takes values in one statement."""
    with stores.database.read() as session:
        most = session.scalar(sa.text("SELECT COUNT(*) FROM product"))
    outcomes = find_together(stores, [stores.lookup(direction(number), 1100) for number in range(MAX_BATCH)])

    assert all(len(found(outcome).hits) >= PRODUCTS for outcome in outcomes)
    assert all(len(found(outcome).hits) <= most for outcome in outcomes)


@pytest.fixture(scope="module")
def many_pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Beside the products of one picture, ten of nine pictures each, which are all near the same."""
    opened = Stores(tmp_path_factory.mktemp("many-pictures"))
    for number in range(10):
        near = [near_to(direction(500), 10 * number + each) for each in range(9)]
        opened.add(f"many {number}", near[0], further=near[1:], price=Decimal(100))
    yield opened
    opened.vector_db.close()
    opened.database.close()


def near_to(vector: Vector, number: int) -> Vector:
    moved = vector + 0.1 * direction(600 + number)
    return np.asarray(moved / np.linalg.norm(moved), np.float32)


def test_a_product_is_one_hit_by_the_best_of_its_pictures_on_whichever_page(many_pictures: Stores) -> None:
    query = direction(500)
    best = {
        f"many {number}": max(float(query @ near_to(query, 10 * number + each)) for each in range(9))
        for number in range(10)
    }
    in_order = sorted(best, key=lambda title: -best[title])
    for wanted in (1, 3, 10):
        hits = found(find_together(many_pictures, [many_pictures.lookup(query, wanted)])[0]).hits
        assert [hit.product.title for hit in hits] == in_order[:wanted]
        assert [hit.score for hit in hits] == pytest.approx([best[title] for title in in_order[:wanted]], abs=1e-5)
    everything = titles(found(find_together(many_pictures, [many_pictures.lookup(query, 50)])[0]))
    assert len(everything) == len(set(everything)) == 50


def test_where_titles_are_searched_further_pictures_are_no_hits(many_pictures: Stores) -> None:
    for query in (direction(500), -direction(500)):  # like all these titles, and as unlike as can be
        asked = many_pictures.lookup(query, 50, field="text_bge_vector")
        hits = found(find_together(many_pictures, [asked])[0]).hits
        assert len({hit.product.title for hit in hits}) == len(hits) == 50
        for hit in hits:
            number = int(hit.product.title.split()[1])
            main = near_to(direction(500), 10 * number) if "many" in hit.product.title else direction(number)
            assert hit.score == pytest.approx(float(query @ main), abs=1e-5)


@pytest.mark.parametrize("few", [5000, 4])
def test_pages_of_rows_within_prices_cut_no_product_in_two(
    many_pictures: Stores, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    for module in (prices, lookup):
        monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(lookup, "DEEP_LIMIT", 4)
    query = direction(500)
    everything = titles(found(find_together(many_pictures, [many_pictures.lookup(query, 10)])[0]))
    for field in ("image_clip_vector", "text_bge_vector"):
        asked = many_pictures.lookup(-query, 10, field=field, prices=Prices(Decimal(100), Decimal(100)))
        hits = found(find_together(many_pictures, [asked])[0]).hits
        assert sorted(hit.product.title for hit in hits) == sorted(everything)

"""Searches that wait together: what they share, and what each keeps to itself."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from data_models import Boost
from orm_models import ProductRow, ProductVectorRow, VectorIndexRow, utc_now
from tuwen.catalogue import prices
from tuwen.catalogue.boosts import Boosting
from tuwen.catalogue.prices import Prices
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import Overloaded, VectorDBUnavailable, VectorsRejected
from tuwen.search import nearest
from tuwen.search.lookup import MAX_BATCH, TURN_COST, Lookups
from tuwen.search.nearest import LEAST_LIMIT, Found, Lookup
from tuwen.search.order import Showing
from tuwen.settings import Settings
from tuwen.vectors.registry import LiveIndex
from vector_db import VectorDB, VectorField, VectorHit, VectorRow, new_row_token

DIM = 16
PRODUCTS = 40
COLLECTION = "products"


class WatchedVectorDB(VectorDB):
    """Notes each search of Milvus: how many vectors it brought, the limit, and the filter."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.calls: list[int] = []
        self.asked: list[tuple[int, str]] = []

    def search(
        self, collection: str, field: VectorField, vectors: Sequence[Vector], **how: Any
    ) -> list[list[VectorHit]]:
        self.calls.append(len(vectors))
        self.asked.append((how["limit"], how["filter_expression"]))
        return super().search(collection, field, vectors, **how)

    def sizes(self) -> list[tuple[int, int]]:
        return [(vectors, limit) for vectors, (limit, _) in zip(self.calls, self.asked, strict=True)]


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
        group_id: str | None = None,
    ) -> int:
        picture = {"image_path": "a.png", "image_sha256": "0" * 64, "image_width": 1, "image_height": 1}
        with self.database.write() as session:
            product = ProductRow(title=title, category=category, price=price, group_id=group_id, **picture)
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

    def write_attributes(self, product_id: int, text: str) -> None:
        """As no code of ours does."""
        with self.database.write() as session:
            statement = sa.text("UPDATE product SET attributes = :text WHERE id = :product_id")
            session.execute(statement, {"text": text, "product_id": product_id})

    def lookup(self, vector: Vector, wanted: int = 3, **other: Any) -> Lookup:
        values: dict[str, Any] = {
            "field": "image_clip_vector",
            "filter_expression": "",
            "without_product_ids": frozenset(),
        }
        names = ("candidates", "by_group", "sort", "boosting")
        of_showing = {name: other.pop(name) for name in names if name in other}
        return Lookup(index=self.index, vector=vector, showing=Showing(wanted, **of_showing), **(values | other))


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
    stores.vector_db.asked.clear()
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
            stores.lookup(direction(2), 5, without_product_ids=frozenset({3})),
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
    for module in (prices, nearest):
        monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(prices, "PAGE_ROWS", few)
    monkeypatch.setattr(nearest, "LEAST_LIMIT", 2)
    monkeypatch.setattr(nearest, "DEEP_LIMIT", deep_limit)
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


def test_candidates_are_the_nearest_and_nobody_waits_for_anothers(stores: Stores) -> None:
    everything = found(find_together(stores, [stores.lookup(direction(5), PRODUCTS)])[0]).hits
    ids = [hit.product.product_id for hit in everything]
    for candidates, are_all in ((7, False), (PRODUCTS - 1, False), (PRODUCTS, True), (1000, True)):
        asked = stores.lookup(direction(5), 3, candidates=candidates)
        with_candidates, plain = map(found, find_together(stores, [asked, stores.lookup(direction(5), 3)]))
        assert (list(with_candidates.candidates), with_candidates.are_all) == (ids[:candidates], are_all)
        assert titles(with_candidates) == titles(plain)
        assert plain.candidates == ()
        assert candidates < 10 or stores.vector_db.calls == [1, 1]  # of one limit they go together
    cheap = stores.lookup(direction(5), 3, candidates=1000, prices=Prices(Decimal(1), Decimal(20)))
    of_cheap = found(find_together(stores, [cheap])[0])
    assert (len(of_cheap.candidates), of_cheap.are_all) == (20, True)


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Beside the 40 products without a group 24 groups of 1 to 9, the largest of which lie together."""
    opened = Stores(tmp_path_factory.mktemp("variants"))
    for group in range(24):
        for variant in range(group % 9 + 1):
            nearby = direction(500 + group) + 0.1 * direction(1000 + group * 10 + variant)
            vector = np.asarray(nearby / np.linalg.norm(nearby), np.float32)
            opened.add(f"{group}.{variant}", vector, group_id=f"G{group}", price=Decimal(group))
    yield opened
    opened.vector_db.close()
    opened.database.close()


def groups(outcome: Found | BaseException) -> list[str]:
    return [hit.product.group_id or hit.product.title for hit in found(outcome).hits]


@pytest.mark.parametrize("seed", [508, 3, 77])
def test_ten_pages_of_groups_have_each_group_once_and_leave_none_out(variants: Stores, seed: int) -> None:
    query, top_k = direction(seed), 6
    everything = found(find_together(variants, [variants.lookup(query, 1000)])[0]).hits
    best: dict[str, str] = {}
    for hit in everything:
        best.setdefault(hit.product.group_id or hit.product.title, hit.product.title)
    assert len(best) == PRODUCTS + 24
    pages: list[str] = []
    for page in range(10):
        offset = page * top_k
        asked = variants.lookup(query, offset + top_k, by_group=True)
        outcome = find_together(variants, [asked, variants.lookup(query, 3)])[0]
        assert titles(found(outcome))[:offset] == pages
        pages += titles(found(outcome))[offset:]
        assert len(pages) == offset + top_k
    assert pages == list(best.values())[:60]
    last = found(find_together(variants, [variants.lookup(query, 100, by_group=True)])[0])
    assert titles(last) == list(best.values())


@pytest.mark.parametrize(("few", "deep_limit"), [(5000, 2048), (5, 2048), (5, 10)])
def test_groups_within_prices(variants: Stores, monkeypatch: pytest.MonkeyPatch, few: int, deep_limit: int) -> None:
    for module in (prices, nearest):
        monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(prices, "PAGE_ROWS", few)
    monkeypatch.setattr(nearest, "LEAST_LIMIT", 2)
    monkeypatch.setattr(nearest, "DEEP_LIMIT", deep_limit)
    within = Prices(Decimal(7), Decimal(23))
    everything = found(find_together(variants, [variants.lookup(direction(508), 1000, prices=within)])[0]).hits
    best = list(dict.fromkeys(hit.product.group_id or hit.product.title for hit in everything))
    for wanted in (1, 5, 12, 100):
        asked = variants.lookup(direction(508), wanted, by_group=True, prices=within, candidates=4)
        outcome = found(find_together(variants, [asked])[0])
        assert groups(outcome) == best[:wanted]
        assert list(outcome.candidates) == [hit.product.product_id for hit in everything[:4]]


@pytest.mark.parametrize("by_group", [False, True])
def test_the_relevant_are_sorted_on_all_pages_alike(variants: Stores, by_group: bool) -> None:
    query, relevant = direction(508), 50
    all_relevant = found(find_together(variants, [variants.lookup(query, relevant)])[0]).hits
    for sort, sign in (("price", 1), ("-price", -1)):

        def key(hit: Any, sign: int = sign) -> Any:
            return (hit.product.price is None, sign * (hit.product.price or 0))

        expected = sorted(all_relevant, key=key)
        if by_group:
            expected = list({hit.product.group_id or hit.product.title: hit for hit in reversed(expected)}.values())
            expected.sort(key=key)
        for wanted in (3, 20, 70):
            asked = variants.lookup(query, wanted, sort=sort, candidates=relevant, by_group=by_group)
            outcome = found(find_together(variants, [asked, variants.lookup(query, 3)])[0])
            prices_found = [hit.product.price for hit in outcome.hits]
            assert prices_found == [hit.product.price for hit in expected[:wanted]]
            if not by_group:
                assert titles(outcome) == [hit.product.title for hit in expected[:wanted]]


@pytest.mark.parametrize("by_group", [False, True])
def test_the_relevant_are_boosted_on_all_pages_alike_and_keep_their_score(variants: Stores, by_group: bool) -> None:
    query, relevant = -direction(508), 120  # the last of which have scores below 0
    by_score = found(find_together(variants, [variants.lookup(query, relevant)])[0]).hits
    for hit in by_score:
        variants.write_attributes(hit.product.product_id, f'{{"sales": {hit.product.product_id % 7}}}')
    boosting = Boosting.by([Boost(attribute="sales", pivot=3, weight=0.7)])
    boosted = {
        hit.product.product_id: hit.score
        + abs(hit.score) * 0.7 * (hit.product.product_id % 7) / (hit.product.product_id % 7 + 3)
        for hit in by_score
    }
    assert min(hit.score for hit in by_score) < 0 < max(hit.score for hit in by_score)
    expected = sorted(by_score, key=lambda hit: -boosted[hit.product.product_id])
    if by_group:
        expected = list({hit.product.group_id or hit.product.title: hit for hit in reversed(expected)}.values())
        expected.sort(key=lambda hit: -boosted[hit.product.product_id])
    for wanted in (3, 20, 70):
        asked = variants.lookup(query, wanted, boosting=boosting, candidates=relevant, by_group=by_group)
        outcome = found(find_together(variants, [asked, variants.lookup(query, 3)])[0])
        assert titles(outcome) == [hit.product.title for hit in expected[:wanted]]
        assert [hit.score for hit in outcome.hits] == pytest.approx([hit.score for hit in expected[:wanted]])
        shown = [boosted[hit.product.product_id] for hit in outcome.hits]
        assert [hit.boosted_score for hit in outcome.hits] == pytest.approx(shown)
        assert list(outcome.candidates) == [hit.product.product_id for hit in by_score]


def test_of_candidates_too_what_cant_be_read_is_left_out(variants: Stores) -> None:
    query = direction(508)
    first, *others = found(find_together(variants, [variants.lookup(query, 5)])[0]).hits
    variants.write_attributes(first.product.product_id, "null")
    outcome = found(find_together(variants, [variants.lookup(query, 4, candidates=20)])[0])
    variants.write_attributes(first.product.product_id, "{}")
    assert [hit.product.product_id for hit in outcome.hits] == [hit.product.product_id for hit in others]


def test_products_with_a_price_and_without(stores: Stores) -> None:
    for is_set, fitting in ((True, PRODUCTS - 1), (False, 1)):
        asked = stores.lookup(direction(0), PRODUCTS, prices=Prices(None, None, is_set))
        prices_found = [hit.product.price for hit in found(find_together(stores, [asked])[0]).hits]
        assert len(prices_found) == fitting
        assert all((price is not None) == is_set for price in prices_found)
    nothing = stores.lookup(direction(0), 3, prices=Prices(Decimal(1), None, False))
    assert titles(found(find_together(stores, [nothing])[0])) == []


def test_who_wants_few_is_asked_for_alike_whoever_waits_beside(stores: Stores) -> None:
    """HNSW's `ef` follows the limit, and so does the price."""

    def asked_for(*lookups: Lookup) -> list[tuple[int, int]]:
        find_together(stores, lookups)
        return stores.vector_db.sizes()

    ((_, alone),) = asked_for(stores.lookup(direction(1), 10))
    ((_, deep),) = asked_for(stores.lookup(direction(2), 1100))
    few = [stores.lookup(direction(number), 10) for number in range(9)]
    together = asked_for(*few, stores.lookup(direction(2), 1100))

    assert alone < 64 < deep
    assert sorted(together) == [(1, deep), (9, alone)] or sorted(together) == [(1, alone), (1, deep), (8, alone)]
    priced = stores.lookup(direction(2), 10, prices=Prices(Decimal(1), None))
    assert {limit for _, limit in asked_for(*few, priced)} == {alone}


def test_a_turn_is_bounded(stores: Stores) -> None:
    find_together(stores, [stores.lookup(direction(number), 500) for number in range(30)])

    costs = [vectors * limit for vectors, limit in stores.vector_db.sizes()]
    assert max(costs) <= TURN_COST < sum(costs)


def test_what_takes_many_steps_leaves_the_lane_between_them(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it others come for few all the time: each waits for one step of it, not for all, and it gets done."""
    monkeypatch.setattr(prices, "PAGE_ROWS", 4)
    monkeypatch.setattr(nearest, "WIDER", 1)
    monkeypatch.setattr(nearest, "DEEP_LIMIT", 2)
    paging = stores.lookup(direction(3), 25, prices=Prices(Decimal(1), Decimal(25)))

    async def go() -> Found:
        together = Lookups(stores.database, stores.vector_db, lanes=1, queue_size=256)
        long = asyncio.create_task(together.find(paging))

        async def others() -> None:
            while not long.done():
                await together.find(stores.lookup(direction(1), 1))

        await asyncio.gather(*(others() for _ in range(3)))
        return await long

    stores.vector_db.asked.clear()
    hits = asyncio.run(go()).hits

    assert len(hits) == 25
    is_page = ["id in" in expression for _, expression in stores.vector_db.asked]
    assert sum(is_page) >= 6
    assert not any(before and this for before, this in itertools.pairwise(is_page))


def test_within_prices_that_many_fit_the_nearest_of_all_are_asked_for_together(stores: Stores) -> None:
    """Each by its own rows' names was a call each, 30 times as long."""
    within = [Prices(Decimal(1), Decimal(39) + Decimal(number) / 100) for number in range(PRODUCTS)]
    lookups = [stores.lookup(direction(number), prices=each) for number, each in enumerate(within)]
    for number, outcome in enumerate(find_together(stores, lookups)):
        assert titles(found(outcome))[0] == f"product {number}" or number == 0

    assert sum(stores.vector_db.calls) == PRODUCTS
    assert len(stores.vector_db.calls) <= 2
    assert {expression for _, expression in stores.vector_db.asked} == {""}


def test_a_product_that_cant_be_read_is_left_out_and_logged_once(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    """Its attributes are no object: by a restore, or another program."""
    near = direction(3000)
    broken = stores.add("broken", near)
    stores.add("whole", near)
    stores.write_attributes(broken, "null")

    together = find_together(stores, [stores.lookup(near)] * 3 + [stores.lookup(direction(1))])
    stores.write_attributes(broken, "{}")

    assert [titles(found(outcome))[0] for outcome in together] == ["whole"] * 3 + ["product 1"]
    assert not any("broken" in titles(found(outcome)) for outcome in together)
    (logged,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"Product {broken} is left out" in logged


def test_what_fails_unexpectedly_fails_those_alone_who_meet_it(stores: Stores) -> None:
    broken = stores.add("broken", direction(3001), category="apart")
    stores.write_attributes(broken, "no JSON")
    apart = stores.lookup(direction(3001), filter_expression='category == "apart"')
    others = [stores.lookup(direction(number), filter_expression='category == "even"') for number in range(0, 20, 2)]

    together = find_together(stores, [*others[:5], apart, *others[5:]])
    stores.write_attributes(broken, "{}")

    assert isinstance(together.pop(5), ValueError)
    assert [titles(found(outcome))[0] for outcome in together] == [f"product {number}" for number in range(0, 20, 2)]


def test_what_milvus_cant_answer_of_one_is_not_the_others_matter(stores: Stores) -> None:
    wrong = np.ones(DIM + 1, np.float32)
    outcomes = find_together(stores, [stores.lookup(v) for v in (direction(0), wrong, direction(1))])

    assert isinstance(outcomes[1], VectorsRejected | VectorDBUnavailable)
    assert titles(found(outcomes[0]))[0] == "product 0"
    assert titles(found(outcomes[2]))[0] == "product 1"


def test_rows_that_nothing_binds_cost_no_hits(stores: Stores) -> None:
    near = direction(1000)
    strangers = [stores.add("unbound", near, bound=False) for _ in range(LEAST_LIMIT)]
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
    for module in (prices, nearest):
        monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(prices, "PAGE_ROWS", few)
    monkeypatch.setattr(nearest, "LEAST_LIMIT", 2)
    monkeypatch.setattr(nearest, "DEEP_LIMIT", 4)
    query = direction(500)
    everything = titles(found(find_together(many_pictures, [many_pictures.lookup(query, 10)])[0]))
    for field in ("image_clip_vector", "text_bge_vector"):
        asked = many_pictures.lookup(-query, 10, field=field, prices=Prices(Decimal(100), Decimal(100)))
        hits = found(find_together(many_pictures, [asked])[0]).hits
        assert sorted(hit.product.title for hit in hits) == sorted(everything)

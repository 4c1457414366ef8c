"""What a change of a product costs: the price nothing, and what is there already nothing either."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import sqlalchemy as sa

from data_models import BatchRow, ProductChanges, ProductFields, SearchFilters, SearchMode, SearchRequest
from orm_models import IdempotencyKeyRow, ProductRow, ProductVectorRow
from tests.conftest import picture
from tests.indexing.shop import Shop, lose_picture, run
from tuwen.catalogue.idempotency import KEEP_KEYS, KeyedRequest
from tuwen.encoders.base import Vector
from tuwen.indexing.old_records import delete_old_records
from tuwen.pictures.checks import check_image
from tuwen.settings import Settings
from tuwen.vectors.binding import row_at_version
from vector_db import VectorField

VECTOR_NAMES: tuple[VectorField, ...] = ("image_clip_vector", "text_clip_vector", "text_bge_vector")
ENCODED = {("picture", "encoded"): 1, ("title", "encoded"): 1}
KEPT = {("picture", "kept"): 1, ("title", "kept"): 1}


def change(shop: Shop, product_id: int, color: str | None = None, **changes: Any) -> int:
    """Returns the version."""
    image = check_image(picture(color), shop.services.settings) if color else None
    return shop.writer.change(product_id, ProductChanges(**changes), image).version


def encoded_and_kept(shop: Shop) -> dict[tuple[str, str], int]:
    """Since this was last asked."""
    counts = {tuple(kind): count for kind, count in shop.services.vector_counts.items()}
    shop.services.vector_counts.clear()
    return {(of, how): count for (of, how), count in counts.items()}


async def require_vectors_of(shop: Shop, product_id: int) -> dict[VectorField, Vector]:
    """Bound are those that its picture and title give."""
    services, index = shop.services, shop.services.registry.live()
    with services.database.read() as session:
        product = session.get_one(ProductRow, product_id)
        row = row_at_version(session, index.vector_index_id, product_id, product.content_version)
    assert row is not None
    stored = services.vector_db.stored_vectors(index.collection, [*VECTOR_NAMES], [row])[row]
    prepared = await services.decoder.stored_picture(services.images.read(product.image_path), index.encoding.prepare)
    fresh = (
        await index.encoding.clip_images.bulk(prepared),
        await index.encoding.clip_texts.bulk(product.title),
        await index.encoding.text_documents.bulk(product.title),
    )
    for name, vector in zip(VECTOR_NAMES, fresh, strict=True):
        assert stored[name] @ vector > 0.9995  # in half precision it depends on the batch
    return stored


async def found_within(shop: Shop, lowest: int, highest: int) -> list[tuple[str, float | None]]:
    filters = SearchFilters(price_min=Decimal(lowest), price_max=Decimal(highest))
    request = SearchRequest(mode=SearchMode.TEXT_TO_TEXT, text="沙发", filters=filters)
    hits = (await shop.searcher.search(request)).hits
    return [(hit.product.title, float(hit.product.price) if hit.product.price is not None else None) for hit in hits]


def test_a_price_is_found_at_once_and_nothing_is_indexed_for_it(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, lamp = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        await shop.ingestor.ingest(shop.messages())
        bound, events = shop.bound(), len(shop.messages())
        assert change(shop, sofa, price=Decimal("9.99"), sku="SOFA-1") == 2
        assert shop.status(sofa) == ("indexed", None)
        assert await found_within(shop, 5, 10) == [("红色沙发", 9.99)]
        assert change(shop, sofa, price=Decimal(20)) == 3
        assert await found_within(shop, 5, 10) == []
        assert await found_within(shop, 20, 20) == [("红色沙发", 20.0)]
        change(shop, lamp, price=None)
        assert await found_within(shop, 0, 100) == [("红色沙发", 20.0)]
        assert (shop.bound(), len(shop.messages())) == (bound, events)
        assert shop.look() == shop.mend()  # no drift
        similar = SearchRequest(mode=SearchMode.IMAGE_TO_IMAGE, product_id=sofa)
        assert [hit.product.product_id for hit in (await shop.searcher.search(similar)).hits] == [lamp]

    run(on_both_databases, scenario)


def test_what_is_there_already_is_no_change(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        change(shop, sofa, price=Decimal("9.90"), category="沙发", attributes={"n": 1, "ok": True, "of": [1.5, None]})
        await shop.ingestor.ingest(shop.messages())
        events = len(shop.messages())
        attributes = {"of": [1.5, None], "ok": True, "n": 1}
        same = change(shop, sofa, "red", title="红色沙发", price=Decimal("9.9"), category="沙发", attributes=attributes)
        assert (same, len(shop.messages()), shop.status(sofa)[0]) == (2, events, "indexed")
        assert change(shop, sofa, attributes=attributes | {"n": True}) == 3  # which Python finds equal
        assert shop.status(sofa)[0] == "pending"

    run(on_both_databases, scenario)


def test_only_what_changed_is_encoded(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, lamp = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        steps: list[tuple[Callable[[], object], dict[tuple[str, str], int]]] = [
            (lambda: None, {("picture", "encoded"): 2, ("title", "encoded"): 2}),
            (lambda: change(shop, sofa, category="沙发", attributes={"库存": 3}), KEPT),
            (lambda: change(shop, sofa, title="紫色沙发"), {("picture", "kept"): 1, ("title", "encoded"): 1}),
            (lambda: change(shop, sofa, "green"), {("picture", "encoded"): 1, ("title", "kept"): 1}),
            (lambda: change(shop, sofa, title=" 紫色\u200b沙发"), KEPT),  # the same to all models
            (lambda: shop.writer.reindex(sofa), ENCODED),
            (lambda: lose_row(shop, sofa), {}),
            (lambda: change(shop, sofa, category="床"), ENCODED),
        ]
        before: dict[VectorField, Vector] = {}
        for step, costs in steps:
            step()
            await shop.ingestor.ingest(shop.messages())
            assert encoded_and_kept(shop) == costs
            if costs:
                assert shop.in_milvus() == set(shop.bound().values())
                after = await require_vectors_of(shop, sofa)
                same = [name for name in VECTOR_NAMES if before and np.array_equal(before[name], after[name])]
                assert set(same) >= {
                    name for name in VECTOR_NAMES if ("picture" if "image" in name else "title", "kept") in costs
                }
                before = after
        filters = SearchFilters(category=["床"], attributes={"库存": 3})
        request = SearchRequest(mode=SearchMode.TEXT_TO_TEXT, text="沙发", filters=filters)
        assert [hit.product.product_id for hit in (await shop.searcher.search(request)).hits] == [sofa]
        await require_vectors_of(shop, lamp)

    run(on_both_databases, scenario)


def lose_row(shop: Shop, product_id: int) -> None:
    shop.services.vector_db.delete(shop.services.registry.live().collection, [shop.bound()[product_id]], [product_id])


def test_a_vector_is_taken_over_from_no_other_product_though_its_id_be_the_same(settings: Settings) -> None:
    """As after Milvus was restored, and gave an id a second time."""

    async def scenario(shop: Shop) -> None:
        sofa, lamp = shop.create("红色沙发"), shop.create("蓝色灯", "blue")
        await shop.ingestor.ingest(shop.messages())
        bound = shop.bound()
        with shop.services.database.write() as session:
            lost = session.get_one(ProductVectorRow, (lamp, shop.services.registry.live().vector_index_id, 1))
            session.delete(lost)
            session.flush()
            session.execute(sa.update(ProductVectorRow).values(milvus_id=bound[lamp]))
        encoded_and_kept(shop)
        change(shop, sofa, category="沙发")
        await shop.ingestor.index_products([sofa])
        assert encoded_and_kept(shop) == ENCODED
        await require_vectors_of(shop, sofa)

    run(settings, scenario)


def test_a_price_that_changes_while_its_product_is_indexed_costs_no_second_time(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        ingesting = asyncio.create_task(shop.ingestor.index_products([sofa]))
        version = 1
        while not ingesting.done():
            version = change(shop, sofa, price=Decimal(version))
            await asyncio.sleep(0)
        assert version > 1
        assert shop.status(sofa) == ("indexed", None)
        assert set(shop.bound()) == {sofa}
        assert 1 < len(shop.messages()) <= version  # said again while it waits, should the first be lost

    run(settings, scenario)


def test_a_lost_picture_that_is_sent_again_brings_its_product_back(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        lose_picture(shop, sofa)
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(sofa)[0] == "failed"
        assert change(shop, sofa, price=Decimal(1)) == 2
        assert shop.status(sofa)[0] == "failed"
        assert change(shop, sofa, "red") == 2
        await shop.ingestor.ingest(shop.messages())
        assert shop.status(sofa) == ("indexed", None)

    run(settings, scenario)


def test_calls_with_many_rows_at_once_neither_block_nor_mix_each_other(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        product_ids = [shop.create(f"商品 {number}") for number in range(20)]
        for product_id in product_ids:
            change(shop, product_id, sku=f"SKU-{product_id}")
        skus = [f"SKU-{product_id}" for product_id in product_ids]

        def feed(worker: int) -> None:
            for call in range(5):
                ordered = skus if worker % 2 else skus[::-1]
                rows = {
                    number: BatchRow(sku=sku, price=Decimal(worker * 10 + call)) for number, sku in enumerate(ordered)
                }
                results = shop.writer.change_many(rows)
                assert [each.status for each in results] == ["changed"] * len(skus)

        await asyncio.gather(*(asyncio.to_thread(feed, worker) for worker in range(4)))
        with shop.services.database.read() as session:
            products = list(session.scalars(sa.select(ProductRow)))
        assert len({product.price for product in products}) == 1  # each call was one transaction
        assert {product.version for product in products} == {2 + 4 * 5}

    run(on_both_databases, scenario)


def test_keys_of_requests_go_after_a_day(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        database = shop.services.database
        image, fields = check_image(picture(), shop.services.settings), ProductFields(title="红色沙发")
        old, new = (KeyedRequest.of(key, fields, image) for key in ("old", "new"))
        for key in (old, new, old):
            shop.writer.create(fields, image, key)
        with database.write() as session:
            session.get_one(IdempotencyKeyRow, "old").created_at -= KEEP_KEYS
        delete_old_records(database, timedelta(days=1), lambda: None)
        with database.read() as session:
            assert list(session.scalars(sa.select(IdempotencyKeyRow.idempotency_key))) == ["new"]
            assert session.scalar(sa.select(sa.func.count()).select_from(ProductRow)) == 2

    run(on_both_databases, scenario)

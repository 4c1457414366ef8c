"""What a change of a product costs: the price nothing, and what is there already nothing either."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from data_models import ProductChanges, SearchFilters, SearchMode, SearchRequest
from orm_models import ProductRow
from tests.conftest import picture
from tests.indexing.shop import Shop, lose_picture, run
from tuwen.indexing.drift import Pass
from tuwen.indexing.picture_drift import _mark_lost
from tuwen.pictures.checks import check_image
from tuwen.settings import Settings


def change(shop: Shop, product_id: int, color: str | None = None, **changes: Any) -> int:
    """Returns the version."""
    image = check_image(picture(color), shop.services.settings) if color else None
    return shop.writer.change(product_id, ProductChanges(**changes), image).version


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


def test_the_same_picture_that_comes_while_it_is_found_lost_does_not_leave_its_product_failed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.ingest(shop.messages())
        lose_picture(shop, sofa)
        services = shop.services
        stores = services.settings, services.database, services.vector_db, services.images
        write = services.database.write
        sent: list[int] = []

        def send_before_it_is_marked() -> Any:
            if not sent:
                sent.append(0)
                sent[0] = change(shop, sofa, "red")
            return write()

        monkeypatch.setattr(services.database, "write", send_before_it_is_marked)
        _mark_lost(Pass(*stores, services.registry.live()), [sofa])
        assert sent == [1]
        assert shop.status(sofa)[0] == "pending"
        await shop.ingestor.ingest(shop.messages())
        with services.database.read() as session:
            assert session.get_one(ProductRow, sofa).index_status == "indexed"

    run(settings, scenario)

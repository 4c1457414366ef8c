"""Several pictures a product: a row in Milvus for each, bound together, mended, and gone together."""

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from orm_models import ProductImageRow
from tests.conftest import picture
from tests.indexing.change import Change
from tests.indexing.shop import Mended, Shop, age_pictures, run
from tests.indexing.test_changes import encoded_and_kept
from tuwen.catalogue.pictures import without_picture
from tuwen.indexing.drift import Graces
from tuwen.pictures.checks import check_image
from tuwen.settings import Settings
from vector_db import VectorRow

NO_GRACES = Graces(pending=timedelta(0), queued_again=timedelta(0), unbound=timedelta(0), image=timedelta(0))
COLORS = ("red", "green", "blue")


def all_rows(shop: Shop) -> set[int]:
    return {row for rows in shop.all_bound().values() for row in rows.values()}


def lose_row(shop: Shop, product_id: int, position: int) -> None:
    row = shop.all_bound()[product_id][position]
    shop.services.vector_db.delete(shop.services.registry.live().collection, [row], [product_id])


def test_all_rows_of_a_product_are_bound_together_mended_and_go_together(on_both_databases: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa, lamp = shop.create("红色沙发", *COLORS), shop.create("蓝色灯", "black")
        await shop.ingestor.ingest(shop.messages())
        assert {each: len(rows) for each, rows in shop.all_bound().items()} == {sofa: 3, lamp: 1}
        assert shop.in_milvus() == all_rows(shop)
        assert encoded_and_kept(shop) == {("picture", "encoded"): 4, ("title", "encoded"): 2}
        assert shop.look() == Mended()
        for position in (3, 1):  # a further one, and the main one with the title's vectors
            lose_row(shop, sofa, position)
            assert shop.look().bindings_without_vector == 1
            assert shop.mend().bindings_without_vector == 1
            assert shop.status(sofa) == ("pending", None)
            left = set(shop.all_bound()[sofa])
            assert left == {1, 2, 3} - {position}
            await shop.ingestor.ingest(shop.messages()[-1:])
            assert shop.status(sofa) == ("indexed", None)
            costs = {("picture", "encoded"): 1, ("picture", "kept"): 2}
            assert encoded_and_kept(shop) == costs | {("title", "encoded" if position == 1 else "kept"): 1}
            assert shop.in_milvus() == all_rows(shop)
            assert len(shop.all_bound()[sofa]) == 3
        shop.writer.delete(sofa)
        await shop.ingestor.ingest(shop.messages()[-1:])
        assert shop.in_milvus() == {shop.bound()[lamp]}
        with shop.services.database.read() as session:
            assert session.scalars(sa.select(ProductImageRow)).all() == []

    run(on_both_databases, scenario)


def test_no_sweep_removes_a_further_picture_and_one_that_is_lost_is_named(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发", *COLORS)
        await shop.ingestor.ingest(shop.messages())
        age_pictures(shop)
        assert shop.mend(graces=NO_GRACES) == Mended()
        with shop.services.database.read() as session:
            lost = session.get_one(ProductImageRow, (sofa, 2))
        images = shop.services.images
        images.remove_aside(lost.image_path, images.set_aside(lost.image_path))
        assert shop.mend().products_without_image == 1
        reason = f"Picture 2: There is no picture {lost.image_path}."
        assert shop.status(sofa) == ("failed", reason)
        assert shop.in_milvus() == set()
        shop.writer.reindex(sofa)
        await shop.ingestor.ingest(shop.messages()[-1:])
        assert shop.status(sofa) == ("failed", reason)  # ingestion says the same
        shop.writer.change_pictures(sofa, lambda each: without_picture(each, sofa, lost.image_sha256))
        await shop.ingestor.ingest(shop.messages()[-1:])
        assert shop.status(sofa) == ("indexed", None)
        assert len(shop.all_bound()[sofa]) == 2
        shop.writer.delete(sofa)
        await shop.ingestor.ingest(shop.messages()[-1:])
        age_pictures(shop)
        assert shop.mend(graces=NO_GRACES).images_without_product == 2

    run(settings, scenario)


def test_a_picture_that_is_added_while_a_product_is_encoded_waits_for_its_turn(settings: Settings) -> None:
    """Half a product is never bound as all of it."""

    async def scenario(shop: Shop) -> None:
        sofa, services = shop.create("红色沙发", "red", "green"), shop.services
        insert = services.vector_db.insert

        def insert_late(collection: str, rows: Sequence[VectorRow]) -> list[int]:
            services.vector_db.insert = insert  # type: ignore[method-assign]
            image = check_image(picture("blue"), services.settings)
            shop.writer.add_picture(sofa, image, lambda pictures, new: [*pictures, new])
            return insert(collection, rows)

        services.vector_db.insert = insert_late  # type: ignore[method-assign]
        await shop.ingestor.index_products([sofa])
        assert (shop.status(sofa)[0], shop.all_bound()) == ("pending", {})
        await shop.ingestor.index_products([sofa])
        assert (shop.status(sofa)[0], len(shop.all_bound()[sofa])) == ("indexed", 3)
        assert shop.in_milvus() == all_rows(shop)

    run(settings, scenario)


def test_a_change_of_the_models_makes_all_rows(settings: Settings, other_models: dict[str, str]) -> None:
    async def scenario(shop: Shop) -> None:
        products = [shop.create(f"沙发 {number}", *COLORS[: number + 1]) for number in range(3)]
        await shop.ingestor.ingest(shop.messages())
        change = Change(shop)
        queries = [
            {"text": f"沙发 {number}", "mode": "text_to_text", "product_id": products[number]} for number in (1, 2)
        ]
        job = await change.run(queries=queries, **other_models)
        assert (job.status, job.recall_live, job.recall_new) == ("done", 1.0, 1.0), job
        collection = shop.services.registry.look().collection
        keys = [key for page in shop.services.vector_db.iterate_rows(collection) for key in page]
        assert sorted(key.product_id for key in keys) == [
            product_id for number, product_id in enumerate(products) for _ in range(number + 1)
        ]
        assert shop.look() == Mended()

    run(settings, scenario)

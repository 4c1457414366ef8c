"""What the faults' harness (`tests/faults/checker.py`) looks for in the stores, it finds where it is planted."""

from pathlib import Path

import numpy as np

from tests.faults.checker import check_stores
from tests.indexing.shop import Shop, run
from tuwen.settings import Settings
from vector_db import VectorRow, new_row_token


def found(shop: Shop) -> set[str]:
    """Without what waits in the outbox, which no relay empties here."""
    return {each.kind for each in check_stores(shop.services) if "never sent" not in each.what}


def row_of(shop: Shop, product_id: int) -> VectorRow:
    encoders = shop.services.encoding.encoders
    return VectorRow(
        product_id,
        new_row_token(),
        image_clip_vector=np.ones(encoders.clip.dim, np.float32),
        text_clip_vector=np.ones(encoders.clip.dim, np.float32),
        text_bge_vector=np.ones(encoders.text.dim, np.float32),
        image_path="",
        title="沙发",
        category=None,
        attributes={},
    )


def test_each_kind_of_disagreement_is_seen(settings: Settings) -> None:
    async def scenario(shop: Shop) -> None:
        collection, vector_db = shop.services.registry.live().collection, shop.services.vector_db
        sofa = shop.create("红色沙发")
        assert {"stuck", "lost"} == found(shop)  # pending, and not bound
        await shop.ingestor.index_products([sofa])
        assert not found(shop)
        planted = vector_db.insert(collection, [row_of(shop, sofa)])
        assert found(shop) == {"duplicates"}
        vector_db.delete(collection, planted, [sofa])
        planted = vector_db.insert(collection, [row_of(shop, sofa + 1)])
        assert found(shop) == {"orphans"}
        vector_db.delete(collection, planted, [sofa + 1])
        assert not found(shop)
        vector_db.delete(collection, list(shop.bound().values()), [sofa])
        assert found(shop) == {"lost"}
        await shop.ingestor.index_products([sofa])

    run(settings, scenario)


def test_pictures_that_are_missing_or_nobodys_are_seen(settings: Settings, tmp_path: Path) -> None:
    async def scenario(shop: Shop) -> None:
        sofa = shop.create("红色沙发")
        await shop.ingestor.index_products([sofa])
        [picture] = [path for path in (tmp_path / "images").rglob("*.png") if "thumbnails" not in path.parts]
        assert not found(shop)
        picture.rename(picture.with_name("0" * 64 + ".png"))
        assert found(shop) == {"lost", "orphans"}

    run(settings, scenario)

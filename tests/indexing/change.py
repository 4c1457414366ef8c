"""A shop's change of its models, as several test modules make it."""

from typing import Any

import sqlalchemy as sa

from data_models import ReindexJob, ReindexRequest, SearchMode, SearchRequest
from orm_models import VectorIndexRow
from tests.indexing.shop import Shop
from tuwen.assembly import new_reindexer
from tuwen.indexing.reindex_jobs import ReindexJobs

TITLES = [f"{color}{thing}" for color in ("红色", "蓝色", "绿色") for thing in ("沙发", "椅子", "餐桌", "书柜", "床灯")]


class Change:
    """A shop's change of its models."""

    def __init__(self, shop: Shop) -> None:
        self.shop, services = shop, shop.services
        self.jobs = ReindexJobs(services.settings, services.database, services.vector_db, services.registry)

    def begin(self, **request: Any) -> ReindexJob:
        return self.jobs.create(ReindexRequest(**request))

    async def run(self, **request: Any) -> ReindexJob:
        job = self.begin(**request)
        await new_reindexer(self.shop.services).take_turn()
        return self.jobs.read(job.job_id)

    def indexes(self) -> dict[str, str]:
        """Collection → status."""
        with self.shop.services.database.read() as session:
            return {row.collection: row.status for row in session.scalars(sa.select(VectorIndexRow))}

    async def index_of_a_search(self) -> str:
        found = await self.shop.searcher.search(SearchRequest(mode=SearchMode.TEXT_TO_TEXT, text="沙发"))
        return found.index.collection


async def fill(shop: Shop, titles: list[str] = TITLES) -> list[int]:
    product_ids = [shop.create(title, f"#{number * 16:02x}80{number * 8:02x}") for number, title in enumerate(titles)]
    await shop.ingestor.ingest(shop.messages())
    return product_ids

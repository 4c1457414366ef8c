"""What the routes work with: built by the lifespan, handed to each request by dependency."""

from dataclasses import dataclass, replace
from typing import Annotated, Self, TypedDict

from fastapi import Depends, Path, Request

from tuwen.access.keyring import Keyring
from tuwen.access.rates import RateLimiter
from tuwen.access.slots import Slots
from tuwen.api.metrics import Metrics
from tuwen.api.probes import Probes
from tuwen.assembly import Services
from tuwen.background import WorkPool
from tuwen.catalogue.picture_store import pictures_of_shop
from tuwen.catalogue.products import ProductWriter
from tuwen.generation.jobs import GenerationJobs
from tuwen.importing.jobs import ImportJobs
from tuwen.indexing.reindex_jobs import ReindexJobs
from tuwen.messaging.transport import MessageSender
from tuwen.search.searcher import Searcher
from tuwen.settings import Settings
from tuwen.twins.finder import DuplicateFinder
from tuwen.twins.reports import DuplicateReports


class Threads:
    """For routes that block. Each kind has its own, so that a store that hangs takes nothing else with it."""

    def __init__(self) -> None:
        self.reads = WorkPool("reading", threads=8, max_waiting=200)
        self.counts = WorkPool("counting", threads=2, max_waiting=20)
        self.writes = WorkPool("writing", threads=16, max_waiting=200)
        self.uploads = WorkPool("storing pictures", threads=16, max_waiting=200)
        self.pictures = WorkPool("pictures", threads=16, max_waiting=200)


class Lasting:
    """What one client alone must not fill."""

    def __init__(self, settings: Settings) -> None:
        self.uploads = Slots("uploads", settings.uploads_at_once, settings.uploads_per_client)
        self.streams = Slots("streams", settings.streams_at_once, settings.streams_per_client)


@dataclass(frozen=True)
class Api:
    """To a route, its caller's: `GuardedRoute` hands out no other."""

    services: Services
    sender: MessageSender
    searcher: Searcher
    writer: ProductWriter
    generation: GenerationJobs
    reindex: ReindexJobs
    imports: ImportJobs
    keyring: Keyring
    limiter: RateLimiter
    lasting: Lasting
    metrics: Metrics
    threads: Threads
    probes: Probes

    @property
    def finder(self) -> DuplicateFinder:
        services = self.services
        return DuplicateFinder(services.database, services.vector_db, services.images, services.registry)

    @property
    def reports(self) -> DuplicateReports:
        return DuplicateReports(self.services.database)

    def of_shop(self, shop_id: str) -> Self:
        """With the data of one shop alone; what knows no products and pictures is all shops'."""
        database = self.services.database.of_shop(shop_id)
        images = pictures_of_shop(self.services.images, database)
        return replace(
            self,
            services=replace(self.services, database=database, images=images),
            searcher=self.searcher.of_shop(shop_id),
            writer=self.writer.of_shop(shop_id),
            generation=self.generation.of_shop(shop_id),
            imports=self.imports.of_shop(shop_id),
        )


class State(TypedDict):
    api: Api


async def get_api(request: Request) -> Api:  # async: it must not wait for the threads that others hang on
    api: Api = request.state.api
    return api


ApiDependency = Annotated[Api, Depends(get_api)]
ProductId = Annotated[int, Path(ge=1, le=2**63 - 1)]
JobId = Annotated[int, Path(ge=1, le=2**63 - 1)]

"""What the routes work with: built by the lifespan, handed to each request by dependency."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

from fastapi import Depends, Path, Request

from tuwen.api.metrics import Metrics
from tuwen.assembly import Services
from tuwen.background import WorkPool
from tuwen.catalogue.products import ProductWriter
from tuwen.generation.jobs import GenerationJobs
from tuwen.messaging.transport import MessageSender
from tuwen.search.searcher import Searcher


@dataclass(frozen=True)
class Api:
    services: Services
    sender: MessageSender
    searcher: Searcher
    writer: ProductWriter
    generation: GenerationJobs
    metrics: Metrics
    health_threads: WorkPool


class State(TypedDict):
    api: Api


def get_api(request: Request) -> Api:
    api: Api = request.state.api
    return api


ApiDependency = Annotated[Api, Depends(get_api)]
ProductId = Annotated[int, Path(ge=1, le=2**63 - 1)]
JobId = Annotated[int, Path(ge=1, le=2**63 - 1)]

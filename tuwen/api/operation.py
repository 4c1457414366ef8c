"""`/health` and `/metrics`: what operators and their machines ask."""

import asyncio
from collections.abc import Awaitable

from fastapi import Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST

from data_models import ComponentHealth, Health, HealthComponents, IndexInfo
from tuwen.api.state import ApiDependency
from tuwen.errors import AppError
from tuwen.settings import VERSION

router = APIRouter(tags=["operation"])


@router.head("/health", include_in_schema=False)  # load balancers ask with it
@router.get("/health", summary="Is every part up?", responses={503: {"model": Health}})
async def get_health(api: ApiDependency, response: Response) -> Health:
    """503 while any part is down; each part says what is wrong with it."""
    services = api.services
    name = services.encoding.encoders.name
    components = HealthComponents(
        database=await _probe(asyncio.to_thread(services.database.check)),
        vector_db=await _probe(asyncio.to_thread(services.vector_db.check)),
        queue=await _probe(api.sender.check()),
        models=await _probe(services.encoding.check(), up=name),
        image_store=await _probe(asyncio.to_thread(services.images.check)),
    )
    up = all(component.status == "ok" for _, component in components)
    response.status_code = 200 if up else 503
    live = services.registry.known
    return Health(
        status="ok" if up else "degraded",
        version=VERSION,
        components=components,
        index=IndexInfo(collection=live.collection, model=name) if live else None,
        demo_models=services.settings.uses_demo_models,
    )


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
def get_metrics(api: ApiDependency) -> PlainTextResponse:
    return PlainTextResponse(api.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _probe(check: Awaitable[None], *, up: str | None = None) -> ComponentHealth:
    """`up`: what there is to say of a part that is up."""
    try:
        await check
    except AppError as error:
        return ComponentHealth(status="down", detail=error.detail)
    return ComponentHealth(status="ok", detail=up)

"""`/health`, its parts, and `/metrics`: what operators and their machines ask."""

import asyncio
from collections.abc import Awaitable

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST

from data_models import ComponentHealth, Health, HealthComponents, IndexInfo, Liveness
from tuwen.api.access import GuardedRoute, is_admin, needs, needs_no_key
from tuwen.api.probes import PROBE_TIMEOUT_S, Probes
from tuwen.api.problems import accepted_language
from tuwen.api.reasons import health_in
from tuwen.api.state import Api, ApiDependency
from tuwen.api.workforce import NOTHING_KNOWN, Workforce
from tuwen.errors import AppError
from tuwen.settings import VERSION

NEEDED_TO_SERVE = {"database", "vector_db", "models"}

router = APIRouter(tags=["operation"], route_class=GuardedRoute)


@router.get("/health/live", summary="Does the process answer?")
@needs_no_key
async def get_liveness() -> Liveness:
    """For whoever restarts a process that hangs. Asks nobody."""
    return Liveness()


@router.get("/health/ready", summary="Can it search?", responses={503: {"model": Health}})
@needs_no_key
async def get_readiness(request: Request, api: ApiDependency, response: Response) -> Health:
    """For load balancers: as `/health`, but 200 as long as what searches need is up; all processes share the rest."""
    health = await _health(api, to_serve=True)
    ready = all(part.status == "ok" for name, part in health.components if name in NEEDED_TO_SERVE)
    response.status_code = 200 if ready else 503
    return health_in(accepted_language(request), await _as_seen_by(request, health))


@router.head("/health", include_in_schema=False)  # load balancers ask with it
@router.get("/health", summary="Is every part up?", responses={503: {"model": Health}})
@needs_no_key
async def get_health(request: Request, api: ApiDependency, response: Response) -> Health:
    """503 while any part is down or degraded; whoever has the scope `admin` reads what is wrong with it."""
    health = await _health(api)
    response.status_code = 200 if health.status == "ok" else 503
    return health_in(accepted_language(request), await _as_seen_by(request, health))


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
@needs("admin")
async def get_metrics(api: ApiDependency) -> PlainTextResponse:
    return PlainTextResponse(await api.threads.reads.run(api.metrics.render), media_type=CONTENT_TYPE_LATEST)


async def _as_seen_by(request: Request, health: Health) -> Health:
    """To strangers: nothing of hosts, versions, engines or how much there is."""
    if await is_admin(request):
        return health
    statuses = {name: part.model_copy(update={"detail": None}) for name, part in health.components}
    components = HealthComponents(**statuses)
    return health.model_copy(update={"version": None, "components": components, "backlog": None, "index": None})


async def _health(api: Api, *, to_serve: bool = False) -> Health:
    """`to_serve`: of the models, what searches ask."""
    services, probes = api.services, api.probes
    name = services.encoding.encoders.name
    work_found = asyncio.ensure_future(_workforce(probes))
    database, vector_db, queue, models, image_store, disk = await asyncio.gather(
        _probe(probes.database.run()),
        _probe(probes.vector_db.run()),
        _probe(api.sender.check()),
        _probe(services.encoding.check(for_queries_alone=to_serve), up=name),
        _probe(probes.image_store.run()),
        _probe(probes.disk.run()),
    )
    work = await work_found
    components = HealthComponents(
        database=database,
        vector_db=vector_db,
        queue=queue,
        models=models,
        image_store=image_store,
        disk=disk,
        indexing=work.indexing,
        drawing=work.drawing,
    )
    up = all(component.status == "ok" for _, component in components)
    live = services.registry.known
    return Health(
        status="ok" if up else "degraded",
        version=VERSION,
        components=components,
        backlog=work.backlog,
        index=IndexInfo(collection=live.collection, model=name) if live else None,
        demo_models=services.settings.uses_demo_models,
    )


async def _workforce(probes: Probes) -> Workforce:
    try:
        return await probes.workforce.run()
    except (AppError, TimeoutError):
        return NOTHING_KNOWN


async def _probe(check: Awaitable[ComponentHealth | None], *, up: str | None = None) -> ComponentHealth:
    """`up`: what there is to say of a part that is up and says nothing itself."""
    try:
        found = await asyncio.wait_for(check, PROBE_TIMEOUT_S)
    except AppError as error:
        return ComponentHealth(status="down", detail=error.detail)
    except TimeoutError:
        return ComponentHealth(status="down", detail=f"It has not answered for {PROBE_TIMEOUT_S:.0f} s.")
    return found or ComponentHealth(status="ok", detail=up)

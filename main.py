"""The HTTP service: app, lifespan, middleware. On the embedded default it also ingests, in this same process.
Routes stand in `tuwen/api/`, by resource.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from tuwen.access.keyring import Keyring
from tuwen.access.rates import RateLimiter
from tuwen.api.access import install_access
from tuwen.api.envelope import install_cors, install_envelope
from tuwen.api.limits import install_body_limit
from tuwen.api.metrics import Metrics
from tuwen.api.openapi import install_openapi
from tuwen.api.probes import Probes
from tuwen.api.problems import ReadableStartFailure, install_problem_handlers
from tuwen.api.routes import install_routes
from tuwen.api.state import Api, Lasting, State, Threads
from tuwen.assembly import (
    Services,
    new_importer,
    new_ingestor,
    new_presence,
    new_reconciler,
    new_reindexer,
    new_searcher,
    new_twin_keeper,
    open_services,
)
from tuwen.background import Loop, running_loops, told_to_stop
from tuwen.catalogue.products import ProductWriter
from tuwen.cores import keep_what_is_loaded
from tuwen.generation.child_process import GenerationProcess
from tuwen.generation.jobs import GenerationJobs
from tuwen.importing.jobs import ImportJobs
from tuwen.indexing.reindex_jobs import ReindexJobs
from tuwen.logs import configure_logging, configure_server_logging
from tuwen.messaging.connect import new_sender
from tuwen.messaging.in_process import InProcessQueue
from tuwen.messaging.relay import OutboxRelay
from tuwen.pulse import Pulses
from tuwen.settings import VERSION, Settings, load_settings


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        configure_logging(settings.log_level)
        configure_server_logging(access_log=settings.access_log)
        async with open_services(settings, reranks=True) as services, _open_api(services) as api:
            keep_what_is_loaded()
            yield {"api": api}

    app = FastAPI(
        title="Tuwen 图文",
        version=VERSION,
        summary="Multimodal product search: pictures and titles, across each other, in Chinese and English.",
        lifespan=lifespan,
        docs_url=None,  # `tuwen/api/documentation.py`: FastAPI's own load scripts from elsewhere
        redoc_url=None,
    )
    install_routes(app)
    install_problem_handlers(app)
    install_access(app, settings)
    install_openapi(app)
    install_body_limit(app, settings)
    install_cors(app, settings)
    app.add_middleware(ReadableStartFailure)
    install_envelope(app)
    return app


@asynccontextmanager
async def _open_api(services: Services) -> AsyncIterator[Api]:
    settings, database = services.settings, services.database
    sender = new_sender(settings)
    relay = OutboxRelay(database, sender, settings)
    pulses = Pulses(settings.heartbeat_dir)
    presence = new_presence(services, "api", pulses)
    keyring, limiter = Keyring(database), RateLimiter(settings, database)
    loops: dict[str, Loop] = relay.loops() | services.registry.loops() | keyring.loops() | limiter.loops()
    loops |= {"presence": presence.run, "import": new_importer(services, relay.wake).run}
    if isinstance(sender, InProcessQueue):
        loops |= _embedded_loops(services, sender, relay)
    writer = ProductWriter(database, services.images, services.registry, settings.kafka_topic, relay.wake)
    searcher = new_searcher(services)
    reindex_jobs = ReindexJobs(settings, database, services.vector_db, services.registry)
    probes, metrics = Probes(services, presence), Metrics(database, presence)
    with told_to_stop() as stopping:
        jobs = GenerationJobs(
            settings, database, services.images, services.decoder, services.registry, searcher, relay.wake, stopping
        )
        try:
            async with running_loops(loops, pulses):
                of_jobs = jobs, reindex_jobs, ImportJobs(database, settings.import_queue_per_client)
                of_access = keyring, limiter, Lasting(settings)
                yield Api(services, sender, searcher, writer, *of_jobs, *of_access, metrics, Threads(), probes)
        finally:
            await sender.close()


def _embedded_loops(services: Services, queue: InProcessQueue, relay: OutboxRelay) -> dict[str, Loop]:
    """What workers do on the full stack."""
    settings = services.settings
    events, jobs = (queue.consumers[topic] for topic in (settings.kafka_topic, settings.generation_topic))
    ingestor, reconciler = new_ingestor(services), new_reconciler(services, services.registry.live)
    return {
        "ingestion": lambda: ingestor.run(events),
        "generation": GenerationProcess(settings, services.database, jobs).run,
        "reindex": new_reindexer(services).run,
        "twins": new_twin_keeper(services).run,
        "reconciliation": lambda: reconciler.run(relay.wake, lambda: services.registry.known),
    }


app = create_app(load_settings())

"""The indexing worker: consumes Kafka as one member of the group, ingests, and reconciles now and then.

Run as many as there are partitions: `python worker.py`. SIGTERM and Ctrl-C stop it cleanly; what it had not committed
comes again.
"""

import asyncio
import logging
import sys

from tuwen.assembly import new_ingestor, new_presence, new_reconciler, new_reindexer, new_twin_keeper, open_services
from tuwen.background import STOP_SIGNALS, Loop, running_loops
from tuwen.errors import AppError, ConfigurationError
from tuwen.messaging.connect import new_consumer
from tuwen.pulse import Pulses
from tuwen.settings import Settings, load_settings

logger = logging.getLogger(__name__)


async def work(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises AppError at a start that fails."""
    consumer = new_consumer(settings, settings.kafka_topic, settings.kafka_group)
    if settings.milvus_is_file:
        raise ConfigurationError(
            "MILVUS_URI names a file, which only one process can open: a worker needs a Milvus server."
        )
    stopping = asyncio.Event()
    for signal_number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(signal_number, stopping.set)
    async with open_services(settings) as services:
        pulses = Pulses(settings.heartbeat_dir)
        ingestor = new_ingestor(services)
        reconciler = new_reconciler(services, services.registry.live)
        loops: dict[str, Loop] = services.registry.loops() | {
            "ingestion": lambda: ingestor.run(consumer),
            "reconciliation": lambda: reconciler.run(lambda _: None, lambda: services.registry.known),
            "reindex": new_reindexer(services).run,
            "twins": new_twin_keeper(services).run,
            "presence": new_presence(services, "worker", pulses).run,
        }
        try:
            async with running_loops(loops, pulses):
                logger.info("Consuming %s as one of %s", settings.kafka_topic, settings.kafka_group)
                await stopping.wait()
                logger.info("Stopping")
        finally:
            await consumer.close()


if __name__ == "__main__":
    try:
        asyncio.run(work(load_settings()))
    except AppError as error:
        sys.exit(error.detail)

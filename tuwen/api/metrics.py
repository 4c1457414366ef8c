"""What Prometheus may ask: how long searches take, step by step, and how far behind indexing is."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from data_models import SearchResponse
from orm_models import Database
from tuwen.catalogue.queries import count_by_index_status
from tuwen.generation.queries import count_jobs_waiting
from tuwen.messaging.outbox import count_refused, outbox_backlog

SEARCH_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class _Backlog(Collector):
    """Asked for at each scrape: the database is the truth."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        with self._database.read() as session:
            by_status = count_by_index_status(session)
            backlog = outbox_backlog(session)
            refused = count_refused(session)
            waiting = count_jobs_waiting(session)
        products = GaugeMetricFamily("tuwen_products", "Products by index status", labels=["index_status"])
        for status in ("pending", "indexed", "failed"):
            products.add_metric([status], by_status.get(status, 0))
        yield products
        yield GaugeMetricFamily("tuwen_outbox_backlog", "Events that wait to be published", value=backlog)
        yield GaugeMetricFamily("tuwen_outbox_refused", "Events that the queue will never take", value=refused)
        yield GaugeMetricFamily("tuwen_generation_jobs_waiting", "Jobs that wait to be drawn", value=waiting)


class Metrics:
    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        self._search_seconds = Histogram(
            "tuwen_search_seconds",
            "Time of successful searches, by mode and step",
            ["mode", "step"],
            buckets=SEARCH_BUCKETS_S,
            registry=self._registry,
        )
        self._registry.register(_Backlog(database))

    def observe_search(self, response: SearchResponse) -> None:
        for step, milliseconds in response.took_ms:
            self._search_seconds.labels(response.mode.value, step).observe(milliseconds / 1000)

    def render(self) -> bytes:
        return generate_latest(self._registry)

"""What Prometheus may ask: how long searches take, step by step, how far behind indexing is, and what drifted."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from data_models import SearchResponse
from orm_models import ProcessRow, utc_now
from tuwen.catalogue.queries import count_by_index_status, oldest_pending_at
from tuwen.database.engine import Database
from tuwen.generation.queries import count_jobs_waiting
from tuwen.indexing.reconciliation import PassRecord, last_pass
from tuwen.messaging.outbox import count_refused, oldest_waiting_at, outbox_backlog
from tuwen.processes import Presence, living_processes

SEARCH_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
# prometheus_client's own: its processes keep their numbers in files there, and each answers for all.
FOLDER_OF_ALL_PROCESSES = "PROMETHEUS_MULTIPROC_DIR"

# Callers may call theirs what they like, and each would be kept for good.
KNOWN_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

# Counting reads one entry of an index for each row: with ten million products it takes seconds.
COUNT_AGAIN_S, SHARE_OF_TIME_COUNTING = 5.0, 0.05


@dataclass(frozen=True)
class _Backlog:
    by_status: dict[str, int]
    oldest_pending_at: datetime | None
    outbox: int
    oldest_message_at: datetime | None
    refused: int
    jobs: int


class _Stores(Collector):
    """Asked for at each scrape: the database is the truth, and the same whichever process answers."""

    def __init__(self, database: Database, this_process: Presence) -> None:
        self._database = database
        self._this_process = this_process
        self._backlog: _Backlog | None = None
        self._count_again_at = 0.0

    def collect(self) -> Iterator[Metric]:
        if self._backlog is None or time.monotonic() >= self._count_again_at:
            self._backlog = self._count()
        with self._database.read() as session:
            record = last_pass(session)
            processes = {row.process_id: row for row in living_processes(session)}
        own = self._this_process.row()
        yield from _describe_backlog(self._backlog)
        yield _describe_vectors((processes | {own.process_id: own}).values())
        if record is not None:
            yield from _describe_pass(record)

    def _count(self) -> _Backlog:
        started = time.monotonic()
        with self._database.read() as session:
            backlog = _Backlog(
                by_status=count_by_index_status(session),
                oldest_pending_at=oldest_pending_at(session),
                outbox=outbox_backlog(session),
                oldest_message_at=oldest_waiting_at(session),
                refused=count_refused(session),
                jobs=count_jobs_waiting(session),
            )
        now = time.monotonic()
        self._count_again_at = now + max(COUNT_AGAIN_S, (now - started) / SHARE_OF_TIME_COUNTING)
        return backlog


def _describe_backlog(backlog: _Backlog) -> Iterator[Metric]:
    products = GaugeMetricFamily("tuwen_products", "Products by index status", labels=["index_status"])
    for status in ("pending", "indexed", "failed"):
        products.add_metric([status], backlog.by_status.get(status, 0))
    yield products
    for name, documentation, value in (
        (
            "tuwen_products_oldest_pending_seconds",
            "Since when one waits to be indexed",
            _age(backlog.oldest_pending_at),
        ),
        ("tuwen_outbox_backlog", "Events that wait to be published", backlog.outbox),
        ("tuwen_outbox_oldest_seconds", "Since when one waits to be published", _age(backlog.oldest_message_at)),
        ("tuwen_outbox_refused", "Events that the queue will never take", backlog.refused),
        ("tuwen_generation_jobs_waiting", "Jobs that wait to be drawn", backlog.jobs),
    ):
        yield GaugeMetricFamily(name, documentation, value=value)


def _describe_vectors(processes: Iterable[ProcessRow]) -> Metric:
    """As each process said of itself within the last ten seconds."""
    made = CounterMetricFamily(
        "tuwen_index_vectors",
        "Pictures and titles that were encoded, or kept their vectors",
        labels=["process", "of", "how"],
    )
    for process in processes:
        for of, how, count in process.state.get("vectors", ()):
            made.add_metric([process.name, of, how], count)
    return made


def _describe_pass(record: PassRecord) -> Iterator[Metric]:
    found = GaugeMetricFamily("tuwen_drift_found", "What the last whole reconciliation found", labels=["kind"])
    mended = CounterMetricFamily("tuwen_drift_mended", "What reconciliations have mended", labels=["kind"])
    for metric, counts in ((found, record.found), (mended, record.mended_in_all)):
        for kind, count in counts.items():
            metric.add_metric([kind], count)
        yield metric
    for name, documentation, value in (
        ("tuwen_reconciliation_finished_timestamp_seconds", "When the last whole one ended", record.finished_at),
        ("tuwen_reconciliation_seconds", "How long the last whole one took", record.took_s),
    ):
        yield GaugeMetricFamily(name, documentation, value=value)


def _age(moment: datetime | None) -> float:
    """In seconds; 0 where nothing waits."""
    return 0.0 if moment is None else max(0.0, (utc_now() - moment).total_seconds())


class Metrics:
    """Of this process; of all API processes of this machine where PROMETHEUS_MULTIPROC_DIR names their folder."""

    def __init__(self, database: Database, this_process: Presence) -> None:
        own = CollectorRegistry()
        self._search_seconds = Histogram(
            "tuwen_search_seconds",
            "Time of successful searches, by mode and step",
            ["mode", "step"],
            buckets=SEARCH_BUCKETS_S,
            registry=own,
        )
        self._query_cache = Counter(
            "tuwen_query_cache", "Queries whose vector was known (hit) or was made (miss)", ["result"], registry=own
        )
        self._requests = Counter(
            "tuwen_requests", "Requests that were answered", ["method", "route", "status"], registry=own
        )
        self._registry = own
        if os.environ.get(FOLDER_OF_ALL_PROCESSES):
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self._registry.register(_Stores(database, this_process))

    def observe_search(self, response: SearchResponse, cache_counts: Mapping[str, int]) -> None:
        for step, milliseconds in response.took_ms:
            if milliseconds is not None:  # a step that most searches don't have
                self._search_seconds.labels(response.mode.value, step).observe(milliseconds / 1000)
        for result, count in cache_counts.items():
            self._query_cache.labels(result).inc(count)

    def count_request(self, method: str, route: str, status: int) -> None:
        """`route`: as it is declared, of which there are few; empty where none was found."""
        self._requests.labels(method if method in KNOWN_METHODS else "other", route or "none", str(status)).inc()

    def render(self) -> bytes:
        return generate_latest(self._registry)

"""Once everything is healed: waits until the service has nothing left to do, and looks into each of its stores."""

import base64
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import GeneratedImageRow, JobRow, OutboxRow, ProductImageRow, ProductRow, ProductVectorRow
from tests.faults.clients import Pictures
from tests.faults.history import State, Violation
from tests.faults.stack import Stack
from tests.processes import TLS
from tuwen.assembly import Stores
from tuwen.background import LEASE_TIME
from tuwen.vectors.registry import require_live_index
from vector_db import RowKey

MOST_PASSES = 8
FOUND = "tuwen_drift_found"
QUIET_S = 45.0  # a relay that was killed keeps its claims for 30 s, and a consumer its partitions not as long
DRAWING_S = 150.0  # the process that draws has to start first
LONGEST_PASSES_S = 600.0
POLL_S = 0.5
UNDER_WAY_S = 45.0  # what hung when all was healed may still store a picture, and two passes see it, some time apart
FULL_SCORE = 0.999  # of a query that is the very title or picture; the next product is at 0.998 at most
PAGE = 1000


@dataclass
class Look:
    """What is in the stores, and what is wrong there."""

    stored: dict[str, State]
    violations: list[Violation]


@dataclass
class Settled(Look):
    seconds: float
    """What it took the service until its own reconciliation found nothing more."""
    mended: Counter[str]
    """By those passes, by kind."""


def settle(stack: Stack) -> Settled:
    """Until a pass of the service's own reconciliation finds nothing, or many have found something.

    Nothing here mends: what is wrong then stays so until a person acts.
    """
    started = time.monotonic()
    _wait_until_quiet(stack)
    mended, is_clean = _passes_after(stack, _graces_over_s(stack))
    _wait_until_quiet(stack)
    seconds = time.monotonic() - started
    look = stack.look(look_into)
    if not is_clean:
        look.violations.append(Violation("stuck", "", f"no pass of the service's own found nothing: {dict(mended)}"))
    return Settled(look.stored, look.violations, seconds, mended)


def look_into(stores: Stores) -> Look:
    return Look(_stored(stores), list(check_stores(stores)))


def _gauges(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def _graces_over_s(stack: Stack) -> float:
    """Products that were queued again are left alone for six times the grace, pictures for six times after they were
    stored and six times more once a sweep has found them unused; a lease is held for two minutes."""
    return max(12 * stack.settings.reconcile_grace_s, LEASE_TIME.total_seconds() + 10) + UNDER_WAY_S


def _passes_after(stack: Stack, seconds: float) -> tuple[Counter[str], bool]:
    """What the passes mended that were begun so much later, up to the first that found nothing; was there one?"""
    begun_after = time.time() + seconds
    mended, seen, deadline = Counter[str](), set[float](), time.monotonic() + seconds + LONGEST_PASSES_S
    with httpx.Client(base_url=stack.urls[0], timeout=30, trust_env=False) as client:
        while time.monotonic() < deadline and len(seen) < MOST_PASSES:
            with suppress(httpx.HTTPError, KeyError):
                gauges = _gauges(client)
                ended = gauges["tuwen_reconciliation_finished_timestamp_seconds"]
                if ended - gauges["tuwen_reconciliation_seconds"] >= begun_after and ended not in seen:
                    seen.add(ended)
                    found = {name: int(value) for name, value in gauges.items() if name.startswith(FOUND) and value}
                    if not found:
                        return mended, True
                    mended.update({name.removeprefix(FOUND): count for name, count in found.items()})
            time.sleep(POLL_S)
    return mended, False


def _wait_until_quiet(stack: Stack) -> None:
    """Or for as long as it may take; what has stopped for good, reconciliation has to find."""
    started, longest_s = time.monotonic(), DRAWING_S
    with httpx.Client(base_url=stack.urls[0], timeout=30, trust_env=False) as client:
        while time.monotonic() - started < longest_s:
            with suppress(httpx.HTTPError, KeyError):
                pending = client.get("/product/list", params={"index_status": "pending"}).json()["total"]
                gauges = _gauges(client)
                jobs = gauges["tuwen_generation_jobs_waiting"]
                if pending == 0 and jobs == 0 and gauges["tuwen_outbox_backlog"] == 0:
                    return
                longest_s = DRAWING_S if jobs else QUIET_S
            time.sleep(POLL_S)


def _unfinished_jobs(session: orm.Session) -> list[int]:
    return list(session.scalars(sa.select(JobRow.job_id).where(JobRow.status.in_(("queued", "running")))))


def _stored(stores: Stores) -> dict[str, State]:
    with stores.database.read() as session:
        rows = session.scalars(sa.select(ProductRow))
        return {
            row.sku or f"product {row.product_id}": State(
                row.product_id,
                row.version,
                row.title,
                None if row.price is None else float(row.price),
                row.image_sha256,
            )
            for row in rows
        }


def check_stores(stores: Stores) -> Iterator[Violation]:
    """What the database says of itself, against Milvus's rows and the pictures, each asked directly."""
    index = require_live_index(stores.database, stores.vector_db)
    with stores.database.read() as session:
        products = {row.product_id: row for row in session.scalars(sa.select(ProductRow))}
        found = session.scalars(sa.select(ProductVectorRow))
        bindings = [row for row in found if row.vector_index_id == index.vector_index_id]
        yield from _stuck(session, products)
    skus = {product_id: row.sku or "" for product_id, row in products.items()}
    bound = {RowKey(each.milvus_id, each.product_id, each.row_token) for each in bindings}
    versions = {each.product_id: each.version for each in bindings}
    rows_of = Counter(each.product_id for each in bindings)
    for product_id, row in products.items():
        if rows_of[product_id] not in (0, row.image_count):
            yield Violation(
                "lost", skus[product_id], f"{rows_of[product_id]} rows are bound for {row.image_count} pictures"
            )
        if versions.get(product_id) != row.content_version:
            yield Violation(
                "lost", skus[product_id], f"bound at version {versions.get(product_id)} of {row.content_version}"
            )
    rows = [row for page in stores.vector_db.iterate_rows(index.collection) for row in page]
    for key in bound - set(rows):
        yield Violation("lost", skus.get(key.product_id, ""), f"bound to {key}, which is not in Milvus")
    for key, copies in Counter(rows).items():
        if key not in bound:
            kind = "duplicates" if key.product_id in versions else "orphans"
            yield Violation(kind, skus.get(key.product_id, ""), f"{key} in Milvus is bound by nothing")  # type: ignore[arg-type]
        elif copies > 1:
            yield Violation("duplicates", skus[key.product_id], f"{key} is in Milvus {copies} times")
    yield from _wrong_pictures(stores, products)


def _stuck(session: orm.Session, products: Mapping[int, ProductRow]) -> Iterator[Violation]:
    for row in products.values():
        if row.index_status != "indexed":
            yield Violation("stuck", row.sku or "", f"{row.index_status} for good: {row.index_error}")
    for message in session.scalars(sa.select(OutboxRow).where(OutboxRow.published_at.is_(None))):
        yield Violation("stuck", "", f"never sent: {message.topic} {message.payload}, {message.error}")
    for job_id in _unfinished_jobs(session):
        yield Violation("stuck", "", f"job {job_id} is never finished")


def _wrong_pictures(stores: Stores, products: Mapping[int, ProductRow]) -> Iterator[Violation]:
    with stores.database.read() as session:
        drawn = list(session.scalars(sa.select(GeneratedImageRow.image_path)))
        further = {row.image_path: row.product_id for row in session.scalars(sa.select(ProductImageRow))}
    named = {row.image_path: row.sku or "" for row in products.values()} | dict.fromkeys(drawn, "")
    named |= {path: products[product_id].sku or "" for path, product_id in further.items() if product_id in products}
    there = {file.path for page in stores.images.list_pages(PAGE) for file in page}
    for path in named.keys() - there:
        yield Violation("lost", named[path], f"its picture {path} is gone")
    aside = {file.path for page in stores.images.list_pages_aside(PAGE) for file in page}
    for path in (there - named.keys()) | aside:
        yield Violation("orphans", "", f"the picture {path} is named by nothing")


def check_searches(stack: Stack, stored: Mapping[str, State], pictures: Pictures) -> Iterator[Violation]:
    """Every product is what its own title and its own picture find first, at each API."""
    for number, (sku, state) in enumerate(sorted(stored.items())):
        url = stack.urls[number % len(stack.urls)]
        image = base64.b64encode(pictures.data(state.picture)).decode()
        for query in ({"mode": "text_to_text", "text": state.title}, {"mode": "image_to_image", "image_base64": image}):
            hits = _search(url, {**query, "top_k": 5})
            first = [hit for hit in hits if hit["product"]["sku"] == sku and hit["score"] > FULL_SCORE]
            if not first:
                best = [(hit["product"]["sku"], round(hit["score"], 4)) for hit in hits]
                yield Violation("unsearchable", sku, f"{query['mode']} finds {best}")
            yield from (
                Violation("resurrected", hit["product"]["sku"], f"{query['mode']} finds it")
                for hit in hits
                if hit["product"]["sku"] not in stored
            )


def _search(url: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    response = httpx.post(f"{url}/search", json=query, timeout=30, trust_env=False, verify=TLS)
    hits: list[dict[str, Any]] = response.raise_for_status().json()["hits"]
    return hits

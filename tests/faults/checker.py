"""Once everything is healed: waits until the service has nothing left to do, and looks into each of its stores."""

import base64
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import GeneratedImageRow, JobRow, LeaseRow, OutboxRow, ProductRow, ProductVectorRow, utc_now
from tests.faults.clients import Pictures
from tests.faults.history import State, Violation
from tests.faults.stack import Stack
from tuwen.assembly import Stores
from tuwen.background import LeaseLost
from tuwen.errors import DependencyUnavailable
from tuwen.indexing.drift import Graces
from tuwen.indexing.reconciliation import LEASE, Reconciler
from tuwen.messaging.outbox import outbox_backlog
from tuwen.vectors.registry import require_live_index
from vector_db import RowKey

MOST_LOOKS = 6
QUIET_S = 45.0  # a relay that was killed keeps its claims for 30 s, and a consumer its partitions not as long
DRAWING_S = 150.0  # the process that draws has to start first
POLL_S = 0.5
FULL_SCORE = 0.999  # of a query that is the very title or picture; the next product is at 0.998 at most
PAGE = 1000
# The service waits before it takes something for left behind. Here hours pass at once: nobody is in the middle of
# anything any more, and if somebody is, the next pass finds what this one broke.
NO_GRACE = Graces(*[timedelta(0)] * 4)


@dataclass
class Look:
    """What a pass of reconciliation mended, and what was found right after it."""

    mended: dict[str, int]
    is_quiet: bool
    stored: dict[str, State]
    violations: list[Violation]


@dataclass
class Settled:
    """What it took until there was nothing left to do, and what was found then."""

    seconds: float
    mended: Counter[str]
    stored: dict[str, State]
    violations: list[Violation]


def settle(stack: Stack) -> Settled:
    """Until a pass of reconciliation finds nothing, or many have found something; what is wrong then stays so."""
    mended, started = Counter[str](), time.monotonic()
    for _ in range(MOST_LOOKS):
        _wait_until_quiet(stack)
        look = stack.look(look_into)
        mended.update(look.mended)
        if look.is_quiet and not any(look.mended.values()):
            break
    return Settled(time.monotonic() - started, mended, look.stored, look.violations)


def look_into(stores: Stores) -> Look:
    mended = _reconcile(stores)
    return Look(mended, _is_quiet(stores), _stored(stores), list(check_stores(stores)))


def _wait_until_quiet(stack: Stack) -> None:
    """Or for as long as it may take; what has stopped for good, reconciliation has to find."""
    started, longest_s = time.monotonic(), DRAWING_S
    with httpx.Client(base_url=stack.urls[0], timeout=30, trust_env=False) as client:
        while time.monotonic() - started < longest_s:
            with suppress(httpx.HTTPError, KeyError):
                pending = client.get("/product/list", params={"index_status": "pending"}).json()["total"]
                lines = client.get("/metrics").text.splitlines()
                gauges = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
                jobs = float(gauges["tuwen_generation_jobs_waiting"])
                if pending == 0 and jobs == 0 and float(gauges["tuwen_outbox_backlog"]) == 0:
                    return
                longest_s = DRAWING_S if jobs else QUIET_S
            time.sleep(POLL_S)


def _is_quiet(stores: Stores) -> bool:
    with stores.database.read() as session:
        return not (_count_pending(session) or outbox_backlog(session) or _unfinished_jobs(session))


def _count_pending(session: orm.Session) -> int:
    return session.scalar(sa.select(sa.func.count()).where(ProductRow.index_status == "pending")) or 0


def _unfinished_jobs(session: orm.Session) -> list[int]:
    return list(session.scalars(sa.select(JobRow.job_id).where(JobRow.status.in_(("queued", "running")))))


def _reconcile(stores: Stores) -> dict[str, int]:
    with stores.database.write() as session:  # the lease of a process that was killed; a live one loses its turn
        lease = sa.update(LeaseRow).where(LeaseRow.name == LEASE)
        # Without the place that the pass had reached: with its own graces it has left what this one is to find.
        session.execute(lease.values(expires_at=utc_now() - timedelta(minutes=1), progress={}))
    reconciler = Reconciler(
        stores.settings,
        stores.database,
        stores.vector_db,
        stores.images,
        lambda: require_live_index(stores.database, stores.vector_db),
        graces=NO_GRACE,
        may_delete_many=True,
    )
    with suppress(LeaseLost, DependencyUnavailable):
        drifts = reconciler.reconcile()
        if drifts is not None:
            return {kind: drift.found for kind, drift in drifts.items()}
    return {"passes_cut_off": 1}


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
    for product_id, row in products.items():
        if versions.get(product_id) != row.version:
            yield Violation("lost", skus[product_id], f"bound at version {versions.get(product_id)} of {row.version}")
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
    named = {row.image_path: row.sku or "" for row in products.values()} | dict.fromkeys(drawn, "")
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
    response = httpx.post(f"{url}/search", json=query, timeout=30, trust_env=False)
    hits: list[dict[str, Any]] = response.raise_for_status().json()["hits"]
    return hits

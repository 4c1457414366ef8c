"""The last step of `mode=replace_all`: products whose sku the file does not have are deleted, a page at a time.

Nothing is deleted by inference alone: not while a row of the file can't say which product it is, not more than a share
of all products and never all of them unless that was asked for, no product without a sku, none that came after the
import. What rows with errors name stays, too. Whoever takes the job up after a kill reads the file's skus anew, and
deletes what is left.
"""

import hashlib
import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import JobRow, ProductRow, utc_now
from tuwen.background import WorkPool
from tuwen.database.engine import Database
from tuwen.errors import InvalidInput
from tuwen.importing.attempts import Attempt, require_running
from tuwen.importing.columns import SourceRow, has_lost_digits
from tuwen.importing.source import Source
from tuwen.messaging.outbox import add_product_event
from tuwen.settings import Settings
from tuwen.texts import canonical_text
from tuwen.vectors.binding import bound_milvus_ids

READ_AT_ONCE, LOOKED_AT_ONCE, DELETED_AT_ONCE = 2000, 1000, 100
FEW = 10  # may go though they are a larger share, but no more than half
LINES_SHOWN = 5


class Known(NamedTuple):
    """A product, as it is looked at."""

    product_id: int
    sku: str


class NamedSkus:
    """Of a file, as 8 bytes each: two that are one by chance only keep a product."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._sorted = np.empty(0, np.int64)
        self.without: list[int] = []
        """Lines that say no sku."""

    def read(self, rows: Iterable[Any]) -> int:
        """How many these are."""
        count = 0
        for row in rows:
            count += 1
            sku = row.fields.get("sku") if isinstance(row, SourceRow) else None
            if (
                sku is None
                or isinstance(sku, list | dict)
                or has_lost_digits(sku)
                or not (key := canonical_text(str(sku)))
            ):
                self.without.append(row.line)
            else:
                self._hashes.append(_hash(key))
        return count

    def settle(self) -> None:
        self._sorted = np.unique(np.frombuffer(self._hashes, np.int64)) if self._hashes else self._sorted

    def lacks(self, products: Sequence[Known]) -> list[int]:
        """The ids of those that no row names."""
        hashes = np.array([_hash(canonical_text(product.sku)) for product in products], np.int64)
        is_named = np.isin(hashes, self._sorted)
        return [product.product_id for product, named in zip(products, is_named, strict=True) if not named]


class Replacement:
    """`reading`: the thread that reads the file, `writing`: the one that changes the database."""

    def __init__(
        self, settings: Settings, database: Database, attempt: Attempt, reading: WorkPool, writing: WorkPool
    ) -> None:
        self._settings = settings
        self._database = database
        self._attempt = attempt
        self._reading, self._writing = reading, writing
        self._skus = NamedSkus()

    async def run(self) -> None:
        """Raises JobGone, or InvalidInput where nothing is deleted, and says why: of a dry run, too."""
        await self._read_skus(self._attempt.path)
        if self._skus.without:
            lines = ", ".join(map(str, self._skus.without[:LINES_SHOWN]))
            raise InvalidInput.in_field(
                "file",
                f"has {len(self._skus.without):,} rows that name no sku (line {lines}), and may be products that it "
                "lacks; nothing was deleted: mend them, and import again",
            )
        total, surplus = await self._reading.run(self._count)
        allowed = self._allowed(total)
        await self._writing.run(self._say, surplus, allowed)
        if surplus > allowed:
            raise InvalidInput.in_field(
                "file",
                f"lacks {surplus:,} of {total:,} products, and {allowed:,} may go; nothing was deleted: if they all "
                "shall, import again with a larger allow_deletes_percent (--allow-deletes)",
            )
        if self._attempt.is_dry_run:
            return
        after = 0
        while (after := await self._writing.run(self._delete_page, after)) > 0:
            pass

    async def _read_skus(self, path: Path) -> None:
        with Source(path) as source:
            rows = source.rows()
            while await self._reading.run(self._read_some, rows):
                pass
        await self._reading.run(self._skus.settle)

    def _read_some(self, rows: Iterator[Any]) -> int:
        return self._skus.read(itertools.islice(rows, READ_AT_ONCE))

    def _count(self) -> tuple[int, int]:
        """Products that have a sku, and of them those that no row names."""
        total = surplus = after = 0
        while True:
            with self._database.read() as session:
                page = self._page(session, after)
            if not page:
                return total, surplus
            total, surplus, after = total + len(page), surplus + len(self._skus.lacks(page)), page[-1].product_id

    def _allowed(self, total: int) -> int:
        percent = self._attempt.request.get("allow_deletes_percent")
        if percent is not None:
            return int(total * percent / 100)
        share = int(total * self._settings.reconcile_large_share)
        return min(max(share, min(FEW, total // 2)), max(total - 1, 0))

    def _say(self, surplus: int, allowed: int) -> None:
        with self._database.write() as session:
            job = require_running(session, self._attempt)
            would = surplus if surplus <= allowed else 0
            deleted = would if self._attempt.is_dry_run else (job.state or {}).get("deleted", 0)
            job.state = (job.state or {}) | {"deleted": deleted, "surplus": surplus, "deletes_allowed": allowed}

    def _delete_page(self, after: int) -> int:
        """The last product that was looked at; 0 at the end."""
        with self._database.write() as session:
            job = require_running(session, self._attempt)
            page = self._page(session, after)
            surplus = self._skus.lacks(page)[:DELETED_AT_ONCE]
            last = surplus[-1] if len(surplus) == DELETED_AT_ONCE else page[-1].product_id if page else 0
            job.heartbeat_at = utc_now()
            if surplus:
                deleted = self._delete(session, surplus, job)
                job.state = (job.state or {}) | {"deleted": (job.state or {}).get("deleted", 0) + deleted}
        return last

    def _delete(self, session: orm.Session, product_ids: Sequence[int], job: JobRow) -> int:
        rows = session.scalars(
            sa.select(ProductRow)
            .where(ProductRow.product_id.in_(product_ids), ProductRow.created_at < job.created_at)
            .order_by(ProductRow.product_id)
            .with_for_update()
        ).all()
        # Once more under the lock: another may have given one the sku of a row.
        held = [Known(row.product_id, row.sku) for row in rows if row.sku is not None]
        surplus = set(self._skus.lacks(held))
        bound = bound_milvus_ids(session, surplus)
        for row in rows:
            if row.product_id in surplus:
                session.delete(row)
                add_product_event(session, self._settings.kafka_topic, row, "delete", bound.get(row.product_id, {}))
        return len(surplus)

    def _page(self, session: orm.Session, after: int) -> list[Known]:
        began = sa.select(JobRow.created_at).where(JobRow.job_id == self._attempt.job_id).scalar_subquery()
        statement = sa.select(ProductRow.product_id, ProductRow.sku).where(
            ProductRow.product_id > after, ProductRow.sku.is_not(None), ProductRow.created_at < began
        )
        page = session.execute(statement.order_by(ProductRow.product_id).limit(LOOKED_AT_ONCE))
        return [Known(product_id, sku) for product_id, sku in page if sku is not None]


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)

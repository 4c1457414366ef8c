"""Reports of all products of a shop with the same picture: taken as jobs, read, cancelled, and worked off.

How far a job is stands in its `state`, and changes in the very transaction that writes a page's pairs: two processes
may look at the same page, and one of them writes it.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import ENDED, DuplicatesJob
from orm_models import REASON_LENGTH, DuplicatePairRow, JobRow, ProductRow, utc_now
from tuwen.catalogue.twins import MOST_SHOWN, Found, one_at_a_time
from tuwen.database.engine import Database
from tuwen.database.jobs import cancel_job, find_job
from tuwen.errors import DependencyUnavailable, NotFound
from tuwen.twins.finder import DuplicateFinder

logger = logging.getLogger(__name__)

KIND = "duplicates"
PAGE, PAIRS_AT_ONCE = 20, 1000
KEPT_FOR = timedelta(days=30)
_IS_OPEN = JobRow.kind == KIND, JobRow.status.in_(("queued", "running"))


class DuplicateReports:
    """As the API sees them. Blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> DuplicatesJob:
        """The one that is under way, if there is one of this shop."""
        with self._database.write() as session:
            one_at_a_time(session)
            job = JobRow(kind=KIND, request={}, state={}, created_at=utc_now())
            session.add(job)
            session.flush()
            first = sa.select(JobRow).where(*_IS_OPEN, JobRow.shop_id == job.shop_id).order_by(JobRow.job_id)
            open_one = session.scalars(first.limit(1)).one()
            if open_one.job_id != job.job_id:
                session.delete(job)
            return _describe(open_one)

    def read(self, job_id: int) -> DuplicatesJob:
        with self._database.read() as session:
            return _describe(_find(session, job_id))

    def cancel(self, job_id: int) -> None:
        """Cancelling twice is no error; a job that ended is one."""
        with self._database.write() as session:
            cancel_job(_find(session, job_id, lock=True))

    def pairs_after(self, job_id: int, last: int) -> Sequence[DuplicatePairRow]:
        """The next ones, behind that id; none at the end. Raises NotFound."""
        with self._database.read() as session:
            _find(session, job_id)
            behind = DuplicatePairRow.job_id == job_id, DuplicatePairRow.duplicate_pair_id > last
            statement = sa.select(DuplicatePairRow).where(*behind).order_by(DuplicatePairRow.duplicate_pair_id)
            return list(session.scalars(statement.limit(PAIRS_AT_ONCE)))


class ReportWriter:
    """All of it blocks."""

    def __init__(self, database: Database, finder: DuplicateFinder) -> None:
        self._database = database
        self._finder = finder

    def has_work(self) -> bool:
        with self._database.read() as session:
            return session.scalar(sa.select(JobRow.job_id).where(*_IS_OPEN).limit(1)) is not None

    def take_page(self) -> bool:
        """The next page of the oldest that is open."""
        with self._database.read() as session:
            job = session.scalar(sa.select(JobRow).where(*_IS_OPEN).order_by(JobRow.job_id).limit(1))
        if job is None:
            return False
        after = (job.state or {}).get("after", 0)
        try:
            with self._database.of_shop(job.shop_id).read() as session:
                behind = sa.select(ProductRow.product_id).where(ProductRow.product_id > after)
                page = list(session.scalars(behind.order_by(ProductRow.product_id).limit(PAGE)))
                last = session.scalar(sa.select(sa.func.max(ProductRow.product_id))) or 0
            found = self._found(self._finder.of_shop(job.shop_id), page)
            pairs = [pair for product, of in found for pair in _pairs(job.job_id, product, of)]
            self._write(job.job_id, after, page, last, pairs)
        except DependencyUnavailable:
            raise
        except Exception as error:  # it must not come again for ever
            logger.exception("Unexpected in a report of products with the same picture")
            self._fail(job.job_id, f"unexpected: {error!r}")
        return True

    def _found(self, finder: DuplicateFinder, page: Sequence[int]) -> list[tuple[ProductRow, list[Found]]]:
        """One that can't be compared keeps no other from it."""
        try:
            return finder.find(page) if page else []
        except DependencyUnavailable:
            raise
        except Exception:
            if len(page) > 1:
                return [each for product_id in page for each in self._found(finder, [product_id])]
            logger.exception("Product %d is left out of a report: it can't be compared with others", page[0])
            return []

    def _write(self, job_id: int, after: int, page: Sequence[int], last: int, pairs: Sequence[dict[str, Any]]) -> None:
        with self._database.write() as session:
            job = session.get(JobRow, job_id, with_for_update=True)
            state = (job.state or {}) if job else {}
            if job is None or job.status in ENDED or state.get("after", 0) != after:
                return  # cancelled, or another process was quicker
            job.status, job.started_at, job.heartbeat_at = "running", job.started_at or utc_now(), utc_now()
            if not page:
                job.status, job.finished_at, job.progress = "done", utc_now(), 1.0
                return
            if pairs:
                session.execute(sa.insert(DuplicatePairRow), pairs)
            counts = {"products": len(page), "pairs": len(pairs)}
            job.state = {"after": page[-1]} | {name: state.get(name, 0) + count for name, count in counts.items()}
            job.progress = min(1.0, page[-1] / max(last, 1))

    def _fail(self, job_id: int, reason: str) -> None:
        with self._database.write() as session:
            job = session.get(JobRow, job_id, with_for_update=True)
            if job is not None and job.status not in ENDED:
                job.status, job.finished_at, job.error = "failed", utc_now(), reason[:REASON_LENGTH]

    def delete_old(self) -> None:
        """With their pairs, a bounded part at a time."""
        while True:
            with self._database.write() as session:
                is_old = JobRow.kind == KIND, JobRow.finished_at < utc_now() - KEPT_FOR
                job_id = session.scalar(sa.select(JobRow.job_id).where(*is_old).order_by(JobRow.job_id).limit(1))
                if job_id is None:
                    return
                of_job = sa.select(DuplicatePairRow.duplicate_pair_id).where(DuplicatePairRow.job_id == job_id)
                pair_ids = list(session.scalars(of_job.limit(PAIRS_AT_ONCE)))
                session.execute(sa.delete(DuplicatePairRow).where(DuplicatePairRow.duplicate_pair_id.in_(pair_ids)))
                if len(pair_ids) < PAIRS_AT_ONCE:
                    session.execute(sa.delete(JobRow).where(JobRow.job_id == job_id))


def _pairs(job_id: int, product: ProductRow, found: Sequence[Found]) -> list[dict[str, Any]]:
    """Each pair once: with those that were there before."""
    return [
        {
            "job_id": job_id,
            "product_id": product.product_id,
            "other_id": each.product_id,
            "kind": "same_file" if each.is_same_file else "same_picture",
            "similarity": each.similarity,
            "vector_similarity": each.vector_similarity,
        }
        for each in [each for each in found if each.product_id < product.product_id][:MOST_SHOWN]
    ]


def _describe(job: JobRow) -> DuplicatesJob:
    state: dict[str, Any] = job.state or {}
    return DuplicatesJob(
        job_id=job.job_id,
        status=job.status,
        status_url=f"/product/duplicates/{job.job_id}",
        pairs_url=f"/product/duplicates/{job.job_id}/pairs",
        progress=job.progress,
        products=state.get("products", 0),
        pairs=state.get("pairs", 0),
        error=job.error,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _find(session: orm.Session, job_id: int, *, lock: bool = False) -> JobRow:
    job = find_job(session, KIND, job_id, lock=lock)
    if job is None:
        raise NotFound(f"There is no report {job_id}.")
    return job

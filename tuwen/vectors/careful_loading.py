"""Loads the models of an index that does not answer: one process at a time, and not for ever.

Models that don't fit into memory kill whoever loads them, and every process has to. Each leaves a mark in the database
before it begins; a mark that its process did not take away is counted, and after a few in a row nobody tries any more.
"""

from collections.abc import Callable
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import LeaseRow, VectorIndexRow
from tuwen.background import Lease, LeaseLost
from tuwen.database.engine import Database
from tuwen.encoders.service import EncodingService
from tuwen.errors import AppError, ModelsUnavailable, ModelUnavailable
from tuwen.vectors.kept_lease import kept

MOST_DEATHS = 3
LOADING, DEATHS = "loading", "deaths"  # in the lease's progress


def load_carefully(database: Database, row: VectorIndexRow, load: Callable[[], EncodingService]) -> EncodingService:
    """Blocks. Raises ModelsUnavailable while another process loads them, ModelUnavailable after too many deaths."""
    lease = Lease(database, _lease_name(row))
    left = lease.take()
    if left is None:
        raise ModelsUnavailable(f"Another process loads the models of {row.collection} at this moment.")
    deaths = left.get(DEATHS, 0) + left.get(LOADING, 0)
    progress = {DEATHS: deaths}
    try:
        if deaths >= MOST_DEATHS:
            raise ModelUnavailable(
                f"{deaths} processes ended while they loaded the models of {row.collection}: they may not fit into "
                "memory beside those in use. Give each process more of it or choose smaller models; then drop that "
                "index (python cli.py reindex --drop-retired) and build anew."
            )
        with kept(lease, {LOADING: 1, DEATHS: deaths}):
            encoding = load()
    except LeaseLost as error:
        raise ModelsUnavailable(f"Another process loads the models of {row.collection} at this moment.") from error
    else:
        progress = {}  # they do fit: what killed the others was not they
        return encoding
    finally:
        with suppress(AppError):
            lease.give_back(progress)


def forget_loading(session: orm.Session, row: VectorIndexRow) -> None:
    """With its index; another may get its number, and its name with that."""
    session.execute(sa.delete(LeaseRow).where(LeaseRow.name == _lease_name(row)))


def _lease_name(row: VectorIndexRow) -> str:
    return f"models of index {row.vector_index_id}"

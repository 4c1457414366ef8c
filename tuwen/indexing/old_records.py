"""What the database need not keep for ever: messages that were sent or refused, done jobs, requests' keys."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import orm

from orm_models import utc_now
from tuwen.catalogue.idempotency import KEEP_KEYS, delete_keys_before
from tuwen.database.engine import Database
from tuwen.generation.queries import delete_jobs_finished_before
from tuwen.indexing.drift import PAGE
from tuwen.messaging.outbox import delete_published_before, delete_refused_before

KEEP_MESSAGES = timedelta(days=7)
Delete = Callable[[orm.Session, datetime, int], int]

logger = logging.getLogger(__name__)


def delete_old_records(database: Database, keep_jobs: timedelta, after_page: Callable[[], None]) -> None:
    """Page by page; raises what `after_page` raises. What can't be deleted is left for the next time, and logged."""
    for delete, keep in (
        (delete_published_before, KEEP_MESSAGES),
        (delete_refused_before, KEEP_MESSAGES),
        (delete_jobs_finished_before, keep_jobs),
        (delete_keys_before, KEEP_KEYS),
    ):
        while _page(database, delete, utc_now() - keep) == PAGE:
            after_page()


def _page(database: Database, delete: Delete, moment: datetime) -> int:
    try:
        with database.write() as session:
            return delete(session, moment, PAGE)
    except Exception:  # it must not keep all else from being mended
        logger.exception("Old records could not be deleted (%s); they are tried again later", delete.__name__)
        return 0

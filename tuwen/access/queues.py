"""Queues of jobs, which all shops and clients share: none takes all of one. Never commits."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import JobRow, utc_now
from tuwen.access.errors import TooManyAtOnce

# An import waits for the machine that has its file, which may never come back.
FORGOTTEN_AFTER = timedelta(days=1)


def require_room_for(session: orm.Session, client: str, kind: str, what: str, most: int) -> None:
    """`session`: of all shops, which share one queue. Of two at once both may find the last place. Raises
    TooManyAtOnce."""
    waiting = sa.select(sa.func.count()).select_from(JobRow).where(JobRow.kind == kind, JobRow.status == "queued")
    waiting = waiting.where(JobRow.client == client, JobRow.created_at > utc_now() - FORGOTTEN_AFTER)
    mine = session.scalar(waiting) or 0
    if mine >= most:
        raise TooManyAtOnce(f"The {client} has {mine} {what} under way already; try again when one has ended.")

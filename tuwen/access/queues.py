"""Queues of jobs, which all shops and clients share: none takes all of one. Never commits."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import JobRow, utc_now
from tuwen.access.errors import TooManyAtOnce
from tuwen.errors import QueueFull

# An import waits for the machine that has its file, which may never come back.
FORGOTTEN_AFTER = timedelta(days=1)


def require_room(session: orm.Session, kind: str, what: str, client: str, *, in_all: int, of_one: int) -> None:
    """`session`: of all shops, which share one queue. Of two at once both may find the last place. Raises QueueFull, or
    TooManyAtOnce where it is this client that has too many."""
    waiting = sa.select(sa.func.count()).select_from(JobRow).where(JobRow.kind == kind, JobRow.status == "queued")
    waiting = waiting.where(JobRow.created_at > utc_now() - FORGOTTEN_AFTER)
    if (session.scalar(waiting) or 0) >= in_all:
        raise QueueFull(f"As many {what} wait as may, and no more are taken; try again later.")
    mine = session.scalar(waiting.where(JobRow.client == client)) or 0
    if mine >= of_one:
        raise TooManyAtOnce(f"The {client} has {mine} {what} under way already; try again when one has ended.")

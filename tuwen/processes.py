"""Which processes of this installation live: each renews its row every few seconds, and says there what others ask.

The clocks of all processes must agree to within half a minute.
"""

import asyncio
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import ProcessRow, utc_now
from tuwen.background import WorkPool, until_up
from tuwen.database.engine import Database
from tuwen.errors import AppError

RENEW_EVERY_S = 10.0
GONE_AFTER = timedelta(seconds=60)
FORGET_AFTER = timedelta(hours=1)
MOST_PROCESSES = 500  # a page of those that are read or forgotten
FAREWELL_S = 2.0


class Presence:
    """This process's row. `describe` gives what it says of itself, as JSON."""

    def __init__(
        self,
        database: Database,
        kind: Literal["api", "worker", "generation"],
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        self._database = database
        self._kind = kind
        self._describe = describe
        self._process_id = uuid.uuid4().hex
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._started_at = utc_now()
        self._thread = WorkPool("the process's row", threads=1, max_waiting=1)

    async def run(self) -> None:
        """Until cancelled; then the row is taken away."""
        try:
            while True:
                await until_up("The process's row", partial(self._thread.run, self.renew), max_wait_s=RENEW_EVERY_S)
                await asyncio.sleep(RENEW_EVERY_S)
        finally:
            with suppress(AppError, TimeoutError):  # a row that stays counts as gone in a minute
                await asyncio.wait_for(self._thread.run(self._leave), FAREWELL_S)

    def row(self) -> ProcessRow:
        """As it would be written now."""
        return ProcessRow(
            process_id=self._process_id,
            kind=self._kind,
            name=self._name,
            started_at=self._started_at,
            seen_at=utc_now(),
            state=self._describe(),
        )

    def renew(self) -> None:
        """Blocks. At once, for those who can't wait for the next time."""
        with self._database.write() as session:
            session.merge(self.row())
            _forget_the_dead(session)

    def _leave(self) -> None:
        with self._database.write() as session:
            session.execute(sa.delete(ProcessRow).where(ProcessRow.process_id == self._process_id))


def living_processes(session: orm.Session) -> list[ProcessRow]:
    """Those that were seen lately, the newest first. One that was killed is among them for a minute."""
    lately = ProcessRow.seen_at > utc_now() - GONE_AFTER
    return list(
        session.scalars(sa.select(ProcessRow).where(lately).order_by(ProcessRow.seen_at.desc()).limit(MOST_PROCESSES))
    )


def _forget_the_dead(session: orm.Session) -> None:
    dead = sa.select(ProcessRow.process_id).where(ProcessRow.seen_at < utc_now() - FORGET_AFTER).limit(MOST_PROCESSES)
    process_ids = list(session.scalars(dead))
    if process_ids:
        session.execute(sa.delete(ProcessRow).where(ProcessRow.process_id.in_(process_ids)))

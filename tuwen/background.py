"""What runs beside the requests: how loops wait for what is down, come back after a failure, take turns, and stop."""

import asyncio
import contextvars
import logging
import signal
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy import orm
from sqlalchemy.exc import IntegrityError

from orm_models import LeaseRow, utc_now
from tuwen.database.engine import Database
from tuwen.errors import AppError, DependencyUnavailable, Overloaded
from tuwen.pulse import BEAT_EVERY_S, Pulses, beat, patiently

Result = TypeVar("Result")
Loop = Callable[[], Awaitable[None]]

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 0.5
RESTART_PAUSE_S = 2.0
LEASE_TIME = timedelta(minutes=2)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def until_up(
    who: str, step: Callable[[], Awaitable[Result]], *, max_wait_s: float, first_wait_s: float = FIRST_WAIT_S
) -> Result:
    """Try again for as long as something that the step needs is down, at growing intervals; the log says who waits."""

    async def attempt() -> Result:  # tenacity awaits only what is declared with async
        beat()
        return await step()

    async def sleep(seconds: float) -> None:
        await patiently(asyncio.sleep(seconds))

    return await tenacity.AsyncRetrying(**_while_down(who, first_wait_s, max_wait_s), sleep=sleep)(attempt)


def until_up_or_stopped(
    who: str, step: Callable[[], Result], stopping: threading.Event, *, max_wait_s: float
) -> Result | None:
    """The same on a thread of its own; None where `stopping` ended the wait, after which nothing is begun."""

    def attempt() -> Result | None:
        beat()
        return None if stopping.is_set() else step()

    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stopping.wait(BEAT_EVERY_S):
            beat()

    return tenacity.Retrying(**_while_down(who, FIRST_WAIT_S, max_wait_s), sleep=sleep)(attempt)


class WorkPool:
    """Threads for one kind of work, and a bound on what waits for them: what hangs here takes nothing else with it."""

    def __init__(
        self, name: str, *, threads: int, max_waiting: int, prepare_thread: Callable[[], None] | None = None
    ) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=prepare_thread)
        self._limit = threads + max_waiting
        self._taken = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Raises Overloaded at once where too much waits already. Work that nobody waits for any more is not begun."""
        with self._lock:
            if self._taken >= self._limit:
                raise Overloaded(f"{self._taken} pieces of work wait for {self._name} already; try again in a second.")
            self._taken += 1
        try:
            future = self._executor.submit(contextvars.copy_context().run, work, *arguments)
        except RuntimeError:  # no new thread is to be had
            self._let_go()
            raise
        future.add_done_callback(self._let_go)
        try:
            return await asyncio.wrap_future(future)
        finally:
            # With its error it holds this frame, which holds it, and an upload: none waits for the garbage collector.
            del future

    def _let_go(self, _: Future[Any] | None = None) -> None:
        with self._lock:
            self._taken -= 1


class LeaseLost(Exception):
    """It ran out during a long pause, and another process took it: stop at once, and touch nothing more."""


class Lease:
    """The right to do what one process at a time may do, kept in the database.

    Take it, keep it before each bounded step, give it back. A holder that dies or hangs loses it after `LEASE_TIME`;
    its successor goes on from the progress that it left. The clocks of all processes must agree to within a minute.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._holder = uuid.uuid4().hex

    def take(self) -> dict[str, Any] | None:
        """How far the one before came, who did not finish; empty at a fresh start. None while somebody else has it."""
        try:
            with self._database.write() as session:
                if not self._update(session, sa.or_(self._is_mine, LeaseRow.expires_at < utc_now()), {}):
                    expires_at = utc_now() + LEASE_TIME
                    session.add(LeaseRow(name=self._name, holder=self._holder, expires_at=expires_at, progress={}))
        except IntegrityError:  # somebody else has it, or took it this moment
            return None
        with self._database.read() as session:
            return session.get_one(LeaseRow, self._name).progress

    def left(self) -> dict[str, Any]:
        """How far its holder is, or the last one came; empty where all was finished."""
        with self._database.read() as session:
            row = session.get(LeaseRow, self._name)
            return row.progress if row else {}

    def keep(self, progress: Mapping[str, Any]) -> None:
        """Raises LeaseLost, even where whoever took it has given it back since: what was read before is old."""
        with self._database.write() as session:
            if not self._update(session, self._is_mine, {"progress": dict(progress)}):
                raise LeaseLost(self._name)

    def give_back(self, progress: Mapping[str, Any]) -> None:
        """Anybody may take it now. Nothing where it is lost: how far it is, its present holder says."""
        with self._database.write() as session:
            self._update(session, self._is_mine, self._given_back(progress))

    def end(self, session: orm.Session) -> None:
        """Given back with all done, in one transaction with what the work comes to. Raises LeaseLost."""
        if not self._update(session, self._is_mine, self._given_back({})):
            raise LeaseLost(self._name)

    @property
    def _is_mine(self) -> sa.ColumnElement[bool]:
        return LeaseRow.holder == self._holder

    @staticmethod
    def _given_back(progress: Mapping[str, Any]) -> dict[str, Any]:
        return {"progress": dict(progress), "expires_at": utc_now() - LEASE_TIME}

    def _update(self, session: orm.Session, may: sa.ColumnElement[bool], values: dict[str, Any]) -> bool:
        updated: sa.CursorResult[Any] = session.execute(  # type: ignore[assignment]  # an UPDATE's is one
            sa.update(LeaseRow)
            .where(LeaseRow.name == self._name, may)
            .values({"holder": self._holder, "expires_at": utc_now() + LEASE_TIME} | values)
            .execution_options(synchronize_session=False)
        )
        return updated.rowcount == 1


def read_progress(session: orm.Session, lease: str) -> dict[str, Any]:
    """How far the holder of a lease is, or the last one came; empty where nobody ever took it."""
    return session.scalar(sa.select(LeaseRow.progress).where(LeaseRow.name == lease)) or {}


async def keep_running(name: str, run: Loop) -> None:
    """A loop that an unexpected error must not end for good."""
    while True:
        beat()
        try:
            await run()
        except Exception:
            logger.exception("%s failed unexpectedly, and starts again in %.0f s", name, RESTART_PAUSE_S)
        await asyncio.sleep(RESTART_PAUSE_S)


@asynccontextmanager
async def running_loops(loops: Mapping[str, Loop], pulses: Pulses) -> AsyncIterator[None]:
    """Each loop as a task, by name and with a pulse of its own, until the block ends."""

    async def with_pulse(name: str, run: Loop) -> None:
        with pulses.of(name):
            await keep_running(name, run)

    tasks = [asyncio.create_task(with_pulse(name, run), name=name) for name, run in loops.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


@contextmanager
def told_to_stop() -> Iterator[asyncio.Event]:
    """Set at SIGTERM or Ctrl-C. Whatever handled these signals before still does, afterwards.

    A web server's own handler waits for open answers before the application hears of the stop: those that could stay
    open for long watch this event.
    """
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield stopping  # Python lets only the main thread handle signals
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOP_SIGNALS}

    def notice(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in STOP_SIGNALS:
        signal.signal(number, notice)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _while_down(who: str, first_wait_s: float, max_wait_s: float) -> dict[str, Any]:
    def say_that_it_waits(state: tenacity.RetryCallState) -> None:
        assert state.next_action is not None, "tenacity sets it before a sleep"
        error = state.outcome.exception() if state.outcome else None
        reason = error.detail if isinstance(error, AppError) else error
        logger.warning("%s waits %.1f s: %s", who, state.next_action.sleep, reason)

    return {
        "retry": tenacity.retry_if_exception_type(DependencyUnavailable),
        "wait": tenacity.wait_exponential(multiplier=first_wait_s, max=max_wait_s),
        "before_sleep": say_that_it_waits,
    }

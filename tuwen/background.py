"""What runs beside the requests: how loops wait for what is down, come back after a failure, and stop."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

import tenacity

from tuwen.errors import AppError, DependencyUnavailable

Result = TypeVar("Result")
Loop = Callable[[], Awaitable[None]]

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 0.5
RESTART_PAUSE_S = 2.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def until_up(
    step: Callable[[], Awaitable[Result]], *, max_wait_s: float, first_wait_s: float = FIRST_WAIT_S
) -> Result:
    """Try again for as long as something that the step needs is down, at growing intervals."""
    retrying = tenacity.AsyncRetrying(**_while_down(first_wait_s, max_wait_s))
    return await retrying(step)


def until_up_or_stopped(step: Callable[[], Result], stopping: threading.Event, *, max_wait_s: float) -> Result | None:
    """The same on a thread of its own; None where `stopping` ended the wait."""
    retrying = tenacity.Retrying(
        **_while_down(FIRST_WAIT_S, max_wait_s),
        sleep=tenacity.sleep_using_event(stopping),
        stop=tenacity.stop_when_event_set(stopping),
        retry_error_callback=lambda _: None,
    )
    return retrying(step)


async def keep_running(name: str, run: Loop) -> None:
    """A loop that an unexpected error must not end for good."""
    while True:
        try:
            await run()
        except Exception:
            logger.exception("%s failed unexpectedly, and starts again in %.0f s", name, RESTART_PAUSE_S)
        await asyncio.sleep(RESTART_PAUSE_S)


@asynccontextmanager
async def running_loops(loops: Mapping[str, Loop]) -> AsyncIterator[None]:
    """Each loop as a task, by name, until the block ends."""
    tasks = [asyncio.create_task(keep_running(name, run), name=name) for name, run in loops.items()]
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
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

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


def _while_down(first_wait_s: float, max_wait_s: float) -> dict[str, Any]:
    return {
        "retry": tenacity.retry_if_exception_type(DependencyUnavailable),
        "wait": tenacity.wait_exponential(multiplier=first_wait_s, max=max_wait_s),
        "before_sleep": _say_that_it_waits,
    }


def _say_that_it_waits(state: tenacity.RetryCallState) -> None:
    assert state.next_action is not None, "tenacity sets it before a sleep"
    error = state.outcome.exception() if state.outcome else None
    reason = error.detail if isinstance(error, AppError) else error
    logger.warning("Waiting %.1f s: %s", state.next_action.sleep, reason)

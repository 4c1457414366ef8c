"""Waiting for what is down, and stopping: on a thread and on a loop."""

import asyncio
import threading

import pytest

from tuwen.background import told_to_stop, until_up, until_up_or_stopped
from tuwen.errors import DatabaseUnavailable, NotFound


class Down:
    """Fails so many times, and says when it was tried."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tries = 0
        self.tried = threading.Event()

    def step(self) -> str:
        self.tries += 1
        self.tried.set()
        if self.tries <= self.failures:
            raise DatabaseUnavailable("it is away")
        return "done"

    async def async_step(self) -> str:
        return self.step()


def test_what_is_down_is_tried_until_it_is_up_and_the_log_says_who_waits(caplog: pytest.LogCaptureFixture) -> None:
    down = Down(3)
    assert asyncio.run(until_up("Ingestion", down.async_step, first_wait_s=0.01, max_wait_s=0.02)) == "done"
    assert down.tries == 4
    waits = [record.getMessage() for record in caplog.records]
    assert waits == ["Ingestion waits 0.0 s: it is away"] * 3
    assert until_up_or_stopped("Drawing", Down(0).step, threading.Event(), max_wait_s=1) == "done"


def test_what_is_wrong_and_not_down_is_not_tried_again() -> None:
    def missing() -> None:
        raise NotFound("no such thing")

    with pytest.raises(NotFound):
        until_up_or_stopped("Drawing", missing, threading.Event(), max_wait_s=1)


def test_nothing_is_begun_after_the_stop() -> None:
    down, stopping, results = Down(100), threading.Event(), list[str | None]()
    waiting = threading.Thread(
        target=lambda: results.append(until_up_or_stopped("Drawing", down.step, stopping, max_wait_s=60))
    )
    waiting.start()
    assert down.tried.wait(10)
    stopping.set()
    waiting.join(10)
    assert (results, down.tries) == ([None], 1)


def test_a_thread_that_is_told_nothing_of_signals_runs_all_the_same() -> None:
    async def scenario() -> bool:
        with told_to_stop() as stopping:
            return stopping.is_set()

    assert asyncio.run(asyncio.wait_for(asyncio.to_thread(lambda: asyncio.run(scenario())), 10)) is False

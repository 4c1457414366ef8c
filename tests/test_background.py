"""Waiting for what is down, and stopping: on a thread and on a loop."""

import asyncio
import threading

import pytest

from tuwen.background import Budget, told_to_stop, until_up, until_up_or_stopped
from tuwen.errors import DatabaseUnavailable, NotFound, Overloaded


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


def test_a_budget_lets_in_what_there_is_and_the_others_in_turn() -> None:
    async def scenario() -> None:
        budget, order = Budget("Room", 10), list[str]()

        async def use(name: str, amount: int, done: asyncio.Event) -> None:
            async with budget.share(amount, max_wait_s=None):
                order.append(name)
                await done.wait()

        first, later = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(use("six", 6, first)), asyncio.create_task(use("four", 4, later))]
        # The third is more than there is at all: it waits for both, and whoever comes after it does not overtake.
        tasks += [asyncio.create_task(use("huge", 99, later)), asyncio.create_task(use("one", 1, later))]
        await until_settled()
        assert order == ["six", "four"]
        first.set()
        await until_settled()
        assert order == ["six", "four"]
        later.set()
        await asyncio.gather(*tasks)
        assert order == ["six", "four", "huge", "one"]

    asyncio.run(scenario())


def test_whoever_gives_up_waiting_for_a_budget_is_in_nobodys_way() -> None:
    async def scenario() -> None:
        budget = Budget("Room", 10)
        await budget.take(8, max_wait_s=None)
        with pytest.raises(Overloaded, match=r"Room was not to be had for 0\.01 s"):
            await budget.take(5, max_wait_s=0.01)
        hung_up, small = (asyncio.create_task(budget.take(amount, max_wait_s=None)) for amount in (9, 2))
        await until_settled()
        assert not small.done()
        hung_up.cancel()
        await small
        budget.give_back(8)
        budget.give_back(2)
        await budget.take(10, max_wait_s=0)  # all of it is there again

    asyncio.run(scenario())


async def until_settled() -> None:
    """Whatever can go on without anything from outside has done so."""
    for _ in range(10):
        await asyncio.sleep(0)

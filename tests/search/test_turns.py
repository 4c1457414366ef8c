"""What waits together is answered together, and who is to blame fails alone."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from tuwen.errors import Overloaded
from tuwen.search.turns import Turns


class Work:
    """Answers numbers with their doubles, the first turn once it may; 13 it can't."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def double_all(self, numbers: Sequence[int]) -> list[int]:
        self.turns.append([*numbers])
        self.has_begun.set()
        assert self.may_end.wait(30)
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


def test_what_comes_during_a_turn_is_the_next() -> None:
    work = Work()

    async def ask() -> list[int | BaseException]:
        turns = Turns("doubling", work.double_all, lanes=1, queue_size=9)
        tasks = [asyncio.create_task(turns.ask(number)) for number in range(6)]
        gone = tasks.pop()
        await asyncio.sleep(0)
        gone.cancel()
        work.may_end.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8]
    assert sorted(number for turn in work.turns for number in turn) == [0, 1, 2, 3, 4]
    assert len(work.turns) <= 2


def test_one_that_fails_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    work.may_end.set()

    async def ask() -> list[int | BaseException]:
        turns = Turns("doubling", work.double_all, lanes=1, queue_size=9)
        return await asyncio.gather(*map(turns.ask, (1, 13, 3)), return_exceptions=True)

    first, failed, last = asyncio.run(ask())
    assert (first, last, str(failed)) == (2, 6, "thirteen")
    assert "taken in halves" in caplog.text


def test_too_many_are_refused_at_once() -> None:
    work = Work()

    async def ask() -> list[int | BaseException]:
        turns = Turns("doubling", work.double_all, lanes=1, queue_size=2)
        tasks = [asyncio.create_task(turns.ask(0))]
        await asyncio.to_thread(work.has_begun.wait, 30)
        tasks += [asyncio.create_task(turns.ask(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        work.may_end.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    *answered, refused = asyncio.run(ask())
    assert answered == [0, 2, 4]
    assert isinstance(refused, Overloaded)
    assert [number for turn in work.turns for number in turn] == [0, 1, 2]  # and 3 was never queued


def test_who_hung_up_takes_nobodys_place() -> None:
    work = Work()

    async def ask() -> list[int]:
        turns = Turns("doubling", work.double_all, lanes=1, queue_size=2)
        first = asyncio.create_task(turns.ask(0))
        await asyncio.to_thread(work.has_begun.wait, 30)
        for number in (1, 2):
            turns.begin(number).cancel()
        third = asyncio.create_task(turns.ask(3))
        await asyncio.sleep(0)
        work.may_end.set()
        return [*await asyncio.gather(first, third)]

    assert asyncio.run(ask()) == [0, 6]
    assert work.turns == [[0], [3]]

"""A budget's shares: in turn, some before others, and nobody for ever in another's way."""

import asyncio

import pytest

from tuwen.budget import MOST_OVERTAKING, Budget
from tuwen.errors import Overloaded


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


def test_some_come_first_and_the_others_have_their_turn_all_the_same() -> None:
    async def scenario() -> list[str]:
        budget, order = Budget("Room", 10), list[str]()

        async def use(name: str, amount: int, *, comes_first: bool) -> None:
            await budget.take(amount, max_wait_s=None, comes_first=comes_first)
            order.append(name)
            budget.give_back(amount)

        await budget.take(10, max_wait_s=None)
        async with asyncio.TaskGroup() as tasks:
            for number in range(2):
                tasks.create_task(use(f"import {number}", 10, comes_first=False))
            await until_settled()
            for number in range(MOST_OVERTAKING + 2):
                tasks.create_task(use(f"search {number}", 10, comes_first=True))
            await until_settled()
            budget.give_back(10)
        return order

    searches = [f"search {number}" for number in range(MOST_OVERTAKING + 2)]
    first, later = searches[:MOST_OVERTAKING], searches[MOST_OVERTAKING:]
    assert asyncio.run(scenario()) == [*first, "import 0", *later, "import 1"]


async def until_settled() -> None:
    """Whatever can go on without anything from outside has done so."""
    for _ in range(10):
        await asyncio.sleep(0)

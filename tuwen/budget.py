"""How much there is of something at once, and who is given it first."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tuwen.errors import Overloaded

MOST_OVERTAKING = 3


class Budget:
    """So much of something at once. Whoever waits for a share holds no thread, and is served in turn: those that come
    first before all others, of which one has its turn after `MOST_OVERTAKING` of them."""

    def __init__(self, what: str, capacity: int) -> None:
        self._what = what
        self._capacity = self._free = capacity
        self._first: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._others: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._overtook = 0

    async def take(self, amount: int, *, max_wait_s: float | None, comes_first: bool = False) -> None:
        """More than there is at all waits until nobody else has any. Raises Overloaded after `max_wait_s`."""
        granted = asyncio.get_running_loop().create_future()
        (self._first if comes_first else self._others).append((min(amount, self._capacity), granted))
        self._serve()
        try:
            async with asyncio.timeout(max_wait_s):
                await granted
        except TimeoutError as error:
            self._leave(amount, granted)
            message = f"{self._what} was not to be had for {max_wait_s:g} s; try again in a few seconds."
            raise Overloaded(message) from error
        except asyncio.CancelledError:
            self._leave(amount, granted)
            raise

    def give_back(self, amount: int) -> None:
        self._free += min(amount, self._capacity)
        self._serve()

    @asynccontextmanager
    async def share(self, amount: int, *, max_wait_s: float | None) -> AsyncIterator[None]:
        """Taken until the block ends. Raises Overloaded."""
        await self.take(amount, max_wait_s=max_wait_s)
        try:
            yield
        finally:
            self.give_back(amount)

    def _leave(self, amount: int, granted: asyncio.Future[None]) -> None:
        if granted.done() and not granted.cancelled():  # in the very moment in which the wait ended
            self.give_back(amount)
        else:
            granted.cancel()
            self._serve()  # whoever stands behind may need less

    def _serve(self) -> None:
        while queue := self._next_queue():
            amount, granted = queue[0]
            if amount > self._free:
                return
            self._free -= amount
            granted.set_result(None)
            queue.popleft()
            self._overtook = self._overtook + 1 if queue is self._first and self._others else 0

    def _next_queue(self) -> deque[tuple[int, asyncio.Future[None]]]:
        """Empty where nobody waits."""
        for queue in (self._first, self._others):
            while queue and queue[0][1].done():  # it has given up
                queue.popleft()
        is_others_turn = self._others and self._overtook >= MOST_OVERTAKING
        return self._first if self._first and not is_others_turn else self._others

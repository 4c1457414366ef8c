"""Who has the model next, where several batchers share one: queries before the index, short before long."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import NamedTuple

# Whoever has waited so long goes before all who have not: searches without end must not stop ingestion, nor forty
# clients' texts a picture.
LONGEST_WAIT_S = 1.0


class Urgency(IntEnum):
    SHORT_QUERY = 0
    LONG_QUERY = 1
    BULK = 2


class Claim(NamedTuple):
    urgency: Urgency
    since: float
    """On the monotonic clock, when the oldest of its items came."""

    def rank(self, now: float) -> tuple[int, float]:
        return (-1 if now - self.since > LONGEST_WAIT_S else self.urgency, self.since)


class Turns:
    """One at a time. Who is next is decided when the model is free, by what waits then. For one event loop."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: dict[asyncio.Future[None], Callable[[], Claim]] = {}

    @asynccontextmanager
    async def take(self, claim: Callable[[], Claim]) -> AsyncIterator[None]:
        if self._is_taken:
            turn = asyncio.get_running_loop().create_future()
            self._waiting[turn] = claim
            try:
                await turn
            except BaseException:
                if self._waiting.pop(turn, None) is None:  # it was given already
                    self._give_back()
                raise
        self._is_taken = True
        try:
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        """Not passed on at once: whoever gives it back may be about to claim it again, for something more urgent."""
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """Still taken for whoever is next, so that no newcomer slips in between."""
        now = time.monotonic()
        self._is_taken = bool(self._waiting)
        if self._waiting:
            turn = min(self._waiting, key=lambda waiting: self._waiting[waiting]().rank(now))
            del self._waiting[turn]
            turn.set_result(None)

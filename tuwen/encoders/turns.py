"""Who has the model next, where several batchers share one: queries before the index, short before long, and nobody
for ever behind the others.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count
from typing import NamedTuple, TypeAlias

# Whoever has waited so long has every second turn, or shares it: searches without end must not stop ingestion, nor
# forty clients' texts a picture.
LONGEST_WAIT_S = 1.0


class Urgency(IntEnum):
    SHORT_QUERY = 0
    LONG_QUERY = 1
    BULK = 2


class Claim(NamedTuple):
    urgency: Urgency
    since: float
    """On the monotonic clock, when the oldest of its items came."""


Claims: TypeAlias = Callable[[], Sequence[Claim]]
"""What one batcher would do with a turn: at least one."""


class Fairness:
    """Chooses by what the last turns were given to."""

    def __init__(self) -> None:
        self._turns = count(1)
        self._served = dict.fromkeys(Urgency, 0)
        """The number of each one's last turn."""

    def choose(self, claims: Sequence[Claim], now: float) -> Claim:
        """The most urgent, the oldest of those; after it something else that has waited for too long.

        A short query is put off by one batch of others at most: after that one it is the most urgent again.
        """
        last = max(Urgency, key=self._served.__getitem__)
        chosen = min(claims)
        if chosen.urgency is not Urgency.SHORT_QUERY or last is Urgency.SHORT_QUERY:
            late = [each for each in claims if each.urgency is not last and now - each.since >= LONGEST_WAIT_S]
            if late:
                chosen = min(late, key=lambda claim: (self._served[claim.urgency], claim.since))
        self._served[chosen.urgency] = next(self._turns)
        return chosen


class Turns:
    """One at a time. Who is next is decided when the model is free, by what waits then. For one event loop."""

    def __init__(self) -> None:
        self._is_taken = False
        self._fairness = Fairness()
        self._waiting: dict[asyncio.Future[Claim], Claims] = {}

    @asynccontextmanager
    async def take(self, claims: Claims) -> AsyncIterator[Urgency]:
        """What the turn is for."""
        if self._is_taken:
            turn = asyncio.get_running_loop().create_future()
            self._waiting[turn] = claims
            try:
                claim: Claim = await turn
            except BaseException:
                if self._waiting.pop(turn, None) is None:  # it was given already
                    self._give_back()
                raise
        else:
            claim = self._fairness.choose(claims(), time.monotonic())
        self._is_taken = True
        try:
            yield claim.urgency
        finally:
            self._give_back()

    def _give_back(self) -> None:
        """Not passed on at once: whoever gives it back may be about to claim it again, for something more urgent."""
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """Still taken for whoever is next, so that no newcomer slips in between."""
        self._is_taken = bool(self._waiting)
        if self._waiting:
            of_turns = [(claim, turn) for turn, claims in self._waiting.items() for claim in claims()]
            chosen = self._fairness.choose([claim for claim, _ in of_turns], time.monotonic())
            turn = next(turn for claim, turn in of_turns if claim is chosen)
            del self._waiting[turn]
            turn.set_result(chosen)

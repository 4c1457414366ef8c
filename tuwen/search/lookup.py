"""Searches that wait together ask the stores together, step by step (`nearest.py`): who takes the next turn, with whom.

No timer fills a turn: while one is under way the next gathers by itself, and a search that comes alone goes at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tuwen.background import WorkPool
from tuwen.database.engine import Database
from tuwen.errors import Overloaded
from tuwen.request_ids import context_of_no_request
from tuwen.search.nearest import Found, Lookup, NearestProducts, Step
from tuwen.search.turns import outcomes_of
from vector_db import VectorDB

MAX_BATCH = 64
# In hits: what others wait for, at most, unless one step alone costs more.
TURN_COST = 2048
# While cheap steps wait, so many times as long as the last costly turn took goes to them.
CHEAP_SHARE = 2.0


@dataclass(eq=False)
class _Waiting:
    step: Step
    future: asyncio.Future[Found] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Lookups:
    """`lanes`: how many turns may be under way at once.

    Whoever wants few waits for cheap steps beside him, and for one costly step now and then: pages far down, more of
    the nearest, rows by their names. Those take turns with each other, a step each.
    """

    def __init__(self, database: Database, vector_db: VectorDB, *, lanes: int, queue_size: int) -> None:
        self._nearest = NearestProducts(database, vector_db)
        self._threads = WorkPool("looking-up", threads=lanes, max_waiting=lanes)
        self._queue_size = queue_size
        self._free_lanes = lanes
        self._cheap: deque[_Waiting] = deque()
        self._costly: deque[_Waiting] = deque()
        self._costly_at_work = 0
        self._owed_to_cheap_s = 0.0
        self._at_work: set[asyncio.Task[None]] = set()

    async def find(self, lookup: Lookup) -> Found:
        """Raises Overloaded, VectorDBUnavailable, VectorsRejected or DatabaseUnavailable."""
        return await self.begin(lookup)

    def begin(self, lookup: Lookup) -> asyncio.Future[Found]:
        """The same; what is to be found. Who waits for several at once needs no task for each."""
        mine = _Waiting(Step.first(lookup))
        if len(self._cheap) + len(self._costly) >= self._queue_size:  # those who hung up take nobody's place
            self._cheap, self._costly = map(_still_waiting, (self._cheap, self._costly))
        waiting = len(self._cheap) + len(self._costly)
        if waiting >= self._queue_size:
            mine.future.set_exception(Overloaded(f"{waiting} searches wait for Milvus already; try again in a second."))
            return mine.future
        self._wait(mine)
        if self._free_lanes:
            self._free_lanes -= 1
            task = asyncio.create_task(self._work(), context=context_of_no_request())
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)
        return mine.future

    def _wait(self, waiting: _Waiting) -> None:
        (self._cheap if waiting.step.is_cheap else self._costly).append(waiting)

    async def _work(self) -> None:
        try:
            while turn := self._next_turn():
                started = time.monotonic()
                if turn[0].step.is_cheap:
                    await self._answer(turn)
                    self._owed_to_cheap_s -= time.monotonic() - started
                    continue
                self._costly_at_work += 1
                await self._answer(turn)
                self._costly_at_work -= 1
                self._owed_to_cheap_s = CHEAP_SHARE * (time.monotonic() - started)
        finally:
            self._free_lanes += 1

    def _next_turn(self) -> list[_Waiting]:
        if not self._costly_at_work and self._owed_to_cheap_s <= 0 and (turn := _taken_from(self._costly)):
            return turn
        return _taken_from(self._cheap) or _taken_from(self._costly)

    async def _answer(self, turn: Sequence[_Waiting]) -> None:
        outcomes = await outcomes_of(self._threads, self._nearest.take, [waiting.step for waiting in turn])
        for waiting, outcome in zip(turn, outcomes, strict=True):
            if waiting.future.done():
                continue
            if isinstance(outcome, Exception):
                waiting.future.set_exception(outcome)
            elif isinstance(outcome, Found):
                waiting.future.set_result(outcome)
            else:
                waiting.step = outcome
                self._wait(waiting)
        await asyncio.sleep(0)  # who was answered, and asks again at once, is before the costly


def _still_waiting(queue: deque[_Waiting]) -> deque[_Waiting]:
    return deque(each for each in queue if not each.future.done())


def _taken_from(queue: deque[_Waiting]) -> list[_Waiting]:
    """As many as one turn takes; whoever hung up meanwhile is not worked for."""
    turn: list[_Waiting] = []
    cost = 0
    while queue and len(turn) < MAX_BATCH and (not turn or cost + queue[0].step.cost <= TURN_COST):
        waiting = queue.popleft()
        if not waiting.future.done():
            turn.append(waiting)
            cost += waiting.step.cost
    return turn

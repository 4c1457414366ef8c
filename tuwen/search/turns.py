"""What waits together is answered together: while one turn is under way the next gathers by itself."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from tuwen.background import WorkPool
from tuwen.errors import AppError, Overloaded
from tuwen.request_ids import context_of_no_request

logger = logging.getLogger(__name__)

MAX_TURN = 32

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Turns(Generic[Asked, Answer]):
    """`answer_all`: blocks, and has one answer for each of what is asked. `lanes`: turns that may be under way at
    once."""

    def __init__(
        self,
        name: str,
        answer_all: Callable[[Sequence[Asked]], Sequence[Answer]],
        *,
        lanes: int,
        queue_size: int,
        most: int = MAX_TURN,
    ) -> None:
        """`most`: of one turn."""
        self._name = name
        self._answer_all = answer_all
        self._threads = WorkPool(name, threads=lanes, max_waiting=lanes)
        self._queue_size = queue_size
        self._most = most
        self._free_lanes = lanes
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._at_work: set[asyncio.Task[None]] = set()

    async def ask(self, asked: Asked) -> Answer:
        """Raises Overloaded at once where too much waits already, and what `answer_all` does."""
        return await self.begin(asked)

    def begin(self, asked: Asked) -> asyncio.Future[Answer]:
        """The same; the answer to come. Who waits for several at once needs no task for each."""
        mine: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= self._queue_size:  # those who hung up take nobody's place
            self._waiting = deque(each for each in self._waiting if not each[1].done())
        if len(self._waiting) >= self._queue_size:
            waiting = f"{len(self._waiting)} searches wait for {self._name} already"
            mine.set_exception(Overloaded(f"{waiting}; try again in a second."))
            return mine
        self._waiting.append((asked, mine))
        if self._free_lanes:
            self._free_lanes -= 1
            task = asyncio.create_task(self._work(), context=context_of_no_request())
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)
        return mine

    async def _work(self) -> None:
        try:
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                await self._answer([each for each in taken if not each[1].done()])
        finally:
            self._free_lanes += 1

    async def _answer(self, turn: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        outcomes = await outcomes_of(self._threads, self._answer_all, [asked for asked, _ in turn])
        for (_, future), outcome in zip(turn, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


async def outcomes_of(
    threads: WorkPool, answer_all: Callable[[Sequence[Asked]], Sequence[Answer]], turn: Sequence[Asked]
) -> Sequence[Answer | Exception]:
    """Of a turn: where all failed for no reason that concerns all, each half is tried, down to who is to blame."""
    if not turn:
        return []
    try:
        return await threads.run(answer_all, turn)
    except Exception as error:
        if len(turn) == 1 or isinstance(error, AppError):
            return [error] * len(turn)
        logger.exception("A turn of %d searches failed; it is taken in halves", len(turn))
        halves = turn[: len(turn) // 2], turn[len(turn) // 2 :]
        return [outcome for half in halves for outcome in await outcomes_of(threads, answer_all, half)]

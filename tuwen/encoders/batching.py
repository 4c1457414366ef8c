"""A micro-batcher in front of an encoder: callers wait for one item each, the model sees batches.

Queries go before bulk work, so that indexing a catalogue does not hold up searches for longer than one small batch.
Every future ends in a result or an exception, at shutdown too; one item that the model can't take fails alone.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tuwen.errors import EncodingFailed, ModelsUnavailable, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

STALLED_AFTER_S = 60.0  # far longer than the largest batch of the largest model takes on a processor


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class MicroBatcher(Generic[Item, Result]):
    """Runs `process` (batch in, as many results out, in order) on `executor`, one batch at a time.

    No timer fills batches: while one batch runs the next gathers by itself, and an idle model answers at once.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Sequence[Result]],
        executor: Executor,
        *,
        batch_size: int,
        bulk_batch_size: int,
        queue_size: int,
    ) -> None:
        self._process = process
        self._executor = executor
        self._batch_size = batch_size
        self._bulk_batch_size = bulk_batch_size
        self._queue_size = queue_size
        self._queries: deque[_Waiting[Item, Result]] = deque()
        self._bulk: deque[_Waiting[Item, Result]] = deque()
        self._wakeup = asyncio.Event()
        self._closed = False
        self._under_way: list[_Waiting[Item, Result]] = []
        self._busy_since: float | None = None
        self._loop = asyncio.create_task(self._run())

    async def query(self, item: Item) -> Result:
        """One search's item. Raises Overloaded when too many wait already."""
        if len(self._queries) >= self._queue_size:
            raise Overloaded(f"{len(self._queries)} searches wait for the model already; try again in a second.")
        return await self._enqueue(self._queries, item)

    async def bulk(self, item: Item) -> Result:
        """One item of the index, behind all queries. The caller bounds how many."""
        return await self._enqueue(self._bulk, item)

    def check(self, *, stalled_after_s: float = STALLED_AFTER_S) -> None:
        """Raises ModelsUnavailable when nothing would be answered any more, or one batch has been under way so long."""
        self._require_loop()
        if self._busy_since is not None and time.monotonic() - self._busy_since >= stalled_after_s:
            raise ModelsUnavailable(f"The model has not answered for {time.monotonic() - self._busy_since:.0f} s.")

    async def close(self) -> None:
        """Finish the batch under way; whatever waits behind it ends in Overloaded."""
        self._closed = True
        self._wakeup.set()
        await asyncio.wait([self._loop])

    def _require_loop(self) -> None:
        if self._loop.done():
            raise ModelsUnavailable("The loop that feeds the model has ended: restart the service; its log says why.")

    async def _enqueue(self, queue: deque[_Waiting[Item, Result]], item: Item) -> Result:
        if self._closed:
            raise Overloaded("The service is stopping; try again in a moment.")
        self._require_loop()
        waiting: _Waiting[Item, Result] = _Waiting(item)
        queue.append(waiting)
        self._wakeup.set()
        return await waiting.future

    async def _run(self) -> None:
        try:
            await self._feed_model()
        except Exception:
            logger.exception("The loop that feeds the model has ended")
        finally:
            for waiting in (*self._under_way, *self._queries, *self._bulk):
                if not waiting.future.done():
                    waiting.future.set_exception(Overloaded("The service is stopping; try again in a moment."))

    async def _feed_model(self) -> None:
        while True:
            await self._wakeup.wait()
            if self._closed:
                return
            batch = self._next_batch()
            if batch:
                self._under_way, self._busy_since = batch, time.monotonic()
                await self._process_batch(batch)
                self._under_way, self._busy_since = [], None
            else:
                self._wakeup.clear()

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        queue, size = (self._queries, self._batch_size) if self._queries else (self._bulk, self._bulk_batch_size)
        batch: list[_Waiting[Item, Result]] = []
        while queue and len(batch) < size:
            waiting = queue.popleft()
            if not waiting.future.done():  # whoever hung up meanwhile is not worked for
                batch.append(waiting)
        return batch

    async def _process_batch(self, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._process, [waiting.item for waiting in batch]
            )
            answers = list(zip(batch, results, strict=True))
        except Exception as error:
            await self._fail_or_split(batch, error)
            return
        for waiting, result in answers:
            if not waiting.future.done():
                waiting.future.set_result(result)

    async def _fail_or_split(self, batch: list[_Waiting[Item, Result]], error: Exception) -> None:
        if len(batch) == 1:
            logger.warning("An item can't be encoded", exc_info=error)
            if not batch[0].future.done():
                failure = EncodingFailed(f"The model can't encode this: {error!r}")
                failure.__cause__ = error
                batch[0].future.set_exception(failure)
            return
        for waiting in batch:
            await self._process_batch([waiting])

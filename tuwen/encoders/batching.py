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

# One call, 16 pictures, of the largest model (ViT-H/14 at 336 pixels) takes about 45 s on two cores.
STALLED_AFTER_S = 180.0


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
        self._called_at: float | None = None
        """When the model was given what it works on now; None while it works for others, or not at all."""
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
        """Raises ModelsUnavailable when nothing would be answered any more, or the model is at one call for so long."""
        self._require_loop()
        called_at = self._called_at
        if called_at is not None and time.monotonic() - called_at >= stalled_after_s:
            raise ModelsUnavailable(f"The model has not answered for {time.monotonic() - called_at:.0f} s.")

    async def close(self) -> None:
        """Finish the batch under way; whatever waits behind it ends in Overloaded."""
        self._closed = True
        self._wakeup.set()
        await asyncio.wait([self._loop])

    def _require_loop(self) -> None:
        if self._loop.done():
            raise _loop_has_ended()

    async def _enqueue(self, queue: deque[_Waiting[Item, Result]], item: Item) -> Result:
        if self._closed:
            raise _stopping()
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
                    waiting.future.set_exception(_stopping() if self._closed else _loop_has_ended())

    async def _feed_model(self) -> None:
        while True:
            await self._wakeup.wait()
            if self._closed:
                return
            batch = self._next_batch()
            if batch:
                self._under_way = batch
                await self._process_batch(batch)
                self._under_way = []
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
                self._executor, self._call_model, [waiting.item for waiting in batch]
            )
            answers = list(zip(batch, results, strict=True))
        except Exception as error:
            await self._fail_or_split(batch, error)
            return
        for waiting, result in answers:
            if not waiting.future.done():
                waiting.future.set_result(result)

    def _call_model(self, items: Sequence[Item]) -> Sequence[Result]:
        """On the model's thread, which other batchers may share: waiting for them is no stall."""
        self._called_at = time.monotonic()
        try:
            return self._process(items)
        finally:
            self._called_at = None

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


def _stopping() -> Overloaded:
    return Overloaded("The service is stopping; try again in a moment.")


def _loop_has_ended() -> ModelsUnavailable:
    return ModelsUnavailable("The loop that feeds the model has ended: restart the service; its log says why.")

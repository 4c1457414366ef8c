"""A micro-batcher in front of an encoder: callers wait for one item each, the model sees batches.

Queries go before bulk work, so that indexing a catalogue does not hold up searches for longer than one small batch;
what `turns.py` says of those that wait for too long holds within one batcher, too.
Every future ends in a result or an exception, at shutdown too. One item that the model can't take fails alone; where
the model fails whatever it is given (out of memory, a lost device), nobody's item is blamed for it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, TypedDict, TypeVar

from tuwen.encoders.turns import Claim, Turns, Urgency
from tuwen.errors import AppError, EncodingFailed, ModelsUnavailable, Overloaded
from tuwen.request_ids import context_of_no_request

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

# One call, 16 pictures, of the largest model (ViT-H/14 at 336 pixels) takes about 45 s on two cores.
STALLED_AFTER_S = 180.0
# What stands behind searches may have no more than a quarter of a core.
SLOWER_BEHIND = 4


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    since: float = field(default_factory=time.monotonic)
    future: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def answer(self, result: Result) -> None:
        if not self.future.done():  # nobody may wait for it any more
            self.future.set_result(result)

    def fail(self, failure: AppError, cause: Exception) -> None:
        failure.__cause__ = cause
        if not self.future.done():
            self.future.set_exception(failure)


class BatchSizes(TypedDict):
    batch_size: int
    bulk_batch_size: int
    queue_size: int


class MicroBatcher(Generic[Item, Result]):
    """Runs `process` (batch in, as many results out, in order) on `executor`, one batch at a time, when its turn comes.

    `process_bulk`: the same for bulk work, where that is done otherwise. `known_good`: an item that every sound model
    takes; it tells a model in trouble from an item that is poisoned. `asked_every_s`: of a model elsewhere, which may
    be away without having been in trouble here; `check` asks it where it has not answered for so long.

    No timer fills batches: while one batch runs the next gathers by itself, and an idle model answers at once.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Sequence[Result]],
        executor: Executor,
        turns: Turns,
        *,
        process_bulk: Callable[[Sequence[Item]], Sequence[Result]] | None = None,
        query_urgency: Urgency = Urgency.SHORT_QUERY,
        known_good: Item,
        batch_size: int,
        bulk_batch_size: int,
        queue_size: int,
        asked_every_s: float | None = None,
    ) -> None:
        self._process = process
        self._process_bulk = process_bulk or process
        self._executor = executor
        self._turns = turns
        self._query_urgency = query_urgency
        self._known_good = known_good
        self._batch_size = batch_size
        self._bulk_batch_size = bulk_batch_size
        self._queue_size = queue_size
        self._asked_every_s = asked_every_s
        self._answered_at = time.monotonic()
        self._queries: deque[_Waiting[Item, Result]] = deque()
        self._bulk: deque[_Waiting[Item, Result]] = deque()
        self._wakeup = asyncio.Event()
        self._closed = False
        self._under_way: list[_Waiting[Item, Result]] = []
        self._is_at_bulk = False
        self._called_at: float | None = None
        """When the model was given what it works on now; None while it works for others, or not at all."""
        self._trouble: dict[bool, str] = {}
        """What the model said when it failed even the known good item, until it takes anything again: at bulk work
        (True), if that is done otherwise, and at all else."""
        self._loop = asyncio.create_task(self._run(), context=context_of_no_request())

    async def query(self, item: Item) -> Result:
        """One search's item. Raises Overloaded when too many wait already. While a model elsewhere, which was away, is
        asked whether it still is, all others are told so at once: ModelsUnavailable.
        """
        if self._is_tried_again:
            raise ModelsUnavailable(self._trouble[False])
        if len(self._queries) >= self._queue_size:
            raise Overloaded(f"{len(self._queries)} searches wait for the model already; try again in a second.")
        return await self._enqueue(self._queries, item)

    async def bulk(self, item: Item) -> Result:
        """One item of the index, behind queries for as long as `turns.py` lets it wait. The caller bounds how many."""
        return await self._enqueue(self._bulk, item)

    async def check(self, *, for_queries_alone: bool = False, stalled_after_s: float = STALLED_AFTER_S) -> None:
        """Raises ModelsUnavailable when nothing would be answered any more, or the model is at one call for so long.

        A model that was in trouble is asked again: once nobody sends it anything, nothing else would find it well.
        `for_queries_alone`: bulk work in trouble is none, and it may be slow behind searches; but it must end, since
        queries wait for the same thread.
        """
        self._require_loop()
        if for_queries_alone and self._is_at_bulk:
            stalled_after_s *= SLOWER_BEHIND
        called_at = self._called_at
        if called_at is not None and time.monotonic() - called_at >= stalled_after_s:
            raise ModelsUnavailable(f"The model has not answered for {time.monotonic() - called_at:.0f} s.")
        is_long_ago = self._asked_every_s is not None and time.monotonic() - self._answered_at >= self._asked_every_s
        if False in self._trouble or is_long_ago:
            await self._enqueue(self._queries, self._known_good)
        if True in self._trouble and not for_queries_alone:
            await self._enqueue(self._bulk, self._known_good)

    async def close(self) -> None:
        """Finish the batch under way; whatever waits behind it ends in Overloaded."""
        self._closed = True
        self._wakeup.set()
        await asyncio.wait([self._loop])

    @property
    def _is_tried_again(self) -> bool:
        return self._asked_every_s is not None and self._called_at is not None and False in self._trouble

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
        try:
            return await waiting.future
        except asyncio.CancelledError:
            del waiting.item  # which may be large; its place in the queue, by which turns are claimed, stays
            raise
        finally:
            del waiting  # as in `WorkPool.run`

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
            if not (self._queries or self._bulk):
                self._wakeup.clear()
                continue
            async with self._turns.take(self._claims) as urgency:
                if self._closed:
                    return
                self._is_at_bulk = urgency is Urgency.BULK
                self._under_way = self._next_batch(urgency)
                if self._under_way:
                    await self._process_batch(self._under_way)
                self._under_way = []

    def _claims(self) -> list[Claim]:
        waiting = ((self._query_urgency, self._queries), (Urgency.BULK, self._bulk))
        return [Claim(urgency, queue[0].since) for urgency, queue in waiting if queue]

    def _next_batch(self, urgency: Urgency) -> list[_Waiting[Item, Result]]:
        is_bulk = urgency is Urgency.BULK
        queue, size = (self._bulk, self._bulk_batch_size) if is_bulk else (self._queries, self._batch_size)
        batch: list[_Waiting[Item, Result]] = []
        while queue and len(batch) < size:
            waiting = queue.popleft()
            if not waiting.future.done():  # whoever hung up meanwhile is not worked for
                batch.append(waiting)
        return batch

    async def _process_batch(self, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            results = await self._encode([waiting.item for waiting in batch])
        except ModelsUnavailable as trouble:  # which it says itself
            self._give_up(batch, trouble)
            return
        except Exception as error:
            logger.warning("The model failed on %d items; each is tried alone", len(batch), exc_info=error)
            await self._process_one_by_one(batch)
            return
        for waiting, result in zip(batch, results, strict=True):
            waiting.answer(result)

    async def _process_one_by_one(self, batch: list[_Waiting[Item, Result]]) -> None:
        """An item that fails twice alone is poisoned if a known good one passes then; else the model is in trouble."""
        for position, waiting in enumerate(batch):
            if waiting.future.done():  # whoever hung up meanwhile is not worked for
                continue
            try:
                waiting.answer(await self._encode_alone(waiting.item, attempts=2))
            except ModelsUnavailable as trouble:
                self._give_up(batch[position:], trouble)
                return
            except Exception as error:
                try:
                    await self._encode_alone(self._known_good, attempts=1)
                except Exception as trouble:
                    self._give_up(batch[position:], trouble)
                    return
                waiting.fail(EncodingFailed(f"The model can't encode this: {error!r}"), error)

    async def _encode_alone(self, item: Item, *, attempts: int) -> Result:
        while True:
            attempts -= 1
            try:
                return (await self._encode([item]))[0]
            except ModelsUnavailable:
                raise
            except Exception:
                if not attempts:
                    raise

    async def _encode(self, items: list[Item]) -> list[Result]:
        results = list(await asyncio.get_running_loop().run_in_executor(self._executor, self._call_model, items))
        if len(results) != len(items):
            raise ValueError(f"The model answered {len(items)} items with {len(results)} vectors")
        self._trouble.pop(self._is_done_otherwise, None)
        self._answered_at = time.monotonic()
        return results

    def _give_up(self, batch: list[_Waiting[Item, Result]], error: Exception) -> None:
        """Nobody's item is to blame: what can wait comes again."""
        if self._is_done_otherwise not in self._trouble:
            logger.error("The model is in trouble: it fails whatever it is given", exc_info=error)
        trouble = f"The model fails whatever it is given; restart the service if that lasts: {error!r}"
        if isinstance(error, ModelsUnavailable):
            trouble = error.detail
        self._trouble[self._is_done_otherwise] = trouble
        for waiting in batch:
            waiting.fail(ModelsUnavailable(trouble), error)

    @property
    def _is_done_otherwise(self) -> bool:
        return self._is_at_bulk and self._process_bulk is not self._process

    def _call_model(self, items: Sequence[Item]) -> Sequence[Result]:
        """On the model's thread, which other batchers may share: waiting for them is no stall."""
        self._called_at = time.monotonic()
        try:
            return (self._process_bulk if self._is_at_bulk else self._process)(items)
        finally:
            self._called_at = None


def _stopping() -> Overloaded:
    return Overloaded("The service is stopping; try again in a moment.")


def _loop_has_ended() -> ModelsUnavailable:
    return ModelsUnavailable("The loop that feeds the model has ended: restart the service; its log says why.")

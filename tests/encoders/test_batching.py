"""The micro-batcher: batches gather, queries go first, nobody waits for ever."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tuwen.encoders.batching import MicroBatcher
from tuwen.errors import EncodingFailed, Overloaded


class Model:
    """Records its batches; can be held to let work pile up."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def process(self, batch: Sequence[str]) -> list[str]:
        self.go.wait(10)
        self.batches.append(list(batch))
        if "poison" in batch:
            raise ValueError("can't take poison")
        return [item.upper() for item in batch]


def run(scenario: Callable[[Model, MicroBatcher[str, str]], Any], **sizes: int) -> Model:
    """Run the scenario on a fresh batcher and close it."""
    model = Model()

    async def go() -> None:
        settings = {"batch_size": 4, "bulk_batch_size": 2, "queue_size": 8} | sizes
        with ThreadPoolExecutor(1) as executor:
            batcher: MicroBatcher[str, str] = MicroBatcher(model.process, executor, **settings)
            try:
                await scenario(model, batcher)
            finally:
                model.go.set()
                await batcher.close()

    asyncio.run(go())
    return model


def test_what_waits_while_the_model_works_becomes_one_batch() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        first = asyncio.create_task(batcher.query("a"))
        await asyncio.sleep(0.05)  # the model holds "a" now
        rest = [asyncio.create_task(batcher.query(item)) for item in "bcdef"]
        await asyncio.sleep(0)
        model.go.set()
        assert await asyncio.gather(first, *rest) == list("ABCDEF")

    assert run(scenario).batches == [["a"], ["b", "c", "d", "e"], ["f"]]


def test_queries_go_before_bulk_work() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        bulk = [asyncio.create_task(batcher.bulk(item)) for item in ("b1", "b2", "b3", "b4")]
        await asyncio.sleep(0.05)
        query = asyncio.create_task(batcher.query("q"))
        await asyncio.sleep(0)
        model.go.set()
        assert await query == "Q"
        assert await asyncio.gather(*bulk) == ["B1", "B2", "B3", "B4"]

    assert run(scenario).batches == [["b1", "b2"], ["q"], ["b3", "b4"]]


def test_one_poisoned_item_fails_alone() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        tasks = [asyncio.create_task(batcher.query(item)) for item in ("x", "a", "poison", "b")]
        await asyncio.sleep(0)
        model.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [results[0], results[1], results[3]] == ["X", "A", "B"]
        assert isinstance(results[2], EncodingFailed)
        assert "poison" in results[2].detail

    run(scenario)


def test_a_full_queue_refuses_at_once() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        held = asyncio.create_task(batcher.query("a"))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(batcher.query(item)) for item in "bc"]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await batcher.query("d")
        assert refused.value.retry_after_s == 1
        model.go.set()
        assert await asyncio.gather(held, *waiting) == ["A", "B", "C"]

    run(scenario, queue_size=2)


def test_closing_answers_everyone() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        under_way = asyncio.create_task(batcher.query("a"))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(batcher.query("b"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        model.go.set()
        await closing
        assert await under_way == "A"
        with pytest.raises(Overloaded):
            await waiting
        with pytest.raises(Overloaded):
            await batcher.query("c")

    run(scenario)


def test_nobody_works_for_a_caller_who_hung_up() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        held = asyncio.create_task(batcher.query("a"))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.query("gone"))
        stays = asyncio.create_task(batcher.query("stays"))
        await asyncio.sleep(0)
        gone.cancel()
        model.go.set()
        assert [await held, await stays] == ["A", "STAYS"]

    assert run(scenario).batches == [["a"], ["stays"]]

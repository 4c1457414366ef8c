"""The micro-batcher: batches gather, queries go first, nobody waits for ever."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

from tuwen.encoders import batching, turns
from tuwen.encoders.batching import MicroBatcher
from tuwen.encoders.turns import LONGEST_WAIT_S, Claim, Fairness, Turns, Urgency
from tuwen.errors import EncodingFailed, ModelsUnavailable, Overloaded


class Model:
    """Records its batches; can be held to let work pile up."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.has_work = threading.Event()
        self.trouble: Exception | None = None
        """Raised whatever it is given."""
        self.passing: list[Exception] = []
        """Raised once each, by the next calls."""

    def process(self, batch: Sequence[str]) -> list[str]:
        self.has_work.set()
        self.go.wait(10)
        self.batches.append(list(batch))
        if self.trouble or self.passing:
            raise self.trouble or self.passing.pop()
        if "last straw" in batch:
            self.trouble = RuntimeError("lost device") if batch == ["last straw"] else None
            raise RuntimeError("lost device")
        if "poison" in batch:
            raise ValueError("can't take poison")
        if "lose one" in batch:
            return []
        return [item.upper() for item in batch]

    async def holds_work(self) -> None:
        assert await asyncio.to_thread(self.has_work.wait, 10)


def run(scenario: Callable[[Model, MicroBatcher[str, str]], Any], **sizes: int) -> Model:
    """Run the scenario on a fresh batcher and close it."""
    model = Model()

    async def go() -> None:
        settings: Any = {"batch_size": 4, "bulk_batch_size": 2, "queue_size": 8} | sizes
        async with asyncio.timeout(30):
            await with_batcher(settings)

    async def with_batcher(settings: Any) -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher: MicroBatcher[str, str] = MicroBatcher(
                model.process, executor, Turns(), known_good="good", **settings
            )
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
        await model.holds_work()
        rest = [asyncio.create_task(batcher.query(item)) for item in "bcdef"]
        await asyncio.sleep(0)
        model.go.set()
        assert await asyncio.gather(first, *rest) == list("ABCDEF")

    assert run(scenario).batches == [["a"], ["b", "c", "d", "e"], ["f"]]


def test_queries_go_before_bulk_work() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        bulk = [asyncio.create_task(batcher.bulk(item)) for item in ("b1", "b2", "b3", "b4")]
        await model.holds_work()
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


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: device-side assert"), ValueError("bug")])
@pytest.mark.parametrize("batch", ["a", "ab"])
def test_a_model_that_fails_whatever_it_is_given_blames_no_item_and_is_found_well_again(
    error: Exception, batch: str
) -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.trouble = error
        for add in (batcher.query, batcher.bulk):
            failures = await asyncio.gather(*(add(item) for item in batch), return_exceptions=True)
            assert {type(failure) for failure in failures} == {ModelsUnavailable}
        with pytest.raises(ModelsUnavailable, match="fails whatever it is given"):
            await batcher.check()
        model.trouble = None
        await batcher.check()
        assert await batcher.query("a") == "A"

    run(scenario)


@pytest.mark.parametrize("broken", ["queries", "index"])
def test_each_network_in_trouble_is_asked_itself_and_searches_have_no_part_in_the_indexs(broken: str) -> None:
    queries, index = Model(), Model()
    in_trouble = queries if broken == "queries" else index

    async def scenario() -> None:
        sizes: Any = {"known_good": "good", "batch_size": 1, "bulk_batch_size": 1, "queue_size": 9}
        with ThreadPoolExecutor(1) as executor:
            batcher = MicroBatcher(queries.process, executor, Turns(), process_bulk=index.process, **sizes)
            in_trouble.trouble = RuntimeError("lost device")
            add, add_to_other = batcher.query, batcher.bulk
            if broken == "index":
                add, add_to_other = add_to_other, add
            with pytest.raises(ModelsUnavailable):
                await add("a")
            assert await add_to_other("b") == "B"
            with pytest.raises(ModelsUnavailable, match="lost device"):
                await batcher.check()
            with pytest.raises(ModelsUnavailable) if broken == "queries" else nullcontext():
                await batcher.check(for_queries_alone=True)
            in_trouble.trouble = None
            await batcher.check()
            assert in_trouble.batches[-1] == ["good"]
            await batcher.close()

    asyncio.run(scenario())


def test_the_indexs_batch_may_be_slow_behind_searches_but_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        held = asyncio.create_task(batcher.bulk("a"))
        await model.holds_work()
        await asyncio.sleep(0.02)
        with pytest.raises(ModelsUnavailable):
            await batcher.check(stalled_after_s=0.02)
        monkeypatch.setattr(batching, "SLOWER_BEHIND", 10_000)
        await batcher.check(for_queries_alone=True, stalled_after_s=0.02)
        monkeypatch.setattr(batching, "SLOWER_BEHIND", 1)
        with pytest.raises(ModelsUnavailable):
            await batcher.check(for_queries_alone=True, stalled_after_s=0.02)
        model.go.set()
        await held

    run(scenario)


def test_what_passes_is_tried_again_and_nobody_hears_of_it() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.passing = [MemoryError(), MemoryError()]  # of the batch, and of its first item alone
        assert await asyncio.gather(*(batcher.bulk(item) for item in "ab")) == ["A", "B"]
        await batcher.check()

    assert run(scenario).batches == [["a", "b"], ["a"], ["a"], ["b"]]


def test_a_model_that_breaks_after_some_items_passed_blames_none_of_the_others() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        held = asyncio.create_task(batcher.query("x"))
        await model.holds_work()
        rest = [asyncio.create_task(batcher.query(item)) for item in ("a", "last straw", "b")]
        await asyncio.sleep(0)
        model.go.set()
        assert await held == "X"
        ends = await asyncio.gather(*rest, return_exceptions=True)
        assert ends[0] == "A"
        assert [type(end) for end in ends[1:]] == [ModelsUnavailable, ModelsUnavailable]

    run(scenario)


def test_a_full_queue_refuses_at_once() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        held = asyncio.create_task(batcher.query("a"))
        await model.holds_work()
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
        await model.holds_work()
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
        await model.holds_work()
        gone = asyncio.create_task(batcher.query("gone"))
        stays = asyncio.create_task(batcher.query("stays"))
        await asyncio.sleep(0)
        gone.cancel()
        model.go.set()
        assert [await held, await stays] == ["A", "STAYS"]

    assert run(scenario).batches == [["a"], ["stays"]]


def test_what_was_sent_by_a_caller_who_hung_up_takes_no_memory_while_the_model_is_busy() -> None:
    class Large(str):
        pass

    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        held = asyncio.create_task(batcher.query("a"))
        await model.holds_work()
        item = Large("gone")
        kept = weakref.ref(item)
        gone = asyncio.create_task(batcher.bulk(item))
        del item
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        del gone
        gc.collect()
        assert kept() is None
        stays = asyncio.create_task(batcher.bulk("stays"))
        model.go.set()
        assert [await held, await stays] == ["A", "STAYS"]

    assert run(scenario).batches == [["a"], ["stays"]]


def test_a_model_that_loses_an_answer_fails_its_caller_and_nobody_else() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        with pytest.raises(EncodingFailed):
            await batcher.query("lose one")
        assert await batcher.query("a") == "A"
        await batcher.check()

    run(scenario)


def test_a_model_that_hangs_is_told_from_one_that_is_idle_or_busy() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        await batcher.check(stalled_after_s=0)  # idle
        model.go.clear()
        held = asyncio.create_task(batcher.query("a"))
        await model.holds_work()
        await batcher.check()
        with pytest.raises(ModelsUnavailable, match="has not answered for 0 s"):
            await batcher.check(stalled_after_s=0)
        model.go.set()
        assert await held == "A"
        await batcher.check(stalled_after_s=0)

    run(scenario)


def test_a_loop_that_died_refuses_instead_of_letting_wait_for_ever() -> None:
    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        [loop] = asyncio.all_tasks() - {asyncio.current_task()}
        model.go.clear()
        held, behind = (asyncio.create_task(batcher.query(item)) for item in "ab")
        await model.holds_work()
        loop.cancel()
        await asyncio.wait([loop])
        for waiting in (held, behind):
            with pytest.raises(ModelsUnavailable, match="restart the service"):
                await waiting
        with pytest.raises(ModelsUnavailable, match="restart the service"):
            await batcher.check()
        with pytest.raises(ModelsUnavailable):
            await batcher.query("a")

    run(scenario)


def test_waiting_for_another_batchers_model_is_no_stall() -> None:
    """Three batchers share one thread."""

    async def scenario(model: Model, batcher: MicroBatcher[str, str]) -> None:
        model.go.clear()
        with ThreadPoolExecutor(1) as shared:
            turns = Turns()
            pair = [sharing_batcher(model, shared, turns, Urgency.SHORT_QUERY) for _ in range(2)]
            first = asyncio.create_task(pair[0].query("a"))
            await model.holds_work()
            second = asyncio.create_task(pair[1].query("b"))
            await asyncio.sleep(0)
            with pytest.raises(ModelsUnavailable):
                await pair[0].check(stalled_after_s=0)
            await pair[1].check(stalled_after_s=0)
            model.go.set()
            assert [await first, await second] == ["A", "B"]
            for each in pair:
                await each.close()

    run(scenario)


def sharing_batcher(
    model: Model, executor: ThreadPoolExecutor, turns: Turns, query_urgency: Urgency
) -> MicroBatcher[str, str]:
    return MicroBatcher(
        model.process,
        executor,
        turns,
        query_urgency=query_urgency,
        known_good="good",
        batch_size=1,
        bulk_batch_size=1,
        queue_size=9,
    )


def test_of_batchers_that_share_a_model_short_queries_go_first_and_bulk_work_last() -> None:
    async def scenario(model: Model, _: MicroBatcher[str, str]) -> None:
        model.go.clear()
        with ThreadPoolExecutor(1) as shared:
            turns = Turns()
            pictures, texts = (
                sharing_batcher(model, shared, turns, each) for each in (Urgency.LONG_QUERY, Urgency.SHORT_QUERY)
            )
            tasks = [asyncio.create_task(texts.bulk("title 1"))]
            await model.holds_work()
            for add, item in (
                (pictures.bulk, "picture 1"),
                (texts.bulk, "title 2"),
                (pictures.query, "picture?"),
                (texts.query, "text?"),
            ):
                tasks.append(asyncio.create_task(add(item)))
                await asyncio.sleep(0)
            model.go.set()
            await asyncio.gather(*tasks)
            for each in (pictures, texts):
                await each.close()

    assert run(scenario).batches == [["title 1"], ["text?"], ["picture?"], ["picture 1"], ["title 2"]]


KINDS = ("text query", "picture query", "bulk texts", "bulk pictures")
CLIENTS, BATCH = 12, 4
# Both bulk kinds stand in one line, which has one turn of four beside both kinds of queries.
MOST_TURNS = 4 * (2 * CLIENTS // BATCH + 1)


async def turns_until_served(kind: str, load: Sequence[str]) -> int:
    """How many batches the model begins between a request of the kind and its answer, while each kind of the load
    has as many clients without a pause. All have always waited for too long: who goes first must not depend on clocks.
    """
    model, is_loaded, ends = Model(), asyncio.Event(), asyncio.Event()
    with ThreadPoolExecutor(1) as executor:
        sizes: Any = {"known_good": "good", "batch_size": BATCH, "bulk_batch_size": BATCH, "queue_size": 99}
        shared = Turns()
        pictures, texts = (
            MicroBatcher(model.process, executor, shared, query_urgency=urgency, **sizes)
            for urgency in (Urgency.LONG_QUERY, Urgency.SHORT_QUERY)
        )
        add = dict(zip(KINDS, (texts.query, pictures.query, texts.bulk, pictures.bulk), strict=True))

        async def client(of: str) -> None:
            while not ends.is_set() and len(model.batches) < 3 * MOST_TURNS:
                await add[of](of)
                if len(model.batches) >= MOST_TURNS:
                    is_loaded.set()

        clients = [asyncio.create_task(client(each)) for each in load for _ in range(CLIENTS)]
        await is_loaded.wait()
        before = len(model.batches)
        await add[kind]("the one")
        ends.set()
        await asyncio.gather(*clients)
        for batcher in (pictures, texts):
            await batcher.close()
    return next(at for at, batch in enumerate(model.batches) if "the one" in batch) - before


@pytest.mark.parametrize("kind", KINDS)
def test_under_endless_load_of_any_other_kind_each_is_served_within_a_few_turns(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LONGEST_WAIT_S", 0.0)

    async def go() -> None:
        others = [other for other in KINDS if other != kind]
        async with asyncio.timeout(30):
            for load in ([other] for other in others):
                # One is under way; within a line the oldest go first.
                most = CLIENTS // BATCH + 2 if "bulk" in kind and "bulk" in load[0] else 2
                assert await turns_until_served(kind, load) <= most, load
            most = {"text query": 2, "picture query": 4}.get(kind, MOST_TURNS)
            assert await turns_until_served(kind, others) <= most
            assert await turns_until_served(kind, KINDS) <= MOST_TURNS

    asyncio.run(go())


def test_what_has_waited_for_long_has_every_second_turn_at_most() -> None:
    fairness, now = Fairness(), 100.0
    late = now - LONGEST_WAIT_S
    text, picture, product = Claim(Urgency.SHORT_QUERY, late), Claim(Urgency.LONG_QUERY, late), Claim(Urgency.BULK, 1)
    in_time = Claim(Urgency.LONG_QUERY, late + 0.1)
    for waiting, chosen in (
        ([product, in_time], [product, in_time, product, in_time]),
        ([product, in_time, text], [text, product, text, product]),
        ([product, picture, text], [text, picture, text, product, text, picture]),
        ([product, picture], [product, picture, product]),
        ([Claim(Urgency.BULK, now), in_time], [in_time, in_time]),
        ([product], [product, product]),
    ):
        assert [fairness.choose(waiting, now) for _ in chosen] == chosen


def test_a_turn_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    async def go() -> None:
        turns, order = Turns(), list[str]()

        async def use(name: str, urgency: Urgency) -> None:
            async with turns.take(lambda: [Claim(urgency, 0.0)]):
                order.append(name)
                await asyncio.sleep(0)

        async with asyncio.timeout(10), turns.take(lambda: [Claim(Urgency.BULK, 0.0)]):
            gone, given_up = (asyncio.create_task(use(name, Urgency.SHORT_QUERY)) for name in ("gone", "given up"))
            stays = asyncio.create_task(use("stays", Urgency.BULK))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: loop.call_soon(given_up.cancel))  # right after the turn has been given to it
        async with asyncio.timeout(10):
            await stays
            await asyncio.wait([given_up])
            await use("newcomer", Urgency.BULK)
        assert order[-2:] == ["stays", "newcomer"]

    asyncio.run(go())

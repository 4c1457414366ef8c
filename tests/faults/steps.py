"""Work in processes of their own that are killed after their n-th change of a store, or stand still before their n-th
call to Milvus: every gap between two steps, by n.

`python -m tests.faults.steps CLIP_MODEL TEXT_MODEL` loads the models once, and forks for each line on its standard
input. What is killed is the real code on real stores; only the stores' public methods count here.
"""

import asyncio
import faulthandler
import inspect
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import torch

from data_models import ProductChanges
from orm_models import OutboxRow
from tests.conftest import picture
from tests.indexing.shop import Shop, encoders_of, open_shop
from tests.processes import environment, wait_until
from tuwen.assembly import new_reindexer
from tuwen.background import LeaseLost, running_loops
from tuwen.database.engine import Database
from tuwen.generation.worker import GenerationWorker
from tuwen.indexing.drift import Graces
from tuwen.messaging.in_process import InProcessConsumer, InProcessQueue
from tuwen.messaging.outbox import outbox_backlog
from tuwen.messaging.relay import OutboxRelay
from tuwen.messaging.transport import Message
from tuwen.pictures.checks import check_image
from tuwen.pictures.folder import Folder
from tuwen.pulse import Pulses
from tuwen.settings import Settings
from vector_db import VectorDB

# What changes something. What only reads leaves everything as it was after the last change.
CHANGES: dict[type, tuple[str, ...]] = {
    Database: ("write",),
    VectorDB: ("insert", "delete", "create_collection", "drop_collection"),
    Folder: ("write", "move", "remove"),
    InProcessConsumer: ("commit",),
}
CALLS_TO_MILVUS = ("has_collection", "create_collection", "drop_collection", "insert")
HANGS_AFTER_S = 180
Work = Callable[[Shop, int], Awaitable[None]]


async def create(shop: Shop, _: int) -> None:
    shop.create("新到的商品", "green")


async def ingest(shop: Shop, _: int = 0) -> None:
    """What waits in the outbox."""
    with shop.services.database.read() as session:
        rows = session.scalars(
            sa.select(OutboxRow).where(OutboxRow.published_at.is_(None)).order_by(OutboxRow.outbox_id)
        )
        messages = [Message(row.topic, row.message_key, json.dumps(row.payload).encode()) for row in rows]
    await shop.ingestor.ingest(messages)


async def change_title(shop: Shop, product_id: int) -> None:
    shop.change(product_id, f"改过的商品 {product_id}")
    await ingest(shop)


async def change_category(shop: Shop, product_id: int) -> None:
    """Its vectors are taken over."""
    shop.writer.change(product_id, ProductChanges(category=f"类目 {product_id}"), None)
    await ingest(shop)


async def change_picture(shop: Shop, product_id: int) -> None:
    image = check_image(picture("blue", size=(product_id + 8, 8)), shop.services.settings)
    shop.writer.change(product_id, ProductChanges(), image)
    await ingest(shop)


async def delete(shop: Shop, product_id: int) -> None:
    shop.writer.delete(product_id)
    await ingest(shop)


async def rebuild(shop: Shop, _: int) -> None:
    shop.mend()
    await ingest(shop)


async def sweep(shop: Shop, _: int) -> None:
    shop.mend(graces=GRACES_OVER)


async def relay(shop: Shop, _: int = 0) -> None:
    """And what consumes, until nothing waits."""
    services = shop.services
    queue = InProcessQueue([services.settings.kafka_topic, services.settings.generation_topic])
    consumer = queue.consumers[services.settings.kafka_topic]
    loops = OutboxRelay(services.database, queue, services.settings).loops()

    def waiting() -> int:
        with services.database.read() as session:
            return outbox_backlog(session)

    async with running_loops(loops | {"ingestion": lambda: shop.ingestor.run(consumer)}, Pulses(None)):
        await asyncio.to_thread(wait_until, lambda: not waiting(), what="the outbox to be empty")


async def draw(shop: Shop, _: int = 0) -> None:
    services = shop.services
    GenerationWorker(services.settings, services.database, services.images).draw_next()


async def reindex(shop: Shop, _: int = 0) -> None:
    """The job that waits, to its end."""
    reindexer = new_reindexer(shop.services)
    try:
        await reindexer.take_turn()
    except LeaseLost:  # the next turn comes when its thread has done what it was at
        await reindexer.take_turn()


async def prepare(shop: Shop, _: int = 0) -> None:
    """What every process loads beside the models that answer."""
    await asyncio.to_thread(shop.services.registry.prepare)


async def look(shop: Shop, _: int = 0) -> None:
    """Which index is live; its collection is made where it is missing."""
    await asyncio.to_thread(shop.services.registry.look)


GRACES_OVER = Graces(unbound=timedelta(0), image=timedelta(0))
CHANGING = (create, change_title, change_category, change_picture, delete)
WORKS = (*CHANGING, ingest, rebuild, sweep, relay, draw, reindex, prepare, look)
WORK: dict[str, Work] = {work.__name__: work for work in WORKS}


class Steps:
    """The process that forks."""

    def __init__(self, models: dict[str, str], log: Path) -> None:
        command = [sys.executable, "-m", "tests.faults.steps", models["CLIP_MODEL"], models["TEXT_MODEL"]]
        env = environment(TOKENIZERS_PARALLELISM="false", MODEL_THREADS="1")  # OpenVINO's would not survive the fork
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
            )
        self._log = log

    def was_killed(self, work: str, settings: Settings, product_id: int, after: int) -> bool:
        """False where the work was done before it came to so many changes."""
        self._begin(work=work, settings=settings.as_environment(), product_id=product_id, after=after)
        status = self._answer()
        assert status in (0, -signal.SIGKILL), self._log.read_text(errors="replace")[-4000:]
        return status != 0

    @contextmanager
    def paused(self, work: str, settings: Settings, before: int) -> Iterator[bool]:
        """The work stands still within the block, and then goes on to its end. False where it has come to it already,
        without so many calls to Milvus.
        """
        self._begin(work=work, settings=settings.as_environment(), product_id=0, before=before)
        answer = self._answer()
        is_paused = answer > 0
        try:
            yield is_paused
        finally:
            if is_paused:
                os.kill(answer, signal.SIGCONT)
                answer = self._answer()
        assert answer == 0, self._log.read_text(errors="replace")[-4000:]

    def _begin(self, **job: Any) -> None:
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)

    def _answer(self) -> int:
        """The number of a process that stands still; else how one ended: 0, or less."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


class _Tally:
    def __init__(self, kill_after: int) -> None:
        self._left = kill_after
        self._lock = threading.Lock()

    def changed(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _count(store: type, name: str, tally: _Tally) -> None:
    method = getattr(store, name)

    @contextmanager
    def transaction(*arguments: Any, **options: Any) -> Iterator[Any]:
        with method(*arguments, **options) as session:
            yield session
        tally.changed()

    async def coroutine(*arguments: Any, **options: Any) -> Any:
        result = await method(*arguments, **options)
        tally.changed()
        return result

    def function(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        tally.changed()
        return result

    counted = transaction if store is Database else coroutine if inspect.iscoroutinefunction(method) else function
    setattr(store, name, wraps(method)(counted))


def _pause_before(number: int) -> None:
    """The n-th call to Milvus, and in no thread's write: SQLite's lock would hold up everybody else."""
    calls = itertools.count(1)
    writing = threading.RLock()
    write = Database.write

    @contextmanager
    def writes(*arguments: Any, **options: Any) -> Iterator[Any]:
        with writing, write(*arguments, **options) as session:
            yield session

    def pausing(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == number:
                with writing:
                    os.kill(os.getpid(), signal.SIGSTOP)
            return method(*arguments, **options)

        return call

    Database.write = writes  # type: ignore[method-assign]
    for name in CALLS_TO_MILVUS:
        setattr(VectorDB, name, pausing(getattr(VectorDB, name)))


async def _work(job: dict[str, Any]) -> None:
    values = {name.lower(): value for name, value in job["settings"].items() if value != ""}
    settings = Settings(_env_file=None, **values)
    if "before" in job:
        _pause_before(job["before"])
    else:
        tally = _Tally(job["after"])
        for store, names in CHANGES.items():
            for name in names:
                _count(store, name, tally)
    async with open_shop(settings) as shop:
        await WORK[job["work"]](shop, job["product_id"])
        os._exit(0)


def _fork(job: dict[str, Any]) -> int:
    """How it ended: 0, or less. Says before, on the standard output, which process stands still."""
    process_id = os.fork()
    if process_id == 0:
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        try:
            asyncio.run(_work(job))
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(process_id, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        print(process_id, flush=True)
        _, status = os.waitpid(process_id, 0)
    return -abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads would not survive the fork
    encoders_of(*sys.argv[1:])
    for line in sys.stdin:
        print(_fork(json.loads(line)), flush=True)

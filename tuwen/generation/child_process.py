"""The embedded default's one generation worker: a child process, started at the first job, whose life is the API's.

The child reads a pipe from this process: a line wakes it, and the pipe's end stops it, also after a kill -9 of the API.
"""

import asyncio
import logging
import os
import sys
from contextlib import suppress

from tuwen.background import RESTART_PAUSE_S, WorkPool
from tuwen.cores import available_cores
from tuwen.database.engine import Database
from tuwen.generation.queries import has_unfinished_jobs
from tuwen.messaging.transport import MessageConsumer
from tuwen.pulse import patiently
from tuwen.settings import PROJECT_ROOT, Settings

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 15.0


class GenerationProcess:
    """`run` starts and restarts the child, as long as there is anything to draw."""

    def __init__(self, settings: Settings, database: Database, consumer: MessageConsumer) -> None:
        self._settings = settings
        self._database = database
        self._consumer = consumer
        self._child: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()  # a message and a restart at once must not start two
        self._started = asyncio.Event()
        self._thread = WorkPool("generation process", threads=1, max_waiting=1)

    async def run(self) -> None:
        """Until cancelled; the child is then stopped."""
        try:
            if await self._thread.run(self._has_work):
                await self._wake_child()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_on_messages())
                tasks.create_task(self._restart_after_crash())
        finally:
            await self._stop_child()

    async def _pass_on_messages(self) -> None:
        while True:
            await self._consumer.next_batch(max_messages=100)
            await self._wake_child()
            await self._consumer.commit()  # the job itself stands in the database

    async def _restart_after_crash(self) -> None:
        while True:
            await patiently(self._started.wait())
            assert self._child is not None, "_start_child set it"
            logger.error("The process that draws pictures ended with %s", await patiently(self._child.wait()))
            self._started.clear()
            self._child = None
            await asyncio.sleep(RESTART_PAUSE_S)  # one that can't start must not spin
            if await self._thread.run(self._has_work):
                await self._wake_child()

    async def _wake_child(self) -> None:
        async with self._starting:
            child = self._child = self._child or await self._start_child()
            self._started.set()
        assert child.stdin is not None, "_start_child asks for it"
        with suppress(ConnectionError):  # it died a moment ago, and a new one looks for work by itself
            child.stdin.write(b"\n")
            await child.stdin.drain()

    async def _start_child(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tuwen.generation.worker", "--bound-to-parent"),
            stdin=asyncio.subprocess.PIPE,
            env=os.environ | self._settings.as_environment() | _its_own() | self._processor_share(),
            start_new_session=True,  # a Ctrl-C in the terminal reaches us alone, and we stop the child in order
        )

    async def _stop_child(self) -> None:
        self._started.clear()
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            child.kill()
            await child.wait()

    def _has_work(self) -> bool:
        with self._database.read() as session:
            return has_unfinished_jobs(session)

    def _processor_share(self) -> dict[str, str]:
        """Half of the cores, and threads that sleep while they wait: two pools over all cores block each other."""
        threads = self._settings.generator_threads or max(1, available_cores() // 2)
        return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def _its_own() -> dict[str, str]:
    """PYTHONPATH for `-m`, whichever folder the API was started in, and never that folder's own modules (-P).

    The folder stays the child's as well, since relative paths in the settings are meant from there. HEARTBEAT_DIR is
    this process's alone.
    """
    modules = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": modules, "HEARTBEAT_DIR": ""}

"""Signs of life: each background loop says when it will be heard of again, and hangs once that moment has passed.

Where HEARTBEAT_DIR names a folder, each loop has a file in it whose time of change is that moment. So it can be read by
`deploy/healthcheck.py` when nothing here runs any more, and be written while the disk is full. Processes of one service
may share the folder: a file's name begins with its process's number.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

# Longer than one call to another system may take.
USUAL_STEP_S = 60.0
BEAT_EVERY_S = 1.0
SUFFIX = ".loop"


class Pulse:
    """One loop's. May be beaten from any thread."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._written = 0.0
        self.due_at = 0.0
        """Seconds since the epoch."""

    def beat(self, within_s: float) -> None:
        self.due_at = time.time() + within_s
        if self._file is not None and abs(self.due_at - self._written) >= BEAT_EVERY_S:
            self._written = self.due_at
            try:
                self._file.touch()
                os.utime(self._file, (self.due_at, self.due_at))
            except OSError as error:  # then the check fails, and this says why
                logger.warning("HEARTBEAT_DIR can't be written: %s", error)


_current: ContextVar[Pulse | None] = ContextVar("pulse", default=None)


def beat(within_s: float = USUAL_STEP_S) -> None:
    """The loop that this is part of goes on, and beats again within so many seconds. Outside of any loop: nothing."""
    if pulse := _current.get():
        pulse.beat(within_s)


async def patiently(waiting: Awaitable[Result]) -> Result:
    """Wait for what may take for ever, and go on beating: an idle loop does not hang."""
    future = asyncio.ensure_future(waiting)
    try:
        while not future.done():
            beat()
            await asyncio.wait([future], timeout=BEAT_EVERY_S)
        return future.result()
    finally:
        future.cancel()
        del future  # as in `WorkPool.run`


class Pulses:
    """Those of all loops of this process. `folder`: its service's own, on its own machine (or in its container)."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._pulses: dict[str, Pulse] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.glob(f"*{SUFFIX}"):
                if not _is_of_another_alive(file):
                    file.unlink(missing_ok=True)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """What runs in this block, and what it starts, beats for the loop of this name."""
        file = self._folder / f"{os.getpid()}.{name.replace('/', '_')}{SUFFIX}" if self._folder else None
        pulse = self._pulses[name] = Pulse(file)
        token = _current.set(pulse)
        beat()
        try:
            yield
        finally:
            _current.reset(token)
            del self._pulses[name]
            if file is not None:
                file.unlink(missing_ok=True)

    def overdue_s(self) -> dict[str, float]:
        """For each loop, for how long it has been silent beyond what it said; 0 as long as it goes round."""
        now = time.time()
        return {name: round(max(0.0, now - pulse.due_at), 1) for name, pulse in list(self._pulses.items())}


def _is_of_another_alive(file: Path) -> bool:
    """Where there is no /proc to ask, it is taken for dead: one that lives beats soon, and has its file again."""
    process_id = file.name.partition(".")[0]
    return process_id != str(os.getpid()) and process_id.isdecimal() and Path("/proc", process_id).exists()

"""Checks of the parts, each on a thread of its own: one that hangs is found down, and says nothing of the others."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from data_models import ComponentHealth
from tuwen.api.workforce import Workforce, check_disk, check_workforce
from tuwen.assembly import Services
from tuwen.background import WorkPool
from tuwen.processes import Presence

PROBE_TIMEOUT_S = 5.0

Result = TypeVar("Result")


class Probe(Generic[Result]):
    """Whoever asks while a check is under way gets that one's answer."""

    def __init__(self, name: str, check: Callable[[], Result]) -> None:
        self._check = check
        self._thread = WorkPool(f"the check of {name}", threads=1, max_waiting=0)
        self._under_way: asyncio.Future[Result] | None = None

    async def run(self) -> Result:
        """Raises what the check raises, or TimeoutError."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.ensure_future(self._thread.run(self._check))
            self._under_way.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may find nobody
        return await asyncio.wait_for(asyncio.shield(self._under_way), PROBE_TIMEOUT_S)


class Probes:
    def __init__(self, services: Services, this_process: Presence) -> None:
        self.database = Probe("the database", services.database.check)
        self.vector_db = Probe("the vector database", services.vector_db.check)
        self.image_store = Probe("the image store", services.images.check)
        self.disk: Probe[ComponentHealth] = Probe("the disk", lambda: check_disk(services.settings))
        self.workforce: Probe[Workforce] = Probe(
            "the processes", lambda: check_workforce(services.database, this_process)
        )

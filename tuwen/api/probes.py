"""Checks of the parts, each on a thread of its own: one that hangs is found down, and says nothing of the others."""

import asyncio
from collections.abc import Callable

from tuwen.background import WorkPool

PROBE_TIMEOUT_S = 5.0


class Probe:
    """Whoever asks while a check is under way gets that one's answer."""

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        self._check = check
        self._thread = WorkPool(f"the check of {name}", threads=1, max_waiting=0)
        self._under_way: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Raises what the check raises, or TimeoutError."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.ensure_future(self._thread.run(self._check))
            self._under_way.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may find nobody
        await asyncio.wait_for(asyncio.shield(self._under_way), PROBE_TIMEOUT_S)


class Probes:
    def __init__(
        self, database: Callable[[], None], vector_db: Callable[[], None], image_store: Callable[[], None]
    ) -> None:
        self.database = Probe("the database", database)
        self.vector_db = Probe("the vector database", vector_db)
        self.image_store = Probe("the image store", image_store)

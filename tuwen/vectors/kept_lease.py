"""A lease that is kept while one call blocks for longer than it lasts: loading a model, making a collection."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuwen.background import LEASE_TIME, Lease, LeaseLost
from tuwen.errors import AppError

logger = logging.getLogger(__name__)

KEEP_EVERY_S = LEASE_TIME.total_seconds() / 8


@contextmanager
def kept(lease: Lease, progress: Mapping[str, Any]) -> Iterator[None]:
    """By a thread of its own, until the block ends. Raises LeaseLost at the beginning alone.

    A call that blocks can't be stopped: who must not go on without the lease keeps it once more before each step.
    """
    lease.keep(progress)
    done = threading.Event()

    def keep_on() -> None:
        while not done.wait(KEEP_EVERY_S):
            try:
                lease.keep(progress)
            except LeaseLost:
                return
            except AppError as error:  # it lasts for some more tries
                logger.warning("A lease could not be kept: %s", error.detail)

    thread = threading.Thread(target=keep_on, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

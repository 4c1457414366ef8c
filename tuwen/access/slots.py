"""How many of one kind of lasting work a process has at once, of all clients and of each: none can take all."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tuwen.access.errors import TooManyAtOnce
from tuwen.errors import Overloaded


class Slots:
    def __init__(self, what: str, at_once: int, per_client: int) -> None:
        """`what`: in the plural."""
        self._what = what
        self._at_once, self._per_client = at_once, per_client
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, client: str) -> Iterator[None]:
        """Nobody waits for one. Raises TooManyAtOnce for a client that has its share, Overloaded where all are."""
        if self._held[client] >= self._per_client:
            raise TooManyAtOnce(
                f"The {client} has {self._held[client]} {self._what} under way already; try again when one has ended."
            )
        if self._held.total() >= self._at_once:
            raise Overloaded(f"{self._at_once} {self._what} are under way already; try again in a second.")
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if self._held[client] == 0:
                del self._held[client]

"""How often each client may do what: limits by kind of request, in windows of time that begin for all at once.

What is left is counted in this process alone, or lent to it in blocks by a store that all processes share, so that most
requests ask nobody. A block that is lent is spent here or lost: all processes together never let through more than the
limit, and a little less where several share it. While the store is away each process counts alone, and the log says so.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from limits import RateLimitItem, parse
from limits.errors import StorageError

from tuwen.access.errors import RateLimited
from tuwen.access.rate_storage import DatabaseStorage, RateStorage, open_rate_storage
from tuwen.background import Loop, WorkPool
from tuwen.database.engine import Database
from tuwen.errors import DependencyUnavailable
from tuwen.pulse import patiently
from tuwen.settings import Settings

LARGEST_BLOCK, SHARE_OF_THE_REST = 20, 8  # a twentieth of the limit, and an eighth of what is left of it
LEND_WITHIN_S = 1.0
ALONE_FOR_S = 5.0
TIDY_EVERY_S = 60.0
MOST_WINDOWS = 100_000  # of clients: whoever has more addresses than that has been forgotten when he comes again
LENDING_THREADS = 4

logger = logging.getLogger(__name__)


class Rate(NamedTuple):
    kind: str
    """A scope, or `generate`: what is counted."""
    amount: int
    window_s: int

    @property
    def name(self) -> str:
        """As the headers call it."""
        return f"{self.kind}-{self.window_s}"


class Standing(NamedTuple):
    """Where a client stands with a limit."""

    rate: Rate
    left: int
    """As far as is known here."""
    ends_in_s: int


@lru_cache(maxsize=1000)
def parse_rates(text: str) -> Mapping[str, Sequence[Rate]]:
    """`search=50/second, search=100000/day`, by kind. The settings and `NewApiKey` let in nothing else."""
    rates: dict[str, list[Rate]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        kind, _, notation = part.partition("=")
        item: RateLimitItem = parse(notation)
        rates.setdefault(kind, []).append(Rate(kind, item.amount, item.get_expiry()))
    return rates


class _Window:
    """What a client has left of a limit in the present window."""

    __slots__ = ("asking", "at_hand", "ends_at", "lending", "number", "owed", "pace", "rest", "spent", "spent_until")

    def __init__(self, number: int, ends_at: float, amount: int, pace: int) -> None:
        self.number, self.ends_at = number, ends_at
        self.pace = pace
        """How much was spent here in the window before."""
        self.at_hand = self.spent = 0
        self.owed = 0
        """What the store has not heard of yet: it was away."""
        self.rest = amount
        """What nobody has been lent, when the store was last asked."""
        self.spent_until = -math.inf
        """There is no more to be had until then, by the monotonic clock."""
        self.lending: asyncio.Task[None] | None = None
        self.asking: asyncio.Task[None] | None = None
        """The store; it may go on when nobody waits for it any more."""


class RateLimiter:
    def __init__(self, settings: Settings, database: Database) -> None:
        self._rates = parse_rates(settings.rate_limits)
        self._storage: RateStorage | None = open_rate_storage(settings, database)
        self._threads = WorkPool("lending of rate limits", threads=LENDING_THREADS, max_waiting=1000)
        self._windows: dict[tuple[str, Rate], _Window] = {}
        self._alone_until = -math.inf

    def loops(self) -> dict[str, Loop]:
        return {"rate limits": self._run}

    def rates_of(self, kind: str, own: str | None) -> Sequence[Rate]:
        """`own`: a key's, which take the place of the settings' of the same kind."""
        return (parse_rates(own).get(kind) if own else None) or self._rates.get(kind, ())

    async def take(self, client: str, rates: Sequence[Rate]) -> list[Standing]:
        """One from each of them, or none at all. Raises RateLimited."""
        taken: list[_Window] = []
        try:
            for rate in rates:
                taken.append(await self._take(client, rate))  # noqa: PERF401  # those before one that refuses count
        except RateLimited:
            for window in taken:
                _give_back(window)
            raise
        return self.standings(client, rates)

    def give_back(self, client: str, rates: Sequence[Rate]) -> None:
        """What was taken for nothing."""
        for rate in rates:
            _give_back(self._window(client, rate))

    def standings(self, client: str, rates: Sequence[Rate]) -> list[Standing]:
        now = time.time()
        windows = [(rate, self._window(client, rate)) for rate in rates]
        return [
            Standing(rate, window.at_hand + window.rest, max(1, math.ceil(window.ends_at - now)))
            for rate, window in windows
        ]

    def _window(self, client: str, rate: Rate) -> _Window:
        number = int(time.time() // rate.window_s)
        window = self._windows.get((client, rate))
        if window is None or window.number != number:
            self._windows.pop((client, rate), None)  # so that those of clients who are gone stand first
            while len(self._windows) >= MOST_WINDOWS:
                del self._windows[next(iter(self._windows))]
            window = self._windows[client, rate] = _Window(
                number, (number + 1) * rate.window_s, rate.amount, pace=window.spent if window else 0
            )
            if self._storage is None:
                window.at_hand, window.rest, window.spent_until = rate.amount, 0, math.inf
        return window

    async def _take(self, client: str, rate: Rate) -> _Window:
        while True:
            window = self._window(client, rate)
            if has_some := window.at_hand > 0:
                window.at_hand -= 1
                window.spent += 1
            # Before the next one needs it: he would wait for the store.
            is_low = window.lending is None and window.at_hand <= _block(rate, window) // 2
            if is_low and time.monotonic() >= window.spent_until:
                window.lending = asyncio.create_task(self._borrow(client, rate, window))
            if has_some:
                return window
            if window.lending is None:
                [(_, _, wait_s)] = self.standings(client, [rate])
                what = "drawings" if rate.kind == "generate" else "requests"
                refusal = RateLimited(
                    f"The {client} has reached its limit of {rate.amount} {what} ({rate.kind}) in {rate.window_s} s; "
                    f"try again in {wait_s} s."
                )
                refusal.retry_after_s = wait_s
                raise refusal
            await asyncio.shield(window.lending)

    async def _borrow(self, client: str, rate: Rate, window: _Window) -> None:
        """More at hand, or the end of it."""
        assert self._storage is not None, "who counts alone has all at hand"
        wanted = _block(rate, window)
        try:
            if window.asking is not None or time.monotonic() < self._alone_until:
                self._lend_alone(window, rate, wanted)
                return
            window.asking = asyncio.create_task(self._ask(client, rate, window, wanted))
            async with asyncio.timeout(LEND_WITHIN_S):
                await asyncio.shield(window.asking)
        except (StorageError, DependencyUnavailable, TimeoutError) as error:
            self._alone_until = time.monotonic() + ALONE_FOR_S
            logger.warning(
                "This process counts rate limits alone for %g s (RATE_LIMIT_STORAGE): %r", ALONE_FOR_S, error
            )
            self._lend_alone(window, rate, wanted)
        finally:
            window.lending = None

    async def _ask(self, client: str, rate: Rate, window: _Window, wanted: int) -> None:
        """An answer that comes late counts all the same: told a second time, the store would count it twice."""
        assert self._storage is not None, "who counts alone has all at hand"
        # By the window's number: where the clocks of machines differ, it is one limit a window all the same.
        key, told = f"{client}/{rate.name}/{rate.amount}/{window.number}", wanted + window.owed
        try:
            total = await self._threads.run(self._storage.incr, key, rate.window_s, told)
        finally:
            window.asking = None
        more = told - window.owed  # the rest of it was lent already
        window.owed, window.rest = max(0, -more), max(0, rate.amount - total)
        window.at_hand += max(0, min(more, rate.amount - (total - more)))
        if total >= rate.amount:
            window.spent_until = math.inf

    def _lend_alone(self, window: _Window, rate: Rate, wanted: int) -> None:
        lent = max(0, min(wanted, rate.amount - window.spent - window.at_hand))
        window.at_hand += lent
        window.owed += lent
        if lent == 0:  # the store may be slower than this process counts alone
            window.spent_until = max(self._alone_until, time.monotonic() + LEND_WITHIN_S)

    async def _run(self) -> None:
        while True:
            await patiently(asyncio.sleep(TIDY_EVERY_S))
            now = time.time()
            self._windows = {key: window for key, window in self._windows.items() if window.ends_at > now}
            if isinstance(self._storage, DatabaseStorage):
                try:
                    await patiently(self._threads.run(self._storage.delete_old))
                except DependencyUnavailable as error:
                    logger.warning("Old windows of rate limits stay for another minute: %s", error)


def _block(rate: Rate, window: _Window) -> int:
    """As much again as is spent here, so that whoever needs little keeps little from others."""
    needed = max(window.spent, window.pace)
    return max(1, min(rate.amount // LARGEST_BLOCK, window.rest // SHARE_OF_THE_REST, needed))


def _give_back(window: _Window) -> None:
    if window.spent > 0:
        window.at_hand += 1
        window.spent -= 1

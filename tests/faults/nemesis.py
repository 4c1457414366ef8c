"""Does harm at random, by a seed: what, when and for how long."""

import heapq
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.actor import Actor
from tests.faults.history import History
from tests.faults.stack import FaultKind

# For how long, and how often. The last outlive every lease, claim and session.
DURATIONS_S = [(0.2, 4.0), (8.0, 20.0), (121.0, 140.0)]
SHARES = [0.94, 0.05, 0.01]
POLL_S = 0.05
# Harm on harm would find nothing to harm, where machines are slow: first something goes through, or is waited for long.
LONGEST_WAIT_S = 20.0


@dataclass
class Fault:
    name: str
    started: float
    ended: float = float("inf")

    def __str__(self) -> str:
        return f"{self.started:8.2f} to {self.ended:8.2f}  {self.name}"


class Nemesis(Actor):
    """Several faults at once, at most one on each target. `heal` ends them all."""

    def __init__(
        self, seed: int, kinds: Sequence[FaultKind], history: History, *, at_once: int, pause_s: tuple[float, float]
    ) -> None:
        """`at_once`: how many targets at most, with those that have not recovered yet."""
        super().__init__("nemesis")
        self.faults: list[Fault] = []
        self._chance = random.Random(f"nemesis of {seed}")
        self._kinds, self._history, self._at_once, self._pause_s = kinds, history, at_once, pause_s
        self._recovering: list[FaultKind] = []
        self._running: list[tuple[float, int, Fault, FaultKind]] = []

    def act(self) -> None:
        next_at, changes = time.monotonic(), 0
        while not self.stopping.wait(POLL_S):
            now = time.monotonic()
            self._end_due(now)
            if now >= next_at and (self._history.changes > changes or now >= next_at + LONGEST_WAIT_S):
                changes = self._history.changes
                self._begin_one()
                next_at = now + self._chance.uniform(*self._pause_s)

    def heal(self) -> None:
        self.stop()
        self._end_due(float("inf"))

    def _begin_one(self) -> None:
        kind = self._chance.choices(self._kinds, [kind.weight for kind in self._kinds])[0]
        seconds = self._chance.uniform(*self._chance.choices(DURATIONS_S, SHARES)[0])
        self._recovering = [each for each in self._recovering if not each.has_recovered()]
        busy = {each.target for each in [*self._recovering, *(kind for *_, kind in self._running)]}
        if len(busy) >= self._at_once or kind.target in busy:
            return
        fault = Fault(kind.name, self._history.now())
        self.faults.append(fault)
        kind.begin()
        heapq.heappush(self._running, (time.monotonic() + seconds, len(self.faults), fault, kind))

    def _end_due(self, moment: float) -> None:
        while self._running and self._running[0][0] <= moment:
            *_, fault, kind = heapq.heappop(self._running)
            kind.end()
            self._recovering.append(kind)
            fault.ended = self._history.now()

"""What clients did to the service and what it answered, and whether both can be true together.

A product is known by its sku, which never changes here and belongs to one client, which does one thing after another.
An answer that never came, or a 5xx, leaves open whether the change was made: `unknown`, now or at any later time.
"""

import bisect
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Outcome = Literal["ok", "failed", "unknown"]
Kind = Literal["create", "change", "delete", "read", "search", "generate"]
CHANGES = ("create", "change", "delete")
FIELDS = ("title", "price", "picture")
Violated = Literal["lost", "resurrected", "strangers", "duplicates", "orphans", "stuck", "unsearchable"]


class State(NamedTuple):
    """A product as an answer or the database shows it."""

    product_id: int
    version: int
    title: str
    price: float | None
    picture: str
    """SHA-256 of its bytes."""


class Sighting(NamedTuple):
    sku: str
    state: State


@dataclass
class Operation:
    client: int
    kind: Kind
    sku: str
    """Empty where the operation is about no product of its own."""
    sent: Mapping[str, str]
    started: float
    ended: float = float("inf")
    outcome: Outcome = "unknown"
    answer: str = ""
    seen: list[Sighting] = field(default_factory=list)
    is_gone: bool = False
    """The answer says that there is no such product, or not any more."""


class Violation(NamedTuple):
    kind: Violated
    sku: str
    """Empty where it is about no product that a client made."""
    what: str


class History:
    """Of all clients. Times are in seconds since it was begun."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self.changes = 0
        """Acknowledged so far."""

    def now(self) -> float:
        return time.monotonic() - self._begun

    def begin(self, client: int, kind: Kind, sku: str = "", sent: Mapping[str, str] | None = None) -> Operation:
        operation = Operation(client, kind, sku, sent or {}, self.now())
        with self._lock:
            self.operations.append(operation)
        return operation

    def end(self, operation: Operation, outcome: Outcome, answer: str) -> None:
        operation.ended, operation.outcome, operation.answer = self.now(), outcome, answer
        if outcome == "ok" and operation.kind in CHANGES:
            with self._lock:
                self.changes += 1

    def by_sku(self) -> dict[str, list[Operation]]:
        """The operations on each product, and the sightings of it by others."""
        found: dict[str, list[Operation]] = {}
        for operation in self.operations:
            skus = {sighting.sku for sighting in operation.seen} | ({operation.sku} if operation.sku else set())
            for sku in skus:
                found.setdefault(sku, []).append(operation)
        return found


def check_history(history: History, stored: Mapping[str, State]) -> list[Violation]:
    """Against what the database holds in the end, by sku."""
    by_sku = history.by_sku()
    violations = [Violation("strangers", sku, "nobody created it") for sku in stored.keys() - by_sku.keys()]
    for sku, operations in by_sku.items():
        violations += ProductHistory(sku, operations).violations(stored.get(sku))
    return violations


class ProductHistory:
    """One product's."""

    def __init__(self, sku: str, operations: Iterable[Operation]) -> None:
        self.sku = sku
        self.operations = sorted(operations, key=lambda each: each.started)
        own = [each for each in self.operations if each.sku == sku]
        self._writes = [each for each in own if each.kind in ("create", "change", "delete")]
        self._gone_at = min((each.ended for each in own if self._says_gone(each)), default=float("inf"))
        self._sightings = [(each, s.state) for each in self.operations for s in each.seen if s.sku == sku]
        answered = sorted(self._sightings, key=lambda sighting: sighting[0].ended)
        self._seen_at = [operation.ended for operation, _ in answered]
        self._newest = list(itertools.accumulate((state for _, state in answered), _newer))

    def violations(self, stored: State | None) -> Iterator[Violation]:
        if not any(each.kind == "create" for each in self._writes):
            yield Violation("strangers", self.sku, "nobody created it")
            return
        yield from self._wrong_answers()
        if stored is None:
            yield from self._wrong_absence()
        else:
            yield from self._wrong_state(stored)

    def _says_gone(self, operation: Operation) -> bool:
        return operation.is_gone or (operation.kind == "delete" and operation.outcome == "ok")

    def _wrong_answers(self) -> Iterator[Violation]:
        contents: dict[int, State] = {}
        for operation, state in self._sightings:
            if self._gone_at < operation.started:
                yield Violation("resurrected", self.sku, f"seen at {operation.started:.2f}, deleted before: {state}")
            acknowledged = self._newest_seen_before(operation.started)
            if acknowledged is not None and state.version < acknowledged.version:
                yield Violation("lost", self.sku, f"{state} seen at {operation.started:.2f}, after {acknowledged}")
            if contents.setdefault(state.version, state) != state:
                yield Violation("strangers", self.sku, f"two contents: {state} and {contents[state.version]}")
            if not self._was_sent(state, before=operation.ended):
                yield Violation("strangers", self.sku, f"nobody had sent what was seen: {state}")
        for operation in self._writes:
            for _, state in operation.seen:
                if not any(each.outcome == "unknown" for each in self._writes) and not _shows(state, operation):
                    yield Violation("lost", self.sku, f"answered to {dict(operation.sent)}: {state}")
        for operation in self.operations:
            if operation.is_gone and not self._may_be_gone(operation.ended):
                yield Violation("lost", self.sku, f"gone at {operation.started:.2f}, and nobody had deleted it")

    def _wrong_absence(self) -> Iterator[Violation]:
        if not self._may_be_gone(float("inf")):
            yield Violation("lost", self.sku, "it is not in the database, and nobody deleted it")

    def _wrong_state(self, stored: State) -> Iterator[Violation]:
        if self._gone_at < float("inf"):
            yield Violation("resurrected", self.sku, f"it is in the database: {stored}")
        last = self._newest_seen_before(float("inf"))
        if last is None:
            last = State(stored.product_id, 1, *self._created())
        maybe = [each for each in self._writes if each.kind == "change" and each.outcome == "unknown"]
        if stored.product_id != last.product_id or not 0 <= stored.version - last.version <= len(maybe):
            yield Violation("lost", self.sku, f"{stored} is stored, {last} was acknowledged")
            return
        for name in FIELDS:
            value, acknowledged = getattr(stored, name), getattr(last, name)
            later = [each for each in maybe if _has_sent(each, name, stored)] if stored.version > last.version else []
            if value != acknowledged and not later:
                yield Violation("lost", self.sku, f"{name} is {value!r}, acknowledged was {acknowledged!r}")

    def _created(self) -> tuple[str, float | None, str]:
        create = next(each for each in self._writes if each.kind == "create")
        return create.sent["title"], float(create.sent["price"]), create.sent["picture"]

    def _newest_seen_before(self, moment: float) -> State | None:
        """The newest that an answer had shown by then."""
        count = bisect.bisect_left(self._seen_at, moment)
        return self._newest[count - 1] if count else None

    def _was_sent(self, state: State, *, before: float) -> bool:
        sent = [each for each in self._writes if each.started < before]
        return all(any(_has_sent(each, name, state) for each in sent) for name in FIELDS)

    def _may_be_gone(self, moment: float) -> bool:
        """Somebody has tried to delete it, or nothing says that it was ever there."""
        tried = any(
            each.kind == "delete" and each.outcome != "failed" and each.started < moment for each in self._writes
        )
        was_there = any(each.ended < moment for each, _ in self._sightings)
        created = any(each.kind == "create" and each.outcome == "ok" and each.ended < moment for each in self._writes)
        return tried or not (was_there or created)


def _newer(one: State, other: State) -> State:
    return other if other.version > one.version else one


def _shows(state: State, operation: Operation) -> bool:
    return all(_has_sent(operation, name, state) for name in operation.sent)


def _has_sent(operation: Operation, name: str, state: State) -> bool:
    return name in operation.sent and _sent_value(operation, name) == getattr(state, name)


def _sent_value(operation: Operation, name: str) -> str | float:
    value = operation.sent[name]
    return float(value) if name == "price" else value


def describe(operations: Iterable[Operation]) -> Iterator[str]:
    """A line each."""
    for each in operations:
        what = ", ".join(f"{name}={value[:12]}" for name, value in each.sent.items())
        seen = ", ".join(f"v{s.state.version} {s.state.title}" for s in each.seen[:3]) if each.kind != "search" else ""
        ended = "never" if each.ended == float("inf") else f"{each.ended:.2f}"
        who = f"client {each.client} {each.kind}"
        yield f"{each.started:8.2f} to {ended:>8}  {who} {what} -> {each.outcome} ({each.answer}) {seen}"


def count_outcomes(history: History) -> Counter[Outcome]:
    return Counter(each.outcome for each in history.operations)

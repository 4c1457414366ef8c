"""Which products a fill could not take: all by id and kind, a few with the reason, and none of them whole.

Where a picture store was lost that is every product there is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from orm_models import REASON_LENGTH
from tuwen.indexing.outcomes import Failed, Unreadable

Kind = Literal["failed", "unreadable"]

MOST_FAILURES = 20


class Failure(TypedDict):
    product_id: int
    reason: str


class NotTaken:
    """Of one round."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        """The first few, for people."""
        self._ids: dict[Kind, set[int]] = {"failed": set(), "unreadable": set()}
        self._first: dict[Kind, Failure] = {}

    def __len__(self) -> int:
        return sum(map(len, self._ids.values()))

    def add(self, products: Iterable[Failed]) -> None:
        for each in products:
            kind: Kind = "unreadable" if isinstance(each, Unreadable) else "failed"
            failure = Failure(product_id=each.product.product_id, reason=each.reason[:REASON_LENGTH])
            self._ids[kind].add(failure["product_id"])
            self._first.setdefault(kind, failure)
            if len(self.failures) < MOST_FAILURES:
                self.failures.append(failure)

    def kind_of(self, product_id: int) -> Kind | None:
        return next((kind for kind, ids in self._ids.items() if product_id in ids), None)

    def first_of(self, kind: Kind) -> str:
        """For the end of a sentence; empty where there is none."""
        first = self._first.get(kind)
        return f"; product {first['product_id']}: {first['reason']}" if first else ""


@dataclass
class Round:
    """Of the fill: how many it bound, and what it could not."""

    bound: int = 0
    not_taken: NotTaken = field(default_factory=NotTaken)

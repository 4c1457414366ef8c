"""What becomes of a product that ingestion takes up."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orm_models import MAIN, ProductRow, utc_now
from tuwen.catalogue.pictures import Picture
from tuwen.errors import DependencyUnavailable
from tuwen.indexing.drift import Graces
from tuwen.vectors.binding import PictureRow
from vector_db import VectorRow, token_made_at

PATIENCE_S = 30.0
FORGET_AFTER_S = 3600.0  # a fill of many products comes back to one of them late


class Pictured(NamedTuple):
    """A product with its pictures, the main one first, which are none older than it."""

    product: ProductRow
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Encoded:
    """`rows`: one for each picture, in their order."""

    product: ProductRow
    pictures: Sequence[Picture]
    rows: Sequence[VectorRow]


class Failed(NamedTuple):
    product: ProductRow
    reason: str


class Unreadable(Failed):
    """The image store can't give its picture at this moment: it waits for reconciliation."""


class Unanswered(Unreadable):
    """The image store did not answer when it was asked for this one: it is asked again."""


class Inserted(NamedTuple):
    product: ProductRow
    rows: Sequence[PictureRow]


def of_picture(position: int, reason: str) -> str:
    """Which picture of a product the reason is about, where that is not the main one."""
    return reason if position == MAIN else f"Picture {position}: {reason}"


def require_fresh(inserted: Iterable[Inserted], graces: Graces) -> None:
    """A row that stays unbound for long is swept away: whoever was paused since the insert makes new ones."""
    bind_within = graces.unbound / 2
    for row in (row for each in inserted for row, _ in each.rows):
        if row.row_token is not None and utc_now() - token_made_at(row.row_token) >= bind_within:
            raise DependencyUnavailable("The vectors of this batch were made too long ago to be bound; it comes again.")


class Patience:
    """How long a batch is held up by pictures that a store does not give, which answers otherwise."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, float]] = {}
        """Path → when it was asked for in vain first, and last. Batches take turns, and a fill begins again."""

    def judge(self, outcomes: Iterable[Encoded | Failed]) -> list[Encoded | Failed]:
        """Of a batch that comes again: what was unanswered for too long is unreadable."""
        now = time.monotonic()
        self._asked = {path: asked for path, asked in self._asked.items() if now - asked[1] < FORGET_AFTER_S}
        return [self._judge(each, now) for each in outcomes]

    def _judge(self, outcome: Encoded | Failed, now: float) -> Encoded | Failed:
        path = outcome.product.image_path
        if not isinstance(outcome, Unanswered):
            self._asked.pop(path, None)
            return outcome
        since, _ = self._asked.get(path, (now, now))
        self._asked[path] = since, now
        return Unreadable(*outcome) if now - since >= PATIENCE_S else outcome

"""What becomes of a product that ingestion takes up."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from orm_models import ProductRow, utc_now
from tuwen.errors import DependencyUnavailable
from tuwen.indexing.drift import Graces
from vector_db import RowKey, VectorRow, token_made_at

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Encoded:
    product: ProductRow
    row: VectorRow


class Failed(NamedTuple):
    product: ProductRow
    reason: str


class Unreadable(Failed):
    """The image store can't give its picture at this moment: it waits for reconciliation."""


class Unanswered(Unreadable):
    """The image store did not answer when it was asked for this one: it is asked again."""


class Inserted(NamedTuple):
    product: ProductRow
    row: RowKey


def require_fresh(inserted: Iterable[Inserted], graces: Graces) -> None:
    """A row that stays unbound for long is swept away: whoever was paused since the insert makes new ones."""
    bind_within = graces.unbound / 2
    for _, row in inserted:
        if row.row_token is not None and utc_now() - token_made_at(row.row_token) >= bind_within:
            raise DependencyUnavailable("The vectors of this batch were made too long ago to be bound; it comes again.")


class Patience:
    """How long a batch is held up by pictures that a store does not give, which answers otherwise."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def judge(self, outcomes: Iterable[Encoded | Failed]) -> list[Encoded | Failed]:
        """Of one batch, which comes again: what was unanswered for too long is unreadable."""
        before, now, self._since = self._since, time.monotonic(), {}
        return [self._judge(each, before, now) if isinstance(each, Unanswered) else each for each in outcomes]

    def _judge(self, unanswered: Unanswered, before: dict[str, float], now: float) -> Unreadable:
        path = unanswered.product.image_path
        since = self._since[path] = before.get(path, now)
        return Unreadable(*unanswered) if now - since >= PATIENCE_S else unanswered

"""What of the nearest is shown: each product once or the best of each group and of twins, by score, boosted, or in
another order."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

from data_models import SearchSort, Way
from tuwen.catalogue.boosts import Boosting, lifts
from tuwen.catalogue.queries import Group, sort_values, texts_of
from tuwen.database.engine import Database
from tuwen.search.hits import Nearest
from tuwen.search.wishes import Read, Wishes, read_all

# So many of the nearest are put in order by what a query's words wish, and what is further stands behind them. Milvus
# is asked for 64 rows, which is cheap (`nearest.py`); twice as many found no more on the files for tuning.
WISHED = 60


class Ranked(NamedTuple):
    """A product by several searches."""

    product_id: int
    group: Group | None
    score: float
    boosted_score: float | None = None
    twin_key: int | None = None

    def boosted(self, score: float) -> Self:
        """`_replace` takes three times as long, of sixty products a search."""
        return self.__class__(self.product_id, self.group, self.score, score, self.twin_key)


class Part(NamedTuple):
    """What one way of looking gives of a product's score."""

    way: Way
    product_id: int
    rank: int
    score: float


AnyRanked = TypeVar("AnyRanked", Nearest, Ranked)


@dataclass(frozen=True)
class Showing:
    """`wanted`: so many at most. `candidates`: of so many nearest products what is counted over them is said; with
    `sort` or `boosting` no others are shown."""

    wanted: int
    candidates: int = 0
    by_group: bool = False
    folds: bool = False
    """Products with the same picture."""
    sort: SearchSort | None = None
    boosting: Boosting | None = None
    wishes: Wishes | None = None

    @property
    def is_ordered(self) -> bool:
        """By something else than the score, and nothing further is shown."""
        return self.sort is not None or self.boosting is not None

    @property
    def least(self) -> int:
        """Products that have to be known, one more than them."""
        return max(self.candidates, WISHED) if self.wishes else self.candidates

    @property
    def lifted(self) -> int:
        """So many of the nearest are put in another order."""
        return max(self.candidates if self.is_ordered else 0, WISHED if self.wishes else 0)

    @property
    def needed(self) -> int:
        """Products, one more than the candidates: else it would not be known whether they are all."""
        return self.candidates + 1 if self.is_ordered else max(self.wanted, self.least + 1 if self.least else 0)

    def keep(self, nearest: Iterable[Nearest]) -> list[Nearest]:
        """`nearest`: the best first. As many products as candidates are needed, and beyond them the best of each
        further group. No more of `nearest` are made than that takes."""
        kept: dict[int, Nearest] = {}
        seen: set[Hashable] = set()
        shown = 0
        shows_each, least, needed = not self.by_group and not self.folds, self.least, self.needed
        for each in nearest:
            if each.product_id in kept:
                continue
            is_first = shows_each or self._is_first(each, seen)
            if not is_first and len(kept) > least:
                continue
            kept[each.product_id] = each
            shown += is_first
            if len(kept) >= needed and self._is_enough(len(kept), shown):
                break
        return list(kept.values())

    def is_enough(self, kept: Sequence[Nearest]) -> bool:
        return self._is_enough(len(kept), sum(1 for _ in self._firsts(kept)))

    def shown_of(self, ranked: Iterable[Ranked]) -> int:
        return sum(1 for _ in self._firsts(ranked))

    def _is_enough(self, products: int, shown: int) -> bool:
        has_candidates = not self.least or products > self.least
        return has_candidates and (self.is_ordered or shown >= self.wanted)

    def in_order(self, kept: Sequence[AnyRanked], values: Mapping[int, Any]) -> list[AnyRanked]:
        """All that may be shown, the first of each group and of twins. `values`: by product, what it is sorted or
        boosted by."""
        ordered: Sequence[AnyRanked] = kept
        if self.sort is not None:
            ordered = _sorted(kept[: self.candidates], values, descending=self.sort.startswith("-"))
        elif self.boosting is not None:
            ordered = _boosted(kept[: self.candidates], values)
        elif self.wishes is not None:
            ordered = _boosted(kept[:WISHED], values) + list(kept[WISHED:])
        return list(self._firsts(ordered))

    def _firsts(self, ordered: Iterable[AnyRanked]) -> Iterator[AnyRanked]:
        seen: set[Hashable] = set()
        return (each for each in ordered if self._is_first(each, seen))

    def _is_first(self, each: Nearest | Ranked, seen: set[Hashable]) -> bool:
        """Of its group, and of its twins, that is shown. A product without the one or the other is one of its own."""
        if not self.by_group and not self.folds:
            return True
        keys: list[Hashable] = [each.group] if self.by_group and each.group else []
        if self.folds:
            keys.append(each.twin_key or each.product_id)
        if any(key in seen for key in keys):
            return False
        seen.update(keys)
        return True


def _sorted(nearest: Sequence[AnyRanked], values: Mapping[int, Any], *, descending: bool) -> list[AnyRanked]:
    """What has no such value comes last, whichever way; of equal ones the nearer first."""
    with_value = [each for each in nearest if values.get(each.product_id) is not None]
    with_value.sort(key=lambda each: values[each.product_id], reverse=descending)  # which keeps the order of equal ones
    return with_value + [each for each in nearest if values.get(each.product_id) is None]


def order_values(
    database: Database, showing: Showing, candidates: Sequence[int], read: Mapping[int, Read] | None = None
) -> Mapping[int, Any]:
    """By product, what it is sorted or lifted by. `read`: what the first WISHED candidates say, where it is known."""
    if showing.sort is None and showing.boosting is None and showing.wishes is None:
        return {}
    boosted, wished = dict[int, float](), dict[int, float]()
    if showing.sort is not None or showing.boosting is not None or read is None:
        with database.read() as session:
            if showing.sort is not None:
                return sort_values(session, candidates, showing.sort)
            if showing.boosting is not None:
                boosted = lifts(session, candidates, showing.boosting)
            if showing.wishes is not None and read is None:
                read = read_all(texts_of(session, candidates[:WISHED]), showing.wishes.words)
    if showing.wishes is not None and read is not None:
        wished = {each: showing.wishes.lift(read[each]) for each in candidates[:WISHED] if each in read}
    return {each: (1 + boosted.get(each, 0.0)) * (1 + wished.get(each, 0.0)) - 1 for each in candidates}


def _boosted(nearest: Sequence[AnyRanked], values: Mapping[int, float]) -> list[AnyRanked]:
    """What is unlike the query (a score below 0) is lifted by as much, and not pushed down."""
    boosted = [each.boosted(each.score + abs(each.score) * values.get(each.product_id, 0.0)) for each in nearest]
    return sorted(boosted, key=lambda each: -(each.boosted_score or 0.0))

"""What of the nearest is shown: each product once, or the best of each group, by score or in another order."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data_models import SearchSort
from tuwen.search.hits import ProductHit


@dataclass(frozen=True)
class Showing:
    """`wanted`: so many at most. `candidates`: of so many nearest products what is counted over them is said; with
    `sort` no others are shown."""

    wanted: int
    candidates: int = 0
    by_group: bool = False
    sort: SearchSort | None = None

    @property
    def needed(self) -> int:
        """Products, one more than the candidates: else it would not be known whether they are all."""
        return self.candidates + 1 if self.sort else max(self.wanted, self.candidates + 1 if self.candidates else 0)

    def keep(self, hits: Iterable[ProductHit]) -> list[ProductHit]:
        """`hits`: the best first. As many products as candidates are needed, and beyond them the best of each further
        group. No more of `hits` are made than that takes."""
        kept: dict[int, ProductHit] = {}
        groups: set[Hashable] = set()
        for hit in hits:
            if hit.product.product_id in kept:
                continue
            group = self._group(hit)
            if group in groups and len(kept) > self.candidates:
                continue
            kept[hit.product.product_id] = hit
            groups.add(group)
            if self._is_enough(len(kept), len(groups)):
                break
        return list(kept.values())

    def is_enough(self, kept: Sequence[ProductHit]) -> bool:
        return self._is_enough(len(kept), len(set(map(self._group, kept))))

    def _is_enough(self, products: int, groups: int) -> bool:
        has_candidates = not self.candidates or products > self.candidates
        return has_candidates and (self.sort is not None or groups >= self.wanted)

    def shown(self, kept: Sequence[ProductHit]) -> list[ProductHit]:
        ordered = in_order(kept[: self.candidates], self.sort) if self.sort else kept
        best: dict[Hashable, ProductHit] = {}
        for hit in ordered:
            best.setdefault(self._group(hit), hit)
        return list(best.values())[: self.wanted]

    def _group(self, hit: ProductHit) -> Hashable:
        """A product without one is a group of its own."""
        return (hit.product.group_id if self.by_group else None) or hit.product.product_id


def in_order(hits: Sequence[ProductHit], sort: SearchSort) -> list[ProductHit]:
    """What has no such value comes last, whichever way; of equal ones the nearer first."""
    column = sort.removeprefix("-")

    def value(hit: ProductHit) -> Any:
        return getattr(hit.product, column)

    with_value = [hit for hit in hits if value(hit) is not None]
    with_value.sort(key=value, reverse=sort.startswith("-"))  # which keeps the order of equal ones, reversed, too
    return with_value + [hit for hit in hits if value(hit) is None]

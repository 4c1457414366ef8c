"""How good answers are: recall, mean reciprocal rank, nDCG, with intervals, and whether two runs differ.

Recall is counted as MUGE's and Flickr30k's own scripts do: a query counts where any relevant product is among the first
k (trec_eval calls that success). `share@10` is how much of what is relevant is there (trec_eval's recall). nDCG is
trec_eval's, with the grades themselves as gains. The tests compare all with ir-measures, which asks trec_eval; but for
two of our own: `right@5`, of the first five places the share that are right, of those that could be; and `unwanted@10`,
of the first ten those that should not be there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clients.catalogue_import import CatalogueError
from evaluation.queries import Key, Query

DEPTH, PLACES = 10, 5
RECALL_AT = (1, 5, 10)
MEASURES = (
    *(f"recall@{k}" for k in RECALL_AT),
    "mean_recall",
    "mrr@10",
    "ndcg@10",
    "share@10",
    "right@5",
    "unwanted@10",
)
RESAMPLES, SIGN_FLIPS, SEED = 2000, 10_000, 20_260_101
AT_ONCE = 500  # of either, so that a run of a hundred thousand queries fits into memory
INTERVAL = (2.5, 97.5)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One query's answer."""

    query_id: str
    mode: str
    category: str
    measures: Mapping[str, float]
    """None where no product is relevant: nothing could be found."""
    hits: Sequence[Key]
    """Best first; by their sku where they have one."""
    highest: Mapping[str, float] = field(default_factory=dict)
    """Of all hits, the highest relevance and signals, where they were asked for (`no_match.py`)."""


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float
    """Of 95 %: the percentile bootstrap over queries."""


@dataclass(frozen=True)
class Summary:
    mode: str
    category: str
    """Empty: all of them."""
    queries: int
    measures: Mapping[str, Estimate]


@dataclass(frozen=True)
class Difference:
    category: str
    queries: int
    measure: str
    before: float
    after: float
    difference: Estimate
    p_value: float
    """Two-sided, by Fisher's randomization of pairs: how often chance alone would differ as much."""


def judged(query: Query, hits: Sequence[tuple[str | None, int]], highest: Mapping[str, float] | None = None) -> Judged:
    """`hits`: sku and product_id of each, best first."""
    grades = [query.relevant.get(product_id, query.relevant.get(sku or "", 0)) for sku, product_id in hits[:DEPTH]]
    shown: list[Key] = [sku or product_id for sku, product_id in hits]
    unwanted = sum(product_id in query.unwanted or sku in query.unwanted for sku, product_id in hits[:DEPTH])
    measures = measures_of(grades, list(query.relevant.values()), unwanted) if query.relevant else {}
    return Judged(query.query_id, query.mode, query.category, measures, shown, highest or {})


def measures_of(grades: Sequence[int], relevant: Sequence[int], unwanted: int = 0) -> dict[str, float]:
    """`grades`: of the hits, best first, 0 for what is not relevant. `relevant`: of all that are. `unwanted`: so many
    of the first ten hits."""
    recalls = {f"recall@{k}": float(any(grades[:k])) for k in RECALL_AT}
    first = next((rank for rank, grade in enumerate(grades, start=1) if grade), math.inf)
    return {
        **recalls,
        "mean_recall": sum(recalls.values()) / len(recalls),
        "mrr@10": 1 / first,
        "ndcg@10": _dcg(grades) / _dcg(sorted(relevant, reverse=True)[:DEPTH]),
        "share@10": sum(map(bool, grades)) / len(relevant),
        "right@5": sum(map(bool, grades[:PLACES])) / min(PLACES, len(relevant)),
        "unwanted@10": unwanted / DEPTH,
    }


def _dcg(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def summarise(results: Sequence[Judged]) -> list[Summary]:
    """A row for each mode, and for each of its categories if there are several; of what has a relevant product."""
    found, results = [], [result for result in results if result.measures]
    for mode in dict.fromkeys(result.mode for result in results):
        of_mode = [result for result in results if result.mode == mode]
        for category, of_category in _by_category(of_mode):
            values = _values(of_category)
            found.append(Summary(mode, category, len(of_category), _estimates(values)))
    return found


def compare(before: Sequence[Judged], after: Sequence[Judged]) -> list[Difference]:
    """Of the queries that both have, by their ids. Raises CatalogueError where there are none."""
    earlier = {result.query_id: result for result in before if result.measures}
    both = [result for result in after if result.query_id in earlier and result.measures]
    if not both:
        raise CatalogueError("The two runs have no query in common: are they of one file?")
    found = []
    for category, of_category in _by_category(both):
        old, new = _values([earlier[result.query_id] for result in of_category]), _values(of_category)
        differences, p_values = _estimates(new - old), _p_values(new - old)
        means = zip(MEASURES, old.mean(axis=0), new.mean(axis=0), strict=True)
        found += [
            Difference(category, len(of_category), name, float(a), float(b), differences[name], p_values[name])
            for name, a, b in means
        ]
    return found


def _by_category(results: Sequence[Judged]) -> Iterator[tuple[str, Sequence[Judged]]]:
    """All of them, under an empty name, and then each of several."""
    categories = list(dict.fromkeys(result.category for result in results))
    yield categories[0] if len(categories) == 1 else "", results
    for category in categories if len(categories) > 1 else ():
        yield category, [result for result in results if result.category == category]


def _values(results: Sequence[Judged]) -> Values:
    return np.array([[result.measures[name] for name in MEASURES] for result in results], np.float64)


def interval_of(values: Values) -> tuple[float, float]:
    """Of what resamples came to."""
    low, high = np.percentile(values, INTERVAL)
    return float(low), float(high)


def _estimates(values: Values) -> dict[str, Estimate]:
    generator, queries = np.random.default_rng(SEED), len(values)
    means = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        drawn = generator.multinomial(queries, np.full(queries, 1 / queries), size=AT_ONCE)
        means.append(drawn @ values / queries)
    low, high = np.percentile(np.concatenate(means), INTERVAL, axis=0)
    columns = zip(MEASURES, values.mean(axis=0), low, high, strict=True)
    return {name: Estimate(float(mean), float(a), float(b)) for name, mean, a, b in columns}


def _p_values(differences: Values) -> dict[str, float]:
    """Each query's two answers are exchanged by the toss of a coin."""
    generator, queries = np.random.default_rng(SEED), len(differences)
    seen = np.abs(differences.sum(axis=0)) - 1e-9
    as_large = np.zeros(len(MEASURES))
    for _ in range(0, SIGN_FLIPS, AT_ONCE):
        signs = generator.integers(0, 2, (AT_ONCE, queries), dtype=np.int8) * np.int8(2) - np.int8(1)
        as_large += (np.abs(signs @ differences) >= seen).sum(axis=0)
    return dict(zip(MEASURES, ((as_large + 1) / (SIGN_FLIPS + 1)).tolist(), strict=True))

"""How well an answer tells that nothing fits: queries with a product and without, told apart by the best of their hits.

By relevance, and beside it by each signal that a fixed threshold could be laid on: a cosine, the share of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.fitting import Values, auroc
from evaluation.measures import RESAMPLES, SEED, Estimate, Judged, interval_of

RELEVANCE = "relevance"
NOTHING_FOUND = -1.0  # a query without hits is sure to have no match


@dataclass(frozen=True)
class Separation:
    mode: str
    signal: str
    auroc: Estimate
    best_threshold: float
    """Chosen on these very queries: as good as a fixed one could be."""
    best_right: float
    """The share that it judges rightly."""
    right_at_min_score: float | None
    """The same of a `min_score` that was not."""
    with_product: int
    without_product: int


def separations(results: Sequence[Judged], min_score: float) -> list[Separation]:
    """Of each mode that has queries of both kinds."""
    found = []
    for mode in dict.fromkeys(result.mode for result in results):
        of_mode = [result for result in results if result.mode == mode]
        has_product = np.array([bool(result.measures) for result in of_mode])
        if has_product.all() or not has_product.any():
            continue
        for signal in dict.fromkeys(name for result in of_mode for name in result.highest):
            values = np.array([result.highest.get(signal, NOTHING_FOUND) for result in of_mode], np.float64)
            found.append(_separation(mode, signal, values[has_product], values[~has_product], min_score))
    return found


def _separation(mode: str, signal: str, positives: Values, negatives: Values, min_score: float) -> Separation:
    generator = np.random.default_rng(SEED)
    resampled = np.array(
        [
            auroc(generator.choice(positives, positives.size), generator.choice(negatives, negatives.size))
            for _ in range(RESAMPLES)
        ]
    )
    thresholds = np.unique(np.concatenate([positives, negatives]))
    rights = [_right_at(threshold, positives, negatives) for threshold in thresholds]
    best = int(np.argmax(rights))
    return Separation(
        mode,
        signal,
        Estimate(auroc(positives, negatives), *interval_of(resampled)),
        float(thresholds[best]),
        rights[best],
        _right_at(min_score, positives, negatives) if signal == RELEVANCE else None,
        positives.size,
        negatives.size,
    )


def _right_at(threshold: float, positives: Values, negatives: Values) -> float:
    return float((positives >= threshold).sum() + (negatives < threshold).sum()) / (positives.size + negatives.size)

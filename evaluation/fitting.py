"""Logistic regression of a few signals, in numpy: fitted, and judged on parts that it was not fitted on.

A weight below zero would say that what is nearer fits less: its signal is left out, so that relevance never falls where
a cosine or the share of words rises.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FOLDS, BINS = 5, 10
PENALTY = 1.0  # of weights in units of their signal's spread, against hits that weigh one query together
STEPS, CLOSE_ENOUGH = 100, 1e-10
SHORTEST = 1e-9
LEAST_OF_EITHER = 10  # queries, of which a threshold says anything

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Hits with their query: what is fitted on."""

    names: Sequence[str]
    signals: Values
    """[hits, names]"""
    is_relevant: Values
    """[hits]: 0 or 1."""
    queries: npt.NDArray[np.intp]
    """[hits]: of which each is, by number from 0 on."""

    def of(self, chosen: npt.NDArray[np.bool_]) -> "Pairs":
        return Pairs(self.names, self.signals[chosen], self.is_relevant[chosen], self.queries[chosen])


@dataclass(frozen=True)
class Fit:
    intercept: float
    weights: Values
    """[names], in log-odds for each unit of a signal; 0 for what is left out."""

    def relevance(self, signals: Values) -> Values:
        found: Values = 1 / (1 + np.exp(-np.clip(self.intercept + signals @ self.weights, -700, 700)))
        return found


@dataclass(frozen=True)
class Quality:
    auroc: float
    log_loss: float
    calibration_error: float
    threshold: float | None
    """Of the highest relevance of a query's hits: what tells best whether any is relevant. None where all have one."""


def fit(pairs: Pairs) -> Fit:
    chosen = list(range(len(pairs.names)))
    while True:
        found = _fit(pairs, chosen)
        worst = int(np.argmin(found.weights))
        if found.weights[worst] >= 0:
            return found
        chosen.remove(worst)


def cross_validated(pairs: Pairs) -> Values:
    """[hits]: each hit's relevance by what was fitted without its query."""
    folds = pairs.queries % FOLDS
    found = np.zeros(len(folds))
    for fold in range(FOLDS):
        left_out = folds == fold
        if left_out.any():
            found[left_out] = fit(pairs.of(~left_out)).relevance(pairs.signals[left_out])
    return found


def quality(relevance: Values, pairs: Pairs) -> Quality:
    """Of each query its hits weigh as much as another's, but for AUROC."""
    weights = _weights(pairs.queries)
    sure = np.clip(relevance, SHORTEST, 1 - SHORTEST)
    losses = -np.where(pairs.is_relevant > 0, np.log(sure), np.log(1 - sure))
    error = 0.0
    for part in np.array_split(np.argsort(relevance, kind="stable"), BINS):
        if part.size:
            error += abs(float((weights[part] * (relevance[part] - pairs.is_relevant[part])).sum()))
    return Quality(
        auroc(relevance[pairs.is_relevant > 0], relevance[pairs.is_relevant == 0]),
        float((weights * losses).sum() / weights.sum()),
        error / float(weights.sum()),
        best_threshold(*_highest(relevance, pairs)),
    )


def _highest(relevance: Values, pairs: Pairs) -> tuple[Values, Values]:
    """[queries]: the highest relevance of its hits, and whether one of them is relevant."""
    highest, has_one = (np.zeros(int(pairs.queries.max()) + 1) for _ in range(2))
    np.maximum.at(highest, pairs.queries, relevance)
    np.maximum.at(has_one, pairs.queries, pairs.is_relevant)
    asked = np.unique(pairs.queries)
    return highest[asked], has_one[asked]


def best_threshold(highest: Values, has_one: Values) -> float | None:
    """Between the two values of it where the shares of either kind that are judged rightly are highest together."""
    with_one, without = highest[has_one > 0], highest[has_one == 0]
    if min(with_one.size, without.size) < LEAST_OF_EITHER:
        return None
    values = np.unique(highest)
    between = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2])
    rights = [(with_one >= each).mean() + (without < each).mean() for each in between]
    return float(between[int(np.argmax(rights))])


def auroc(positives: Values, negatives: Values) -> float:
    """How often one of the positives is above one of the negatives; of equal ones half (Mann and Whitney, 1947)."""
    if not positives.size or not negatives.size:
        return 0.5
    _, places, counts = np.unique(np.concatenate([positives, negatives]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts + (counts + 1) / 2)[places]
    n = positives.size
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * negatives.size))


def _fit(pairs: Pairs, chosen: Sequence[int]) -> Fit:
    """Newton's method on the penalised likelihood, which is convex."""
    signals = pairs.signals[:, chosen]
    mean, spread = signals.mean(axis=0), np.maximum(signals.std(axis=0), SHORTEST)
    columns = np.column_stack([np.ones(len(signals)), (signals - mean) / spread])
    penalties = np.full(columns.shape[1], PENALTY)
    penalties[0] = 0.0
    weights, found = _weights(pairs.queries), np.zeros(columns.shape[1])
    for _ in range(STEPS):
        relevance = 1 / (1 + np.exp(-np.clip(columns @ found, -700, 700)))
        slope = columns.T @ (weights * (relevance - pairs.is_relevant)) + penalties * found
        bend = (columns.T * (weights * relevance * (1 - relevance))) @ columns + np.diag(penalties + SHORTEST)
        step = np.linalg.solve(bend, slope)
        found -= step
        if float(np.abs(step).max()) < CLOSE_ENOUGH:
            break
    all_weights = np.zeros(len(pairs.names))
    all_weights[chosen] = found[1:] / spread
    return Fit(float(found[0] - all_weights[chosen] @ mean), all_weights)


def _weights(queries: npt.NDArray[np.intp]) -> Values:
    """Of each query's hits together those of ten: who found few has as much say as the others."""
    counts = np.bincount(queries)
    weights: Values = 10.0 / counts[queries]
    return weights

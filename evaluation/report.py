"""Runs and their differences as tables for a terminal, and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from evaluation.measures import MEASURES, Difference, Estimate, Summary
from evaluation.no_match import Separation
from evaluation.run import write_json

SHOWN = {"recall@1": "R@1", "recall@5": "R@5", "recall@10": "R@10", "mean_recall": "mean R"}
SHOWN |= {"mrr@10": "MRR", "ndcg@10": "nDCG@10", "share@10": "share@10", "right@5": "right@5"}
SHOWN |= {"unwanted@10": "unwanted@10"}
SURELY = 0.05


def run_table(summaries: Iterable[Summary]) -> Table:
    table = Table("mode", "category", *SHOWN.values(), "queries", caption="%, with 95 % intervals")
    for row in summaries:
        cells = (_with_interval(row.measures[name]) for name in MEASURES)
        table.add_row(row.mode, row.category or "all", *cells, str(row.queries))
    return table


def comparison_table(differences: Sequence[Difference]) -> Table:
    table = Table("category", "measure", "before", "after", "difference", "p", "queries")
    for row in differences:
        surely = "*" if row.p_value < SURELY else ""
        means = (f"{100 * row.before:.1f}", f"{100 * row.after:.1f}")
        difference = _with_interval(row.difference, sign="+")
        table.add_row(
            row.category or "all",
            SHOWN[row.measure],
            *means,
            difference,
            f"{row.p_value:.4f}{surely}",
            str(row.queries),
        )
    return table


def separation_table(separations: Iterable[Separation], min_score: float) -> Table:
    columns = (
        "mode",
        "by the highest",
        "AUROC",
        "right at its best threshold",
        f"right at {min_score}",
        "with",
        "without",
    )
    table = Table(*columns, caption="whether any product fits; %, with 95 % intervals")
    for row in separations:
        at = f"{100 * row.right_at_min_score:.1f}" if row.right_at_min_score is not None else ""
        best = f"{100 * row.best_right:.1f} ({row.best_threshold:.3f})"
        counts = (str(row.with_product), str(row.without_product))
        table.add_row(row.mode, row.signal.replace("_", " "), _with_interval(row.auroc), best, at, *counts)
    return table


def save(differences: Sequence[Difference], file: Path) -> None:
    """Raises CatalogueError."""
    write_json([asdict(difference) for difference in differences], file)


def _with_interval(estimate: Estimate, sign: str = "") -> str:
    value, low, high = (f"{100 * each:{sign}.1f}" for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"

"""A chart of one run, or of several beside each other, as PNG. Needs matplotlib, which the service does not bring."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.catalogue_import import CatalogueError
from evaluation.measures import Estimate, Summary

CHARTED = {"recall@1": "R@1", "recall@5": "R@5", "recall@10": "R@10", "mrr@10": "MRR", "ndcg@10": "nDCG@10"}
# Chinese categories need a font that has them; matplotlib takes the first that is installed.
FONTS = ["Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Microsoft YaHei", "SimHei", "DejaVu Sans"]


def draw(runs: Mapping[str, Sequence[Summary]], file: Path) -> None:
    """A panel for each mode and category, bars for each run by name. Raises CatalogueError without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415
        import matplotlib.pyplot as plt  # noqa: PLC0415
        from matplotlib import font_manager  # noqa: PLC0415
    except ImportError as error:
        raise CatalogueError(
            "Charts need matplotlib: pip install -r evaluation/requirements.txt -c constraints.txt"
        ) from error
    mpl.use("Agg")
    installed = {font.name for font in font_manager.fontManager.ttflist}
    plt.rcParams.update({"font.family": [font for font in FONTS if font in installed], "font.size": 9})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    panels = _panels(runs)
    figure, axes = plt.subplots(len(panels), 1, figsize=(7, 2.2 * len(panels)), squeeze=False, sharey=True)
    for place, (title, of_runs) in zip(axes[:, 0], panels.items(), strict=True):
        _draw_panel(place, title, of_runs)
    if len(runs) > 1:
        axes[0, 0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    try:
        figure.savefig(file, format="png", dpi=140)
    except OSError as error:
        raise CatalogueError(f"The chart can't be written: {error}") from error
    finally:
        plt.close(figure)


def _panels(runs: Mapping[str, Sequence[Summary]]) -> dict[str, dict[str, Summary]]:
    """By category where all runs have one mode each, which may be another's; else by both."""
    by_mode = any(len({summary.mode for summary in summaries}) > 1 for summaries in runs.values())
    panels: dict[str, dict[str, Summary]] = {}
    for name, summaries in runs.items():
        for summary in summaries:
            title = summary.category or "all"
            panels.setdefault(f"{summary.mode}: {title}" if by_mode else title, {})[name] = summary
    return panels


def _draw_panel(axes: Any, title: str, of_runs: Mapping[str, Summary]) -> None:
    width = 0.8 / len(of_runs)
    for number, (name, summary) in enumerate(of_runs.items()):
        estimates: list[Estimate] = [summary.measures[measure] for measure in CHARTED]
        places = [place + number * width for place in range(len(CHARTED))]
        heights = [100 * each.value for each in estimates]
        below = [100 * (each.value - each.low) for each in estimates]
        above = [100 * (each.high - each.value) for each in estimates]
        bars = axes.bar(places, heights, width * 0.92, yerr=[below, above], capsize=2, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=7, label_type="center", color="white")
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(CHARTED))], list(CHARTED.values()))
    axes.set_ylim(0, 105)
    axes.set_title(f"{title}, {next(iter(of_runs.values())).queries} queries, %", loc="left", fontsize=9)

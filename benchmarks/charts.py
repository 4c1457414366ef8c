"""From results to docs/performance.md and its Chinese twin: the tables between their marks, and the charts.

    make charts        # from .work/bench
    python benchmarks/charts.py --tables-only

What a folder of results holds replaces what `benchmarks/measured/` has of the same names; all is made from there.
Needs Python alone, and for the charts matplotlib.
"""

import argparse
import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ROOT / "benchmarks" / "measured"
DOCUMENTS = {"en": ROOT / "docs" / "performance.md", "zh": ROOT / "docs" / "performance.zh-CN.md"}
CHARTS = ROOT / "docs" / "images"
ROUNDED_FROM = 100

Row = dict[str, Any]
# Headings and words of the tables; what is not here is the same in both languages.
CHINESE = {
    "what": "内容",
    "by": "方式",
    "alone, per s": "单条，每秒",
    "best batch, per s": "最佳批次，每秒",
    "× transformers, alone": "× transformers，单条",
    "× transformers, best": "× transformers，最佳批次",
    "images": "图片",
    "clip texts": "CLIP 文本",
    "titles": "BGE 标题",
    "demo": "演示模型",
    "real": "真实规模",
    "models": "模型",
    "mode": "模式",
    "clients": "客户端",
    "service": "服务",
    "searches/s": "搜索/秒",
    "mean ms": "平均 ms",
    "errors": "错误",
    "ours × its searches/s": "我们的搜索/秒 ÷ 它的",
    "products": "商品",
    "queries": "查询",
    "cache hits": "缓存命中",
    "new": "全新",
    "zipf": "Zipf",
    "known": "已知",
    "rows": "行",
    "when": "何时",
    "just inserted": "刚写入",
    "settled": "重开之后",
    "filter": "过滤",
    "all": "无",
    "every other": "50 %",
    "one in ten": "10 %",
    "one in a hundred": "1 %",
    "one in a thousand": "0.1 %",
    "1 query p50 ms": "1 条查询 p50 ms",
    "40 queries p50 ms": "40 条查询 p50 ms",
    "memory MiB": "内存 MiB",
    "disk MiB": "磁盘 MiB",
    "end to end, per s": "端到端，每秒",
    "encoders alone, per s": "仅编码器，每秒",
    "share": "占比",
    "searchable after, p50 ms": "可搜到，p50 ms",
    "search p95 ms, idle": "搜索 p95 ms，空闲",
    "search p95 ms, meanwhile": "搜索 p95 ms，写入期间",
    "ratio": "比值",
    "first answer, s": "首次回答，秒",
    "API MiB": "API MiB",
    "Milvus Lite MiB": "Milvus Lite MiB",
    "in all MiB": "合计 MiB",
    "first of all, which converts the models": "第一次启动（转换模型）",
    "at start": "启动时",
    "after searches": "搜索之后",
    "tuwen": "图文（我们的）",
    "both_text_modes": "A2 + A4",
    "all_modes": "A1–A4",
}
ENGLISH = {"every other": "50 %", "one in ten": "10 %", "one in a hundred": "1 %", "one in a thousand": "0.1 %"}
ENGLISH |= {"all": "none", "tuwen": "ours", "both_text_modes": "A2 + A4", "all_modes": "A1–A4"}
MODE_CODES = {"image_to_image": "A1", "text_to_text": "A2", "image_to_text": "A3", "text_to_image": "A4"}

# Of each table: the results that it shows, and its columns by heading, with how a row gives it.
Column = tuple[str, Callable[[Row], Any]]
LOAD: list[Column] = [
    ("searches/s", lambda row: row["searches_per_s"]),
    ("mean ms", lambda row: row["mean_ms"]),
    ("p50", lambda row: row["p50_ms"]),
    ("p95", lambda row: row["p95_ms"]),
    ("p99", lambda row: row["p99_ms"]),
    ("errors", lambda row: row["errors"]),
]
SEARCHES: list[Column] = [
    ("models", lambda row: row["models"]),
    ("products", lambda row: row["products"]),
    ("queries", lambda row: row["draw"]),
    ("mode", lambda row: MODE_CODES.get(row["mode"], row["mode"])),
    ("clients", lambda row: row["clients"]),
    *LOAD,
    ("cache hits", lambda row: row.get("cache_hits", "")),
]
TABLES: dict[str, tuple[Sequence[str], list[Column]]] = {
    "evening": (
        ["evening"],
        [
            ("mode", lambda row: MODE_CODES.get(row["mode"], row["mode"])),
            ("clients", lambda row: row["clients"]),
            ("service", lambda row: row["service"]),
            ("ours × its searches/s", lambda row: row["ours_times_the_searches"]),
            *LOAD,
        ],
    ),
    "encode": (
        ["encode", "encode-real"],
        [
            ("models", lambda row: row["models"]),
            ("what", lambda row: row["what"]),
            ("by", lambda row: row["kind"]),
            ("× transformers, alone", lambda row: row["ratio_alone"]),
            ("× transformers, best", lambda row: row["ratio_best"]),
            ("alone, per s", lambda row: row["per_s_alone"]),
            ("best batch, per s", lambda row: row["per_s_best"]),
        ],
    ),
    "ingest": (
        ["ingest", "ingest-real"],
        [
            ("models", lambda row: row["models"]),
            ("share", lambda row: row["share_of_encoders"]),
            ("end to end, per s", lambda row: row["products_per_s"]),
            ("encoders alone, per s", lambda row: row["encoders_per_s"]),
            ("searchable after, p50 ms", lambda row: row["searchable_p50_ms"]),
            ("search p95 ms, idle", lambda row: row["idle"]["p95_ms"]),
            ("search p95 ms, meanwhile", lambda row: row["meanwhile"]["p95_ms"]),
            ("ratio", lambda row: row["p95_ratio"]),
        ],
    ),
    "scale": (
        ["scale"],
        [
            ("rows", lambda row: row["rows"]),
            ("when", lambda row: row["when"]),
            ("filter", lambda row: row["filter"]),
            ("recall@10", lambda row: row["recall_at_10"]),
            ("1 query p50 ms", lambda row: row["one_p50_ms"]),
            ("p95", lambda row: row["one_p95_ms"]),
            ("40 queries p50 ms", lambda row: row["forty_p50_ms"]),
            ("memory MiB", lambda row: row["memory_mib"]),
            ("disk MiB", lambda row: row["disk_mib"]),
        ],
    ),
    "start": (
        ["start"],
        [
            ("when", lambda row: row["which"]),
            ("first answer, s", lambda row: row["first_answer_s"]),
            ("API MiB", lambda row: row["api_mib"]),
            ("Milvus Lite MiB", lambda row: row["lite_process_mib"]),
            ("in all MiB", lambda row: row["in_all_mib"]),
        ],
    ),
    "search_load": (["search_load", "search_load-large", "search_load-real"], SEARCHES),
}


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    options.add_argument("results", nargs="?", type=Path, help="a folder of `make bench`")
    options.add_argument("--tables-only", action="store_true")
    chosen = options.parse_args()
    MEASURED.mkdir(exist_ok=True)
    for file in sorted(chosen.results.glob("*.json")) if chosen.results else ():
        if not json.loads(file.read_text(encoding="utf-8"))["quick"]:
            shutil.copy(file, MEASURED / file.name)
    for language, document in DOCUMENTS.items():
        document.write_text(with_tables(document.read_text(encoding="utf-8"), language), encoding="utf-8")
    if not chosen.tables_only:
        draw()


def with_tables(text: str, language: str) -> str:
    """What stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(match[2], language)}\n{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", replaced, text, flags=re.DOTALL)


def table(name: str, language: str) -> str:
    files, columns = TABLES[name]
    reports = [report for report in map(read, files) if report]
    if not reports:
        return said("Not measured yet.", "尚未测量。", language)
    rows = [row for report in reports for row in report["results"]]
    shown = [column for column in columns if any(cell(column, row, language) for row in rows)]
    lines = [[word(heading, language) for heading, _ in shown], ["---"] * len(shown)]
    lines += [[cell(column, row, language) for column in shown] for row in rows]
    machines = "\n".join(dict.fromkeys(machine(report, language) for report in reports))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{machines}\n"


def cell(column: Column, row: Row, language: str) -> str:
    value = column[1](row)
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < ROUNDED_FROM else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else word(str(value), language)


def word(text: str, language: str) -> str:
    return (CHINESE if language == "zh" else ENGLISH).get(text, text)


def said(english: str, chinese: str, language: str) -> str:
    return chinese if language == "zh" else english


def machine(report: Row, language: str) -> str:
    facts, load = report["machine"], report["load_average"]
    libraries = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    flags = ", ".join(facts["cpu_flags"])
    before, after = (load[when][0] for when in ("before", "after"))
    return said(
        f"*{report['began_at'][:10]}: {facts['cores']} cores of {facts['cpu']} ({flags}), {facts['memory_gib']:.0f} "
        f"GiB, Python {facts['python']}, {libraries}; load average {before:.1f} before, {after:.1f} after.*",
        f"*{report['began_at'][:10]}：{facts['cpu']} 的 {facts['cores']} 个核（{flags}），{facts['memory_gib']:.0f} "
        f"GiB，Python {facts['python']}，{libraries}；负载：之前 {before:.1f}，之后 {after:.1f}。*",
        language,
    )


def read(name: str) -> Row | None:
    file = MEASURED / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def draw() -> None:
    import matplotlib as mpl  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 140})
    for name, plot in {"evening": draw_evening, "encode": draw_encode, "scale": draw_scale}.items():
        report = read(name)
        if report:
            figure = plot(plt, report["results"])
            figure.tight_layout()
            figure.savefig(CHARTS / f"performance-{name}.png")
            plt.close(figure)


def draw_evening(plt: Any, rows: Iterable[Row]) -> Any:
    """Searches a second, a panel for each mode."""
    rows = list(rows)
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    figure, panels = plt.subplots(1, len(modes), figsize=(4 * len(modes), 2.8), squeeze=False)
    for axes, mode in zip(panels[0], modes, strict=True):
        of_mode = [row for row in rows if row["mode"] == mode]
        clients = sorted({row["clients"] for row in of_mode})
        services = list(dict.fromkeys(row["service"] for row in of_mode))
        for number, service in enumerate(services):
            heights = [row["searches_per_s"] for row in of_mode if row["service"] == service]
            places = [place + number * 0.26 for place in range(len(clients))]
            bars = axes.bar(places, heights, 0.24, label=word(service, "en"))
            axes.bar_label(bars, fmt="%.0f", fontsize=7)
        axes.set_xticks([place + 0.26 for place in range(len(clients))], [f"{each} clients" for each in clients])
        axes.set_title(f"{MODE_CODES[mode]}, searches/s")
    panels[0][0].legend(frameon=False)
    return figure


def draw_encode(plt: Any, rows: Iterable[Row]) -> Any:
    """How many times plain transformers at its own best batch."""
    rows = [row for row in rows if row["kind"] != "transformers"]
    labels = [f"{row['models']} {row['what']}, {row['kind']}" for row in rows]
    figure, axes = plt.subplots(figsize=(7, 0.28 * len(rows) + 1))
    axes.barh(labels[::-1], [row["ratio_best"] for row in rows][::-1], label="best batch", height=0.7)
    axes.plot([row["ratio_alone"] for row in rows][::-1], labels[::-1], "k|", label="one at a time", markersize=9)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_xlabel("times plain transformers, float32")
    axes.legend(frameon=False)
    return figure


def draw_scale(plt: Any, rows: Iterable[Row]) -> Any:
    """Milliseconds by rows, a line for each filter."""
    rows = list(rows)
    figure, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    for axes, when in zip(panels, ("just inserted", "settled"), strict=True):
        for wanted in dict.fromkeys(row["filter"] for row in rows):
            line = [row for row in rows if row["filter"] == wanted and row["when"] == when]
            places, heights = [row["rows"] for row in line], [row["one_p50_ms"] for row in line]
            axes.plot(places, heights, marker="o", label=f"filter: {word(wanted, 'en')}")
        axes.set(xscale="log", yscale="log", title=when, xlabel="rows")
    panels[0].set_ylabel("ms for one query (p50)")
    panels[0].legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    main()

"""What all benchmarks share: the facts of the machine beside the figures, and the JSON that a run leaves.

A figure without its machine says nothing, and one on a busy machine says little: the load goes with it.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tuwen.settings import PROJECT_ROOT, VERSION

RESULTS = PROJECT_ROOT / ".work" / "bench"
LIBRARIES = ("torch", "transformers", "sentence-transformers", "openvino", "pymilvus", "milvus-lite", "fastapi")
# Which decide how fast a model computes.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
MIB, GIB = 2**20, 2**30

Row = dict[str, Any]


class Report:
    """Of one run: made before it, written after it."""

    def __init__(self, benchmark: str, *, quick: bool) -> None:
        self._benchmark = benchmark
        self._quick = quick
        self._began_at = datetime.now(UTC)
        self._load_before = os.getloadavg()
        self.rows: list[Row] = []

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        shown = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
        )
        print(f"{self._benchmark}: {', '.join(shown)}", flush=True)

    def write(self, path: Path | None) -> None:
        path = path or RESULTS / f"{self._benchmark}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "benchmark": self._benchmark,
            "quick": self._quick,
            "began_at": self._began_at.isoformat(timespec="seconds"),
            "took_s": round((datetime.now(UTC) - self._began_at).total_seconds(), 1),
            "load_average": {"before": self._load_before, "after": os.getloadavg()},
            "machine": machine(),
            "results": self.rows,
        }
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> Row:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _from_cpuinfo("model name") or platform.processor(),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in _from_cpuinfo("flags").split()],
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "tuwen": VERSION,
        "versions": {library: importlib.metadata.version(library) for library in LIBRARIES},
    }


def _from_cpuinfo(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def options(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark takes; and one that is told to stop (SIGTERM) stops what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see only whether it runs; what it measures says nothing")
    parser.add_argument("--json", type=Path, help="where to write the results")
    return parser


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed; the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)

"""That the benchmarks run and write what they measured; what they measure here says nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.__main__ import NOT_QUICK, RUNS
from benchmarks.charts import DOCUMENTS, TABLES, with_tables
from benchmarks.gpu import NO_GPU
from tests.conftest import create_product, wait_until_indexed
from tests.processes import ROOT, environment, require_program

# What these start takes half a minute of a core each, so that the common run leaves them out.
LEFT_OUT = NOT_QUICK if os.environ.get("LONG_TESTS") else NOT_QUICK | {"evening", "ingest", "search_load"}


def report_of(module: str, report: Path, *options: str) -> dict[str, Any]:
    require_program("wrk")
    command = [sys.executable, "-m", f"benchmarks.{module}", "--json", str(report), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    written: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return written


def test_the_load_of_searches_is_measured(api: httpx.Client, tmp_path: Path) -> None:
    """Of a service that runs; the quick form below starts its own, for every mode."""
    create_product(api, "红色沙发")
    wait_until_indexed(api)
    where = ["--url", str(api.base_url), "--seconds", "1", "--clients", "1", "--draw", "zipf"]
    [result] = report_of("search_load", tmp_path / "report.json", *where, "--modes", "text_to_text")["results"]
    assert result["mode"] == "text_to_text"
    assert 0 <= result["cache_hits"] < 1
    assert result["searches_per_s"] > 0
    assert 0 < result["p50_ms"] <= result["p99_ms"]


@pytest.mark.parametrize("name", sorted(set(RUNS) - LEFT_OUT))
def test_each_benchmark_writes_what_it_measured(name: str, tmp_path: Path) -> None:
    report = report_of(RUNS[name][0], tmp_path / "report.json", "--quick")
    assert report["quick"]
    assert report["results"]
    assert report["machine"]["cores"] > 0
    assert report["machine"]["cpu"]


def test_the_encoders_on_a_gpu_are_measured_where_there_is_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--json", str(tmp_path / "report.json")]
    hidden = environment() | {"CUDA_VISIBLE_DEVICES": ""}
    without = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)
    assert (without.returncode, without.stdout) == (1, "")
    assert without.stderr.splitlines() == [NO_GPU]
    if not os.environ.get("LONG_TESTS"):
        return
    command += ["--device", "cpu", "--precisions", "bfloat16"]
    subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=True)
    device, *rows = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["results"]
    assert device["name"] == "cpu"
    assert {row["what"] for row in rows} == {"images", "clip texts", "titles", "mixed titles"}
    assert all(row["per_s"] > 0 and row["cosine"] > 0.99 for row in rows)


def test_copies_of_pictures_are_looked_for() -> None:
    command = [sys.executable, "-m", "benchmarks.duplicates", "--every", "40", "--others", "50"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert "a look among 870 products" in done.stdout, done.stderr
    copies = {line.split("  ")[0]: line.split()[-5:] for line in done.stdout.splitlines()[1:5]}
    for kind in ("saved anew", "scaled"):
        assert copies[kind][0] == copies[kind][1] == "11"


@pytest.mark.parametrize("language", DOCUMENTS)
def test_the_tables_are_those_of_the_results(language: str) -> None:
    text = DOCUMENTS[language].read_text(encoding="utf-8")
    assert with_tables(text, language) == text, "run: make charts"
    assert set(re.findall(r"<!-- table: (\w+) -->", text)) == set(TABLES)

"""That the benchmarks run; what they measure here says nothing."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from data_models import SearchMode
from tests.conftest import create_product, wait_until_indexed
from tests.processes import ROOT, environment, require_program


@pytest.mark.parametrize(
    ("options", "modes"),
    [
        (["--clients", "2"], list(SearchMode)),
        (["--clients", "1", "--known", "--modes", "text_to_text"], ["text_to_text"]),
    ],
    ids=["new queries", "known queries"],
)
def test_the_load_of_searches_is_measured(
    api: httpx.Client, tmp_path: Path, options: list[str], modes: list[str]
) -> None:
    require_program("wrk")
    create_product(api, "红色沙发")
    wait_until_indexed(api)
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.search_load", "--url", str(api.base_url), "--seconds", "3"]
    command += ["--json", str(report), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(report.read_text())["results"]
    assert [each["mode"] for each in results] == modes
    assert all(each["searches_per_s"] > 0 and 0 < each["p50_ms"] <= each["p99_ms"] for each in results)

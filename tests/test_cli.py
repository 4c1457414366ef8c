"""Commands that need no model load none, and say in a line what is missing."""

import subprocess
import sys
from pathlib import Path

import httpx

from tests.conftest import create_product, wait_until_indexed
from tests.demo.test_demo_command import run_cli
from tests.processes import ROOT, environment, running_api

LOADED_BY_MODELS = ("torch", "transformers", "sentence_transformers", "diffusers")


def test_what_only_opens_the_stores_loads_no_model() -> None:
    program = f"import sys, cli, tuwen.assembly; print([name for name in {LOADED_BY_MODELS} if name in sys.modules])"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_reconcile_without_an_index_says_what_makes_it(tmp_path: Path) -> None:
    result = run_cli("reconcile", DATA_DIR=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "No index is live (there is none yet): starting the API or a worker makes it."
    )
    assert "Traceback" not in result.stderr


def test_reconcile_names_each_kind_of_drift(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    with running_api(tmp_path, **tiny_models) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        create_product(client, "红色沙发")
        wait_until_indexed(client)
        locked = run_cli("reconcile", DATA_DIR=str(tmp_path / "data"))
        assert (locked.returncode, "another process has it" in locked.stderr) == (1, True)
    result = run_cli("reconcile", DATA_DIR=str(tmp_path / "data"))
    assert result.returncode == 0, result.stderr
    assert " ".join(result.stdout.split()) == (
        "0 stale pending products, 0 indexed products unbound, 0 bindings without vector,"
        " 0 vectors without binding, 0 images without product"
    )

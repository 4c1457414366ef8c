"""Commands that need no model load none, and say in a line what is missing."""

import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from orm_models import ProductVectorRow
from tests.conftest import create_product, wait_until_indexed
from tests.demo.test_demo_command import run_cli
from tests.processes import ROOT, environment, running_api
from tuwen.database.engine import Database
from tuwen.indexing.reconciliation import KINDS

LOADED_BY_MODELS = ("torch", "transformers", "sentence_transformers", "diffusers")
LOADED_BY_WORDS = ("rjieba", "pypinyin")


def test_what_only_opens_the_stores_loads_no_model_and_no_dictionary() -> None:
    loaded = f"[name for name in {LOADED_BY_MODELS + LOADED_BY_WORDS} if name in sys.modules]"
    program = f"import sys, cli, tuwen.assembly, tuwen.search.searcher as s; s.Lexicon(None); print({loaded})"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_reconcile_without_an_index_says_what_makes_it(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path), "MILVUS_URI": "http://127.0.0.1:9", "MILVUS_TIMEOUT_S": "1"}
    assert run_cli("migrate", **settings).returncode == 0
    result = run_cli("reconcile", **settings)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "No index is live (there is none yet): starting the API or a worker makes it."
    )
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("options", [(), ("--repair", "--delete-many")])
def test_reconcile_makes_no_installation_and_migrates_none(tmp_path: Path, options: tuple[str, ...]) -> None:
    empty = run_cli("reconcile", *options, DATA_DIR=str(tmp_path / "typo"))
    assert (empty.returncode, empty.stdout) == (2, "")
    assert empty.stderr == f"There is no installation in DATA_DIR={tmp_path / 'typo'}: no tuwen.db.\n"
    with tarfile.open(ROOT / "tests" / "data" / "data-0.2.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    before = contents_of(tmp_path)
    old = run_cli("reconcile", *options, DATA_DIR=str(tmp_path))
    assert (old.returncode, old.stdout) == (2, "")
    assert "run 'python cli.py migrate'" in old.stderr.splitlines()[-1]
    assert contents_of(tmp_path) == before


@pytest.mark.parametrize("command", [("list",), ("revoke", "till"), ("create", "--name", "till", "--scope", "search")])
def test_keys_are_of_an_installation_that_is_there_and_migrate_none(tmp_path: Path, command: tuple[str, ...]) -> None:
    typo = tmp_path / "typo"
    new = run_cli("keys", *command, DATA_DIR=str(typo))
    if command[0] == "create":
        assert (new.returncode, new.stdout[:6]) == (0, "tuwen_")
        assert new.stderr.splitlines()[0] == f"A new database: {typo / 'tuwen.db'} (DATA_DIR)"
    else:
        assert (new.returncode, new.stdout, typo.exists()) == (1, "", False)
        assert new.stderr == f"There is no installation in DATA_DIR={typo}: no tuwen.db.\n"
        address = f"sqlite:///{tmp_path / 'typo.db'}"
        elsewhere = run_cli("keys", *command, DATABASE_URL=address)
        assert elsewhere.stderr == f"There is no installation in DATABASE_URL: no {tmp_path / 'typo.db'}.\n"
        assert not (tmp_path / "typo.db").exists()
    old = tmp_path / "old"
    with tarfile.open(ROOT / "tests" / "data" / "data-0.2.0.tar.gz") as archive:
        archive.extractall(old, filter="data")
    before = contents_of(old)
    refused = run_cli("keys", *command, DATA_DIR=str(old))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "run 'python cli.py migrate'" in refused.stderr
    assert contents_of(old) == before


def contents_of(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_reconcile_looks_and_mends_only_if_told_to(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    data = {"DATA_DIR": str(tmp_path / "data")}
    with running_api(tmp_path, **tiny_models) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        create_product(client, "红色沙发")
        wait_until_indexed(client)
        locked = run_cli("reconcile", **data)
        assert (locked.returncode, locked.stdout) == (2, "")
        assert "another process has it" in locked.stderr
        assert "to reconcile by hand, stop it first" in locked.stderr
        assert "Traceback" not in locked.stderr
    assert counts_of(run_cli("reconcile", **data)) == (0, dict.fromkeys(KINDS, (0, 0)))
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tuwen.db'}")
    with database.write() as session:
        session.execute(sa.delete(ProductVectorRow))
    database.close()
    for option, status, mended in (("--passes=1", 1, 0), ("--repair", 0, 1), ("--passes=2", 0, None)):
        found = dict.fromkeys(KINDS, (0, 0))
        if mended is not None:
            found["indexed_products_unbound"] = (1, mended)
        assert counts_of(run_cli("reconcile", option, **data)) == (status, found)


def test_reconcile_removes_many_pictures_only_with_repair(tmp_path: Path) -> None:
    result = run_cli("reconcile", "--delete-many", DATA_DIR=str(tmp_path))
    assert result.returncode == 2
    assert "it goes with --repair" in result.stderr


def counts_of(result: subprocess.CompletedProcess[str]) -> tuple[int, dict[str, tuple[int, int]]]:
    """The exit status, and what the table says: kind → found, mended."""
    rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in result.stdout.splitlines() if "│" in line]
    return result.returncode, {
        kind.replace(" ", "_"): (int(found), int(mended)) for kind, found, mended in rows if kind
    }

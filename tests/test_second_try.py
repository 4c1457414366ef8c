"""Which failures of a run may be tried once more: `tests/second_try.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.second_try import MOST, OPTION

HEAD = """
import socket, weakref, pytest
from tests.promises import require_in_time

def test_late(): require_in_time(2, 1)
"""
WRONG = "def test_wrong(): assert False\n"
FIXTURE = "@pytest.fixture\ndef late():\n    yield\n    require_in_time(2, 1)\n"
LEAK = "def test_leak():\n    one = [socket.socket()]\n    one.append(one)\n"
SEVERAL = "@pytest.mark.parametrize('n', range({}))\ndef test_it(n): require_in_time(2, 1)\n"


@pytest.mark.parametrize(
    ("source", "options", "may_be_tried"),
    [
        pytest.param(SEVERAL.format(MOST - 1), [], True, id="late alone"),
        pytest.param(WRONG, [], False, id="beside another failure"),
        pytest.param(FIXTURE + "def test_it(late): pass\n", [], False, id="late after a test"),
        pytest.param(WRONG, ["-x"], False, id="a run that ended there"),
        pytest.param(LEAK, [], False, id="a leak that is found at the end"),
        pytest.param(SEVERAL.format(MOST), [], False, id="too many"),
    ],
)
def test_a_run_is_tried_again_for_what_was_late_alone(
    tmp_path: Path, source: str, options: list[str], may_be_tried: bool
) -> None:
    (tmp_path / "test_it.py").write_text(HEAD + source, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    report = tmp_path / "late"
    command = [sys.executable, "-m", "pytest", "-p", "tests.second_try", f"{OPTION}={report}", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout
    late = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    assert len(late) == MOST * may_be_tried
    assert late[:1] == ["test_it.py::test_late"] * may_be_tried

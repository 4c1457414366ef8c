"""Which failures of a run may be tried once more: `tests/second_try.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

LATE = "@pytest.mark.wall_time\ndef test_late(): assert False\n"
FIXTURE = "@pytest.fixture\ndef late():\n    yield\n    assert False\n"


@pytest.mark.parametrize(
    ("source", "options", "tried"),
    [
        pytest.param(LATE, [], ["test_it.py::test_late"], id="a promise of seconds"),
        pytest.param("@pytest.fixture\ndef browser(): pass\ndef test_page(browser): assert False\n", [],
                     ["test_it.py::test_page"], id="a page in a browser"),
        pytest.param(LATE + "def test_wrong(): assert False\n", [], None, id="beside anything else"),
        pytest.param(FIXTURE + "@pytest.mark.wall_time\ndef test_it(late): pass\n", [], None, id="after the test"),
        pytest.param("@pytest.mark.wall_time\ndef test_it(): raise ResourceWarning\n", [], None, id="a warning"),
        pytest.param(LATE + "def test_wrong(): assert False\n", ["-x"], None, id="a run that ended there"),
        pytest.param("def test_right(): pass\n", [], None, id="nothing failed"),
    ],
)  # fmt: skip
def test_a_run_is_tried_again_for_promises_of_seconds_alone(
    tmp_path: Path, source: str, options: list[str], tried: list[str] | None
) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\n{source}", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = wall_time\n", encoding="utf-8")
    report = tmp_path / "report"
    command = [sys.executable, "-m", "pytest", "-p", "tests.second_try", f"--second-try={report}", *options]
    ended = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == int("assert False" in source or "raise" in source), ended.stdout
    assert (report.read_text(encoding="utf-8").splitlines() if report.exists() else None) == tried

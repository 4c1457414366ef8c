"""The promise that the database, Milvus and the pictures never disagree, under faults at random.

Two minutes of faults, and after each stack's some three in which all graces run out. For as long as you like:
`make faults MINUTES=60`.
"""

import os
from pathlib import Path

import pytest

from tests.faults.run import STACKS, run

SEED = int(os.environ.get("FAULTS_SEED", "1"))
SECONDS = {"full": 80.0, "embedded": 40.0}


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_acknowledged_is_lost_and_nothing_deleted_comes_back(
    stack: str, tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    report = run(stack, SEED, SECONDS[stack], tmp_path, tiny_models)
    print(report.summary(), *report.details(), sep="\n")
    assert report.faults
    assert report.settled.stored
    assert not report.violations
    assert not report.unforeseen()

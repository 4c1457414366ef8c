"""All tests, in parts side by side: two halves, which each start up on one core, and the faults at random, which mostly
wait, and let the others go first.

A promise of seconds that was broken beside two other parts says little of us: what failed is tried once more when
nothing else runs, by name, and counts as failed if it fails again.

python -m tests [options of pytest]
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

HERE = Path(__file__).parent
# Of the folders' names: about half of the time is before it, but for one that goes to the second half.
SECOND_HALF_FROM, ALSO_SECOND = "importing", "faults"
AT_RANDOM = HERE / "faults" / "test_stores_agree.py"


def parts() -> tuple[list[str], list[str], list[str]]:
    folders = sorted(path for path in HERE.iterdir() if path.is_dir() and any(path.glob("test_*.py")))
    first = [path for path in folders if path.name < SECOND_HALF_FROM and path.name != ALSO_SECOND]
    second = [*(path for path in folders if path.name >= SECOND_HALF_FROM), *sorted(HERE.glob("test_*.py"))]
    return [*map(str, first)], [*map(str, second), str(HERE / ALSO_SECOND), f"--ignore={AT_RANDOM}"], [str(AT_RANDOM)]


def main() -> int:
    # Two cores' worth of threads in each part wait for each other's turns: 60 steps of a tiny model took 98 s, not 13.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Each part remembers by itself what failed.
    commands = [
        [sys.executable, "-m", "pytest", "-o", f"cache_dir=.pytest_cache/{number}", *sys.argv[1:], *part]
        for number, part in enumerate(parts())
    ]
    first, second, at_random = ([*command, "--cache-clear"] for command in commands)
    with ExitStack() as ending:
        beside = [_start(second, ending), _start(["nice", *at_random], ending)]
        statuses = [subprocess.run(first, check=False).returncode]
        statuses += [process.wait() for process in beside]
    for number, status in enumerate(statuses):
        if status == pytest.ExitCode.TESTS_FAILED:
            print("\nOnce more, with nothing beside it: what failed above.", flush=True)
            # A part that a hanging test ended has remembered nothing: none then, and that is a failure, too.
            again = ["--last-failed", "--last-failed-no-failures=none", "--maxfail=1", "--verbose"]
            statuses[number] = subprocess.run([*commands[number], *again], check=False).returncode
    return int(any(statuses))  # a part that was killed has a negative one


def _start(command: list[str], ending: ExitStack) -> subprocess.Popen[bytes]:
    """What it says comes at the end, in one piece."""
    output = tempfile.TemporaryFile()  # noqa: SIM115  # closed at the end
    ending.enter_context(output)
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    ending.callback(_end, process, output)
    return process


def _end(process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    process.terminate()
    process.wait()
    output.seek(0)
    sys.stdout.buffer.write(output.read())
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

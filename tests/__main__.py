"""All tests, in parts side by side: two halves, which each start up on one core, and the faults at random, which mostly
wait, and let the others go first.

A promise of seconds that was broken beside two other parts says little: where up to three tests of a half were late
and nothing else failed (`tests/second_try.py`), these are tried once more when nothing else runs, and named at the end.

python -m tests [options of pytest]
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from tests.second_try import OPTION

HERE = Path(__file__).parent
# Of the folders' names: about half of the time is before it, but for one that goes to the second half.
SECOND_HALF_FROM, ALSO_SECOND = "importing", "faults"
AT_RANDOM = HERE / "faults" / "test_stores_agree.py"
TESTS_FAILED = 1
END_S = 60
PYTEST = [sys.executable, "-m", "pytest", *sys.argv[1:]]


def halves() -> tuple[list[str], list[str]]:
    folders = sorted(path for path in HERE.iterdir() if path.is_dir() and any(path.glob("test_*.py")))
    first = [path for path in folders if path.name < SECOND_HALF_FROM and path.name != ALSO_SECOND]
    second = [*(path for path in folders if path.name >= SECOND_HALF_FROM), *sorted(HERE.glob("test_*.py"))]
    return [*map(str, first)], [*map(str, second), str(HERE / ALSO_SECOND), f"--ignore={AT_RANDOM}"]


def main() -> int:
    # Two cores' worth of threads in each part wait for each other's turns: 60 steps of a tiny model took 98 s, not 13.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        reports = [Path(folder, "first"), Path(folder, "second")]
        first, second = (
            [*PYTEST, "-p", "tests.second_try", f"{OPTION}={report}", *half]
            for report, half in zip(reports, halves(), strict=True)
        )
        with ExitStack() as ending:
            beside = [_start(second, ending), _start(["nice", *PYTEST, str(AT_RANDOM)], ending)]
            statuses = [process.wait() for process in (_shown(first, ending), *beside)]
        late = [report.read_text(encoding="utf-8").splitlines() if report.exists() else [] for report in reports]
    for half, tests in enumerate(late):
        if tests and statuses[half] == TESTS_FAILED:
            print("\nOnce more, with nothing beside:", *tests, flush=True)
            statuses[half] = subprocess.run([*PYTEST, *tests], check=False).returncode
            print("These were late beside the other parts, and tried twice:", *tests, flush=True)
    return int(any(statuses))  # a part that was killed has a negative one


def _shown(command: list[str], ending: ExitStack) -> subprocess.Popen[bytes]:
    """In a group of its own, as all parts are: a terminal's Ctrl-C reaches this process alone, which tells all."""
    process = subprocess.Popen(command, process_group=0)
    ending.callback(_end, process)
    return process


def _start(command: list[str], ending: ExitStack) -> subprocess.Popen[bytes]:
    """What it says comes at the end, in one piece."""
    output = tempfile.TemporaryFile()  # noqa: SIM115  # closed at the end
    ending.enter_context(output)
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, process_group=0)
    ending.callback(_show, output)
    ending.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # upon which it ends the servers that it has started
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _show(output: IO[bytes]) -> None:
    output.seek(0)
    sys.stdout.buffer.write(output.read())
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

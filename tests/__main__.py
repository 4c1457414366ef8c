"""All tests, in parts side by side: most of the time they wait for a server, and start up on one core.

python -m tests [options of pytest]
"""

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
# Their faults take two minutes, their settling four, in which little is at work.
STACKS = HERE / "faults" / "test_stores_agree.py"
# Of the folders' names: about half of the time is before it.
SECOND_HALF_FROM = "indexing"
# By the second: when the stacks above use the cores no more.
LAST = "faults"


def parts() -> list[list[str]]:
    """What pytest is given in each."""
    folders = sorted(path for path in HERE.iterdir() if path.is_dir() and any(path.glob("test_*.py")))
    first = [path for path in folders if path.name < SECOND_HALF_FROM and path.name != LAST]
    second = [*(path for path in folders if path.name >= SECOND_HALF_FROM), *sorted(HERE.glob("test_*.py"))]
    halves = [first, [*second, HERE / LAST]]
    return [[*map(str, half), f"--ignore={STACKS}"] for half in halves] + [
        [str(STACKS), "-k", stack] for stack in ("full", "embedded")
    ]


def main() -> int:
    pytest = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    shown, *others = parts()
    with ExitStack() as outputs:
        beside = [(part, outputs.enter_context(tempfile.TemporaryFile())) for part in others]
        processes = [subprocess.Popen([*pytest, *part], stdout=output, stderr=output) for part, output in beside]
        try:
            statuses = [subprocess.run([*pytest, *shown], check=False).returncode]
            statuses += [process.wait() for process in processes]
        finally:
            for process, (_, output) in zip(processes, beside, strict=True):
                process.terminate()
                process.wait()
                output.seek(0)
                sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return int(any(statuses))  # a part that was killed has a negative one


if __name__ == "__main__":
    sys.exit(main())

"""All tests, in two halves side by side: most of the time they wait for a server, and start up on one core.

python -m tests [options of pytest]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
# Of the folders' names: about half of the time is before it, but for one that goes to the second half.
SECOND_HALF_FROM, ALSO_SECOND = "importing", "faults"


def halves() -> tuple[list[str], list[str]]:
    folders = sorted(path for path in HERE.iterdir() if path.is_dir() and any(path.glob("test_*.py")))
    first = [path for path in folders if path.name < SECOND_HALF_FROM and path.name != ALSO_SECOND]
    second = [*(path for path in folders if path.name >= SECOND_HALF_FROM), *sorted(HERE.glob("test_*.py"))]
    return [*map(str, first)], [*map(str, second), str(HERE / ALSO_SECOND)]


def main() -> int:
    pytest = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    first, second = halves()
    with tempfile.TemporaryFile() as output:
        beside = subprocess.Popen([*pytest, *second], stdout=output, stderr=subprocess.STDOUT)
        try:
            statuses = [subprocess.run([*pytest, *first], check=False).returncode, beside.wait()]
        finally:
            beside.terminate()
            beside.wait()
            output.seek(0)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return int(any(statuses))  # a half that was killed has a negative one


if __name__ == "__main__":
    sys.exit(main())

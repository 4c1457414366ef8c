"""`make bench`: all of them, one after another, each in a process of its own.

    python -m benchmarks [--quick] [--only start evening] [--out .work/bench]

Each leaves a JSON file with the machine's facts; `make charts` makes the pictures and tables of docs/performance.md.
`gpu` is passed over where there is no CUDA GPU.
"""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks import results
from tuwen.encoders.device import choose_device
from tuwen.settings import PROJECT_ROOT

# Name of the file that each leaves → module and options. The shortest come first.
RUNS: dict[str, list[str]] = {
    "start": ["start"],
    "evening": ["evening"],
    "encode": ["encode", "--one-core"],
    "gpu": ["gpu"],
    "encode-real": ["encode", "--one-core", "--models", "real", "--batches", "1", "16", "--rounds", "3"],
    "ingest": ["ingest"],
    "scale": ["scale"],
    "search_load": ["search_load", "--products", "820", "10000", "--runs", "3"],
    "search_load-large": ["search_load", "--products", "100000", "--draw", "new"],
    "search_load-real": ["search_load", "--models", "real", "--products", "10000"],
    "ingest-real": ["ingest", "--models", "real", "--products", "300"],
}
NOT_QUICK = {"gpu", "encode-real", "search_load-large", "search_load-real", "ingest-real"}


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    options.add_argument("--out", type=Path, default=results.RESULTS)
    chosen = options.parse_args()
    failed = []
    for name in chosen.only:
        if chosen.quick and name in NOT_QUICK:
            continue
        module, *its_options = RUNS[name]
        if module == "gpu" and choose_device("auto") != "cuda":
            print("== gpu: no CUDA GPU here", flush=True)
            continue
        command = [sys.executable, "-m", f"benchmarks.{module}", "--json", str(chosen.out / f"{name}.json")]
        command += ["--quick"] if chosen.quick else its_options
        started = time.monotonic()
        with subprocess.Popen(command, cwd=PROJECT_ROOT) as process:
            try:
                status = process.wait()
            except BaseException:
                process.terminate()  # it stops what it started
                raise
        print(f"== {name}: {time.monotonic() - started:.0f} s, status {status}", flush=True)
        if status:
            failed.append(name)
    sys.exit(f"Not as they should be: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()

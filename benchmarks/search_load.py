"""What searches take with so many clients at once: each mode, against a service that runs, from outside (by `wrk`).

    make demo                                            # in another terminal
    python -m benchmarks.search_load --clients 1 40

Queries are the demo catalogue's titles and pictures, each with a number behind it, so that no vector is known before;
`--known` leaves the number out. A line for each mode and number of clients, and with `--json` all of it with the
machine's facts. Several runs, the median by mean latency: `--runs 3`.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from data_models import SearchMode
from tuwen.settings import PROJECT_ROOT, load_settings

CATALOGUE = PROJECT_ROOT / "demo" / "catalogue.jsonl"
PICTURES = PROJECT_ROOT / "evaluation" / "views"  # of the catalogue's products, from other sides
PICTURES_USED = 60
SCRIPT = Path(__file__).with_suffix(".lua")
TIMEOUT_S = 30


@dataclass(frozen=True)
class Measured:
    mode: str
    clients: int
    searches_per_s: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int

    def __str__(self) -> str:
        return (
            f"{self.mode:15} {self.clients:4} clients: {self.searches_per_s:7.1f}/s, mean {self.mean_ms:7.1f} ms, "
            f"p50 {self.p50_ms:7.1f}, p95 {self.p95_ms:7.1f}, p99 {self.p99_ms:7.1f}, {self.errors} errors"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    options.add_argument("--url", default=load_settings().api_address)
    options.add_argument("--clients", type=int, nargs="+", default=[1, 10, 40, 160])
    options.add_argument("--modes", nargs="+", type=SearchMode, choices=list(SearchMode), default=list(SearchMode))
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--known", action="store_true", help="the same queries again and again")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("This needs wrk: apt-get install wrk, or brew install wrk.")
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for mode in chosen.modes:
            queries = write_queries(Path(folder), mode)
            for clients in chosen.clients:
                runs = [
                    run(chosen.url, mode, clients, chosen.seconds, queries, is_new=not chosen.known)
                    for _ in range(chosen.runs)
                ]
                results.append(sorted(runs, key=lambda each: each.mean_ms)[len(runs) // 2])
                print(results[-1], flush=True)
    if chosen.json:
        report = {"machine": machine(), "new_queries": not chosen.known, "results": [asdict(each) for each in results]}
        chosen.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(each.errors for each in results))


def write_queries(folder: Path, mode: SearchMode) -> Path:
    """A file that names the files of the queries."""
    files: list[Path]
    if mode.query_is_image:
        views = sorted(PICTURES.iterdir())
        files = views[:: max(1, len(views) // PICTURES_USED)][:PICTURES_USED]
    else:
        files = [folder / "titles.txt"]
        files[0].write_text("\n".join(titles()) + "\n", encoding="utf-8")
    listed = folder / f"{mode}.txt"
    listed.write_text("\n".join(map(str, files)) + "\n", encoding="utf-8")
    return listed


def titles() -> Iterator[str]:
    with CATALOGUE.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["title"].replace("\\", "").replace('"', "")


def run(url: str, mode: SearchMode, clients: int, seconds: int, queries: Path, *, is_new: bool) -> Measured:
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_S}s", "-s", str(SCRIPT), url]
    env = os.environ | {"MODE": str(mode.value), "NEW": "1" if is_new else "0", "FILES": str(queries)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if result is None:
        sys.exit(f"wrk measured nothing: {done.stdout[-500:]}{done.stderr[-500:]}")
    requests, duration_us, mean, p50, p95, p99, errors = map(float, result.split()[1:])
    per_s = requests / duration_us * 1e6
    return Measured(mode.value, clients, round(per_s, 1), mean, p50, p95, p99, int(errors))


def machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
    }


if __name__ == "__main__":
    main()

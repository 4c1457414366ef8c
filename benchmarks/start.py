"""How long the service takes from its start to its first answer of a search, and the memory that it has then and later.

    python -m benchmarks.start

With the demo models and the demo catalogue, of several starts the median: all but the first, which converts the models.
Memory is that of the API and its children, after the first answer and again after searches by 40 clients.
"""

import tempfile
import time
from pathlib import Path

import httpx

from benchmarks import load, results, services

CLIENTS = 40
MODES = ("text_to_image", "image_to_image")
QUERY = {"mode": "text_to_image", "text": "红色沙发", "top_k": 10}


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--seconds", type=int, default=15, help="of searches before the memory is looked at again")
    chosen = options.parse_args()
    services.require_wrk()
    if chosen.quick:
        chosen.runs, chosen.seconds = 1, 1
    report = results.Report("start", quick=chosen.quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not chosen.quick:
            took_s, memory = start(folder / "first", 0, encoder_cache_dir=folder / "exports")
            report.add(which="first of all, which converts the models", first_answer_s=took_s, **memory["at start"])
        if not chosen.quick:
            with services.running_service(folder) as service:
                services.load(service.url, services.demo_items())
        runs = [start(folder, chosen.seconds) for _ in range(chosen.runs)]
        took_s = results.median([took_s for took_s, _ in runs])
        for when in ("at start", "after searches"):
            figures = {name: results.median([memory[when][name] for _, memory in runs]) for name in runs[0][1][when]}
            report.add(which=when, first_answer_s=took_s, runs=chosen.runs, **figures)
    report.write(chosen.json)


def start(folder: Path, seconds: int, **settings: object) -> tuple[float, dict[str, dict[str, float]]]:
    """Seconds to the first answer, and MiB of each process."""
    began = time.monotonic()
    with services.started_service(folder, **settings) as service:
        services.wait_for(lambda: finds(service.url), service.process, folder / "api.log")
        took_s = time.monotonic() - began
        memory = {"at start": service.memory()}
        if seconds:
            for mode in MODES:
                load.run(service.url, mode, CLIENTS, seconds, folder)
            memory["after searches"] = service.memory()
        return took_s, memory


def finds(url: str) -> bool:
    try:
        return httpx.post(
            f"{url}/search", json=QUERY, timeout=30, trust_env=False, verify=services.WITHOUT_TLS
        ).is_success
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()

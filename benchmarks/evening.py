"""The service against what one would write in an evening (`evening_service.py`): same model, catalogue, clients, run.

    python -m benchmarks.evening

Services run side by side and are asked in turns, round after round; the median of the rounds. Theirs need the
environment that `make bench` makes, `.work/evening-venv`.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks import load, results, services
from benchmarks.models import model_settings
from tuwen.settings import PROJECT_ROOT

PYTHON = PROJECT_ROOT / ".work" / "evening-venv" / "bin" / "python"
STORES = ("chroma", "lancedb")
OURS = "tuwen"
VECTORS = "vectors.json"
MODES = ("text_to_image", "image_to_image")


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--clients", type=int, nargs="+", default=[1, 40])
    options.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("--python", type=Path, default=PYTHON, help="of the environment with chromadb and lancedb")
    chosen = options.parse_args()
    services.require_wrk()
    if chosen.quick:
        chosen.clients, chosen.rounds, chosen.seconds = [2], 1, 1
    if not chosen.python.is_file() and not chosen.quick:
        sys.exit(f"There is no {chosen.python}: make {PYTHON.parents[1].relative_to(PROJECT_ROOT)}/installed")
    stores = () if chosen.quick else STORES  # whose libraries a test of this has not
    report = results.Report("evening", quick=chosen.quick)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, products = Path(name), 10 if chosen.quick else len(services.demo_items())
        if stores:
            write_vectors(folder / VECTORS, products)
        urls = {store: stack.enter_context(_evening(chosen.python, store, folder, products)) for store in stores}
        urls[OURS] = stack.enter_context(_ours(folder / OURS, products))
        for mode in chosen.modes:
            for clients in chosen.clients:
                for row in _compare(urls, mode, clients, chosen.rounds, chosen.seconds, folder):
                    report.add(products=products, **row)
    report.write(chosen.json)
    sys.exit(any(row["errors"] for row in report.rows if row["service"] == OURS))


def write_vectors(file: Path, products: int) -> None:
    from benchmarks.synthetic import demo_vectors  # noqa: PLC0415  # loads models

    vectors = demo_vectors(services.settings_of(file.parent), products).image_clip
    file.write_text(json.dumps(vectors.tolist()), encoding="utf-8")


@contextmanager
def _evening(python: Path, store: str, folder: Path, products: int) -> Iterator[str]:
    port = services.free_port()
    command = [str(python), "-m", "uvicorn", "benchmarks.evening_service:app", "--port", str(port)]
    command += ["--log-level", "warning"]
    chosen = {"STORE": store, "FOLDER": str(folder / store), "PRODUCTS": str(products)}
    chosen["VECTORS"] = str(folder / VECTORS)
    log = folder / f"{store}.log"
    with services.running(command, log, os.environ | chosen | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}) as process:
        url = f"http://127.0.0.1:{port}"
        services.wait_for(lambda: services.answers(f"{url}/health/ready"), process, log)
        yield url


@contextmanager
def _ours(folder: Path, products: int) -> Iterator[str]:
    with services.running_service(folder, **model_settings("demo")) as service:
        services.load(service.url, services.demo_items(products))
        yield service.url


def _compare(
    urls: Mapping[str, str], mode: str, clients: int, rounds: int, seconds: int, folder: Path
) -> Iterator[results.Row]:
    """Each with how many times as many searches a second as it gives, and as short a median, ours takes."""
    runs: dict[str, list[load.Measured]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, url in urls.items():
            runs[name].append(load.run(url, mode, clients, seconds, folder))
    middle = {name: load.middle(of_one) for name, of_one in runs.items()}
    for name, measured in middle.items():
        yield {
            "service": name,
            **asdict(measured),
            "ours_times_the_searches": round(middle[OURS].searches_per_s / measured.searches_per_s, 2),
            "ours_times_the_p50": round(middle[OURS].p50_ms / measured.p50_ms, 2),
        }


if __name__ == "__main__":
    main()

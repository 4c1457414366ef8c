"""Searches from outside, by so many clients at once: `wrk`, another process, driven by `search_load.lua`.

API_KEY in the environment is the key that a service needs: one with the scopes `search` and `admin`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from PIL import Image

from benchmarks.services import CATALOGUE
from data_models import SearchMode
from tuwen.settings import PROJECT_ROOT

PICTURES = PROJECT_ROOT / "evaluation" / "views"  # of the catalogue's products, from other sides
PICTURES_USED = 60
PICTURE_SIZE = (512, 512)  # what a shop's page shows; the views are smaller
SCRIPT = Path(__file__).with_name("search_load.lua")
TIMEOUT_S = 30
Draw = Literal["new", "known", "zipf"]
CACHE = ("hit", "miss")
DISTINCT_TITLES = 10_000  # that a Zipf mix draws from
MIXES: Mapping[str, Sequence[SearchMode]] = {
    **{str(mode.value): (mode,) for mode in SearchMode},
    "both_text_modes": (SearchMode.TEXT_TO_TEXT, SearchMode.TEXT_TO_IMAGE),
    "all_modes": tuple(mode for mode in SearchMode if mode is not SearchMode.HYBRID),
}


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


def run(url: str, mode: str, clients: int, seconds: int, folder: Path, draw: Draw = "new") -> Measured:
    """`mode`: one of MIXES. What is needed of queries is written into `folder`. With errors the times say nothing."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_S}s", "-s", str(SCRIPT), url]
    queries = {"TEXTS": str(_texts(folder, draw)), "PICTURES": str(_pictures(folder))}
    modes = ",".join(str(each.value) for each in MIXES[mode])
    env = os.environ | queries | {"MODES": modes, "DRAW": draw}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if result is None:
        sys.exit(f"wrk measured nothing: {done.stdout[-500:]}{done.stderr[-500:]}")
    requests, duration_us, mean, p50, p95, p99, errors = map(float, result.split()[1:])
    answered = round((requests - errors) / duration_us * 1e6, 1)  # a refusal is quick, and no search
    return Measured(mode, clients, answered, mean, p50, p95, p99, int(errors))


def middle(runs: Sequence[Measured]) -> Measured:
    """The median by mean latency."""
    return sorted(runs, key=lambda each: each.mean_ms)[len(runs) // 2]


def titles() -> Iterator[str]:
    """Of the demo catalogue, as they can stand in JSON."""
    with CATALOGUE.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["title"].replace("\\", "").replace('"', "")


def query_cache(url: str) -> tuple[float, float]:
    """How many queries had their vector already, and how many did not, since the service started."""
    key = os.environ.get("API_KEY", "")
    try:
        answer = httpx.get(f"{url}/metrics", headers={"X-API-Key": key}, timeout=30, trust_env=False)
        lines = answer.raise_for_status().text.splitlines()
    except httpx.HTTPError as error:
        sys.exit(f"No service answers at {url}: {error}")
    counts = {
        result: [line for line in lines if f'_query_cache_total{{result="{result}"}}' in line] for result in CACHE
    }
    known, made = (float(counts[result][0].split()[-1]) if counts[result] else 0.0 for result in CACHE)
    return known, made


def _texts(folder: Path, draw: Draw) -> Path:
    lines = list(titles())
    if draw == "zipf":
        lines = [f"{lines[number % len(lines)]} {number}" for number in range(DISTINCT_TITLES)]
    return _written(folder / f"{draw}.txt", lines)


def _pictures(folder: Path) -> Path:
    views = sorted(PICTURES.iterdir())
    chosen = views[:: max(1, len(views) // PICTURES_USED)][:PICTURES_USED]
    files = [(folder / view.name).with_suffix(".webp") for view in chosen]
    for view, file in zip(chosen, files, strict=True):
        if not file.exists():
            with Image.open(view) as picture:
                picture.resize(PICTURE_SIZE).save(file, quality=80)
    return _written(folder / "pictures.txt", [str(each) for each in files])


def _written(file: Path, lines: Sequence[str]) -> Path:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file

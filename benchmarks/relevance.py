"""What it costs a search to say how likely its hits are what was asked for: p50 with and without, one after another.

    python -m benchmarks.relevance --api-url http://127.0.0.1:8000

Against a running service with the demo catalogue. Each query is asked in both ways, by turns the one or the other
first, after both were asked once: so that neither has the colder caches.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx

QUERIES = Path(__file__).resolve().parent.parent / "evaluation" / "query_files" / "no_match.jsonl"
MODES = ("text_to_text", "text_to_image", "hybrid")
WAYS: tuple[dict[str, Any], ...] = ({}, {"min_score": 0.15, "keep_below": True})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api-url", default="http://127.0.0.1:8000")
    arguments = parser.parse_args()
    texts = [json.loads(line)["text"] for line in QUERIES.read_text(encoding="utf-8").splitlines()]
    with httpx.Client(base_url=arguments.api_url, timeout=60, trust_env=False) as client:
        for mode in MODES:
            without, with_it = _medians(client, mode, texts)
            print(f"{mode}: {without:.1f} ms without, {with_it:.1f} ms with, {with_it - without:+.1f} ms")


def _medians(client: httpx.Client, mode: str, texts: list[str]) -> tuple[float, float]:
    took: tuple[list[float], list[float]] = ([], [])
    for number, text in enumerate(texts):
        order = (0, 1) if number % 2 else (1, 0)
        for way in (*order, *order):
            started = time.perf_counter()
            client.post("/search", json={"mode": mode, "text": text, **WAYS[way]}).raise_for_status()
            took[way].append((time.perf_counter() - started) * 1000)
    without, with_it = (statistics.median(of[1::2]) for of in took)
    return without, with_it


if __name__ == "__main__":
    main()

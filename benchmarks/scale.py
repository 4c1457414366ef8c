"""What a search in Milvus takes, how right it is, and the room that it needs, by the number of rows and filters.

    python -m benchmarks.scale --rows 1000 10000 100000

By the service's own way to Milvus (`vector_db.py`: Milvus Lite in a process of its own, its index and search
parameters), without HTTP, models and database. Each size twice: right after the last row was inserted, and settled,
that is after Milvus was closed and opened again. The rows are the demo catalogue's vectors and others around them,
queries the CLIP vectors of its titles, which look for pictures (A4). One client: a call for each query. Forty clients:
a call with forty queries, as the service asks for searches that wait together. Right is what numpy finds by comparing
with every row.
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks import results
from benchmarks.services import settings_of
from tuwen.encoders.base import Embeddings, Vector
from vector_db import VectorDB, VectorField, filter_expression

if TYPE_CHECKING:
    from benchmarks.synthetic import Vectors

COLLECTION = "products_benchmark"
FIELD: VectorField = "image_clip_vector"
TOP_K = 10
TOGETHER = 40
QUERIES = 80
EVERYTHING = "all"
SHOP = "the shop of "  # and a category
SHOPS = ("one in a hundred", "every other")


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options.add_argument("--calls", type=int, default=100, help="with one query, of each filter")
    chosen = options.parse_args()
    if chosen.quick:
        chosen.rows, chosen.calls = [500], 3
    from benchmarks.synthetic import demo_vectors  # noqa: PLC0415  # loads models

    report = results.Report("scale", quick=chosen.quick)
    base = demo_vectors(settings_of(Path()), 40 if chosen.quick else None)
    for rows in chosen.rows:
        with tempfile.TemporaryDirectory() as name:
            measure(report, Path(name), base, rows, chosen.calls)
    report.write(chosen.json)


def measure(report: results.Report, folder: Path, base: "Vectors", rows: int, calls: int) -> None:
    settings = settings_of(folder)
    queries = list(base.text_clip[:: max(1, len(base.titles) // QUERIES)][:QUERIES])
    settings.data_dir.mkdir(parents=True)
    with closing(VectorDB(settings)) as vector_db:
        pictures, categories, per_s = insert(vector_db, base, rows)
        right = {each: exact(pictures, categories, queries, each) for each in dict.fromkeys([EVERYTHING, *categories])}
        right.pop("any other", None)
        right |= {SHOP + each: right[each] for each in SHOPS if each in right}
        del pictures
        facts: results.Row = {"rows": rows, "inserted_per_s": round(per_s)}
        report_searches(report, vector_db, queries, right, calls, facts | {"when": "just inserted"}, folder)
    with closing(VectorDB(settings)) as vector_db:
        started = time.monotonic()
        vector_db.search(COLLECTION, FIELD, queries[:1], limit=TOP_K)
        facts |= {"when": "settled", "opened_s": round(time.monotonic() - started, 1)}
        report_searches(report, vector_db, queries, right, calls, facts, folder)


def insert(vector_db: VectorDB, base: "Vectors", rows: int) -> tuple[Embeddings, list[str], float]:
    """The vectors that are searched and each row's category, by product id from 0; rows a second."""
    from benchmarks.synthetic import batches_around, vector_rows  # noqa: PLC0415

    vector_db.create_collection(COLLECTION, clip_dim=base.image_clip.shape[1], text_dim=base.text_bge.shape[1])
    pictures: list[Embeddings] = []
    categories: list[str] = []
    took_s = 0.0
    for vectors in batches_around(base, rows):
        rows_of = vector_rows(vectors, len(categories))
        inserted = [replace(row, shop_id=shop_of(str(row.category))) for row in rows_of]
        started = time.monotonic()
        vector_db.insert(COLLECTION, inserted)
        took_s += time.monotonic() - started
        pictures.append(vectors.image_clip)
        categories += [str(row.category) for row in inserted]
    return np.concatenate(pictures), categories, rows / took_s


def exact(pictures: Embeddings, categories: Sequence[str], queries: Sequence[Vector], wanted: str) -> list[set[int]]:
    """For each query the ids of the nearest."""
    ids = np.array([number for number, each in enumerate(categories) if wanted in (EVERYTHING, each)])
    scores = np.stack(queries) @ pictures[ids].T
    return [set(ids[np.argsort(-row)[:TOP_K]].tolist()) for row in scores]


def report_searches(
    report: results.Report,
    vector_db: VectorDB,
    queries: Sequence[Vector],
    right: dict[str, list[set[int]]],
    calls: int,
    facts: results.Row,
    folder: Path,
) -> None:
    for wanted, nearest in right.items():
        expression = _expression(wanted)

        def found(vectors: Sequence[Vector], expression: str = expression) -> tuple[float, list[set[int]]]:
            began = time.perf_counter()
            hits = vector_db.search(COLLECTION, FIELD, vectors, limit=TOP_K, filter_expression=expression)
            took_ms = (time.perf_counter() - began) * 1000
            return took_ms, [{hit.row.product_id for hit in of_one} for of_one in hits]

        found(queries[:1])  # the first of a filter's kind costs more
        alone = [found([queries[number % len(queries)]]) for number in range(calls)]
        several = [
            found([queries[(start + number) % len(queries)] for number in range(TOGETHER)])
            for start in range(0, max(3, calls // 10) * TOGETHER, TOGETHER)
        ]
        pairs = ((each[0], nearest[number % len(queries)]) for number, (_, each) in enumerate(alone))
        report.add(
            **facts,
            filter=wanted,
            one_p50_ms=round(results.median([took for took, _ in alone]), 2),
            one_p95_ms=round(results.percentile([took for took, _ in alone], 0.95), 2),
            forty_p50_ms=round(results.median([took for took, _ in several]), 2),
            recall_at_10=round(float(np.mean([len(hits & should) / max(1, len(should)) for hits, should in pairs])), 4),
            memory_mib=round(sum(child.memory_info().rss for child in psutil.Process().children()) / results.MIB),
            disk_mib=round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / results.MIB),
        )


def shop_of(category: str) -> str:
    """Each category is a shop's, too: a search of the shop has to find what one within the category does."""
    return category.replace(" ", "-")


def _expression(wanted: str) -> str:
    if wanted == EVERYTHING:
        return ""
    if wanted.startswith(SHOP):
        return filter_expression(shop_id=shop_of(wanted.removeprefix(SHOP)))
    return filter_expression(categories=[wanted])


if __name__ == "__main__":
    main()

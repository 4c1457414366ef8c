"""What searches take with so many clients at once: each mode and mixes of them, from outside (by `wrk`).

    python -m benchmarks.search_load --clients 1 40 --products 820 10000
    python -m benchmarks.search_load --url http://127.0.0.1:8000        # a service that runs

Without `--url` a service of its own with so many products: the demo catalogue's vectors and others around them,
without pictures. Queries are the demo catalogue's titles and pictures: with a number behind each, so that no vector is
known before (`--draw new`), as they are (`known`), or 10,000 titles of which the k-th comes with a share of 1/k
(`zipf`). Of several `--runs` the median by mean latency. `--models real` takes the sizes of Chinese-CLIP ViT-B/16 and
BGE-small, with random weights.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from benchmarks import results
from benchmarks.load import MIXES, Draw, middle, query_cache, run
from benchmarks.models import MODELS, model_settings
from benchmarks.services import require_wrk

# A mix of titles that come again says nothing of pictures.
TEXT_MODES = ("text_to_text", "text_to_image", "hybrid", "both_text_modes")


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--url", help="of a service that runs, in place of its own")
    options.add_argument("--products", type=int, nargs="+", default=[820, 10_000])
    options.add_argument("--models", choices=MODELS, default="demo")
    options.add_argument("--clients", type=int, nargs="+", default=[1, 10, 40, 160])
    options.add_argument("--modes", nargs="+", choices=list(MIXES), default=list(MIXES))
    options.add_argument("--draw", nargs="+", choices=get_args(Draw), default=["new", "zipf"])
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("--runs", type=int, default=1)
    chosen = options.parse_args()
    require_wrk()
    if not chosen.url:
        os.environ.pop("API_KEY", None)  # a service of its own knows none
    if chosen.quick:
        chosen.products, chosen.clients, chosen.seconds = [20], [2], 1
        chosen.modes, chosen.draw = chosen.modes[:2], chosen.draw[:1]
    report = results.Report("search_load", quick=chosen.quick)
    for products in [None] if chosen.url else chosen.products:
        with tempfile.TemporaryDirectory() as name, _service(chosen.url, products, chosen.models, Path(name)) as url:
            for draw in chosen.draw:
                modes = [mode for mode in chosen.modes if draw != "zipf" or mode in TEXT_MODES]
                for mode, clients in ((mode, clients) for mode in modes for clients in chosen.clients):
                    before = query_cache(url)
                    runs = [run(url, mode, clients, chosen.seconds, Path(name), draw) for _ in range(chosen.runs)]
                    known, made = (now - then for now, then in zip(query_cache(url), before, strict=True))
                    hits = round(known / max(1, known + made), 3)
                    facts = {"products": products, "models": chosen.models, "draw": draw, "cache_hits": hits}
                    report.add(**facts, **asdict(middle(runs)))
    report.write(chosen.json)
    sys.exit(any(row["errors"] for row in report.rows))


@contextmanager
def _service(url: str | None, products: int | None, models: str, folder: Path) -> Iterator[str]:
    if url is not None or products is None:
        yield (url or "").rstrip("/")
        return
    from benchmarks.synthetic import filled_service  # noqa: PLC0415  # loads models, which a --url needs none of

    with filled_service(folder, products, **model_settings(models)) as service:
        yield service.url


if __name__ == "__main__":
    main()

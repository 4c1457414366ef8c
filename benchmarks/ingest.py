"""Products a second from a full queue, against what the encoders alone give; and what that does to searches.

    python -m benchmarks.ingest --models demo
    python -m benchmarks.ingest --catalogue 100000 --clients 40 --seconds 30

The demo catalogue's products over the API, again and again with pictures that nobody has seen (a number behind each
file's end). Encoders alone: the same pictures, decoded before, and titles, in this process, after the service has gone.
`--catalogue`: so many products more are there before (`synthetic.py`). `--clients`: so many search at once.
"""

import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path

import httpx
from PIL import Image

from benchmarks import load, results, services
from benchmarks.models import MODELS, model_settings
from clients.catalogue_import import CatalogueItem, wait_until_indexed

UPLOADS_AT_ONCE = 4
SINGLE = 15  # whose way to being found is timed
BATCHES = (4, 16, 32)


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--models", nargs="+", choices=MODELS, default=["demo"])
    options.add_argument("--products", type=int, default=2000)
    options.add_argument("--catalogue", type=int, default=0)
    options.add_argument("--clients", type=int, default=1)
    options.add_argument(
        "--seconds", type=int, default=10, help="of searches, while nothing is ingested and while it is"
    )
    chosen = options.parse_args()
    services.require_wrk()
    if chosen.quick:
        chosen.products, chosen.seconds = 12, 1
    report = results.Report("ingest", quick=chosen.quick)
    for models in chosen.models:
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder, settings = Path(name), model_settings(models)
            service = stack.enter_context(_service(folder, chosen.catalogue, settings))
            client = stack.enter_context(httpx.Client(base_url=service.url, timeout=60, trust_env=False))
            services.load(service.url, services.demo_items(10 if chosen.quick else 200))
            searchable_ms = [time_to_searchable(client, number) for number in range(3 if chosen.quick else SINGLE)]
            per_s = ingest(client, products(chosen.products, "alone"))
            wanted = products(chosen.products, "searched")
            idle = load.run(service.url, "both_text_modes", chosen.clients, chosen.seconds, folder)
            busy = searched_meanwhile(service, client, wanted, chosen.clients, chosen.seconds, folder)
            after = load.run(service.url, "both_text_modes", chosen.clients, chosen.seconds, folder)
            stack.close()
            encoded_per_s, batch = encoders_alone(folder, settings, 12 if chosen.quick else 128)
        report.add(
            models=models,
            products=chosen.products,
            catalogue=chosen.catalogue,
            products_per_s=round(per_s, 1),
            encoders_per_s=round(encoded_per_s, 1),
            encoders_batch=batch,
            share_of_encoders=round(per_s / encoded_per_s, 3),
            searchable_p50_ms=round(results.median(searchable_ms), 1),
            searchable_p95_ms=round(results.percentile(searchable_ms, 0.95), 1),
            idle=asdict(idle),
            meanwhile=asdict(busy),
            right_after=asdict(after),
            p95_ratio=round(busy.p95_ms / idle.p95_ms, 2),
        )
    report.write(chosen.json)


def _service(folder: Path, catalogue: int, settings: dict[str, object]) -> AbstractContextManager[services.Service]:
    if not catalogue:
        return services.running_service(folder, **settings)
    from benchmarks.synthetic import filled_service  # noqa: PLC0415  # loads models

    return filled_service(folder, catalogue, **settings)


def products(count: int, kind: str) -> list[tuple[CatalogueItem, bytes]]:
    """With pictures that are new to the service and the same to the eye."""
    items = services.demo_items()
    chosen = [items[number % len(items)] for number in range(count)]
    return [(item, item.image.read_bytes() + f"{kind} {number}".encode()) for number, item in enumerate(chosen)]


def create(client: httpx.Client, product: tuple[CatalogueItem, bytes]) -> int:
    item, picture = product
    response = client.post("/product", data={"title": item.title}, files={"image": ("picture.webp", picture)})
    response.raise_for_status()
    return int(response.json()["product_id"])


def ingest(client: httpx.Client, wanted: Sequence[tuple[CatalogueItem, bytes]]) -> float:
    """Products a second, from the first request to the moment that the last one is found."""
    started = time.monotonic()
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        list(pool.map(lambda each: create(client, each), wanted))
    wait_until_indexed(client, lambda _: None)
    return len(wanted) / (time.monotonic() - started)


def time_to_searchable(client: httpx.Client, number: int) -> float:
    """Milliseconds from the request that creates it, with nothing else to do."""
    title = f"一件新商品 {number}"
    item = services.demo_items()[number]
    started = time.perf_counter()
    product_id = create(client, (CatalogueItem("", title, item.image, None, None, {}), item.image.read_bytes() + b" "))
    query = {"mode": "text_to_text", "text": title, "top_k": 5}
    while True:
        hits = client.post("/search", json=query).raise_for_status().json()["hits"]
        if any(hit["product"]["product_id"] == product_id for hit in hits):
            return (time.perf_counter() - started) * 1000


def searched_meanwhile(
    service: services.Service,
    client: httpx.Client,
    wanted: Sequence[tuple[CatalogueItem, bytes]],
    clients: int,
    seconds: int,
    folder: Path,
) -> load.Measured:
    """Searches while the service has more to ingest than it gets done."""
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        enough, told_to_stop = threading.Event(), threading.Event()

        def feed(each: tuple[CatalogueItem, bytes]) -> None:
            if not told_to_stop.is_set():
                create(client, each)
                enough.set()

        uploads = [pool.submit(feed, each) for each in wanted]
        enough.wait()
        measured = load.run(service.url, "both_text_modes", clients, seconds, folder)
        told_to_stop.set()
        for upload in uploads:
            upload.result()
    return measured


def encoders_alone(folder: Path, settings: dict[str, object], count: int) -> tuple[float, int]:
    """Products a second of the best batch, and that batch."""
    from nlp_models import load_encoders  # noqa: PLC0415  # takes seconds, and is not what the service is started with

    encoders = load_encoders(services.settings_of(folder, **settings))
    items = services.demo_items(count)
    pictures = [Image.open(item.image).convert("RGB") for item in items]

    def rate(batch: int) -> float:
        started = time.perf_counter()
        for start in range(0, len(items), batch):
            titles = [item.title for item in items[start : start + batch]]
            encoders.clip.encode_images(pictures[start : start + batch])
            encoders.clip.encode_texts(titles)
            encoders.text.encode_documents(titles)
        return len(items) / (time.perf_counter() - started)

    rates = {batch: results.median([rate(batch) for _ in range(3)]) for batch in BATCHES}
    best = max(rates, key=rates.__getitem__)
    return rates[best], best


if __name__ == "__main__":
    main()

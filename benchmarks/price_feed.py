"""A nightly feed: a file with sku and price alone changes the prices of products that are there.

How fast, whether anything is encoded, how much memory it takes, and how soon after its row a search filters by the new
price and answers with it. By `python -m benchmarks.imports --price-feed`. The products and their vectors are synthetic.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import httpx
import openpyxl

from benchmarks import results, services
from benchmarks.import_watch import Job, Watch, require, rows_per_s

PROBES, SEEN_WITHIN_S, PAUSE_S = 20, 5.0, 0.02


class Feed(NamedTuple):
    rows: int
    products: int
    """The rows go round them."""
    padding: int
    """Bytes of blanks in each row."""
    is_workbook: bool


def measure_feed(folder: Path, feed: Feed) -> results.Row:
    from benchmarks.synthetic import demo_vectors, fill  # noqa: PLC0415  # loads models

    logging.getLogger("httpx").setLevel(logging.WARNING)  # which says each request, once stores were opened here
    with services.running_service(folder):
        pass  # makes the index
    own = services.settings_of(folder, milvus_timeout_s=120)  # on a busy machine, too
    fill(own, demo_vectors(own, min(feed.products, 820)), feed.products)
    file = write_feed(folder / ("feed.xlsx" if feed.is_workbook else "feed.jsonl"), feed)
    facts: results.Row = {**feed._asdict(), "file_mib": round(file.stat().st_size / results.MIB, 1)}
    each_once = feed.rows == feed.products
    with Watch(folder) as watch:
        encoded = watch.encoded()
        probes = Probes(watch.client, feed) if each_once else None
        job = watch.import_file(file, on_poll=probes.look if probes else lambda _: None)
        require(job, updated=feed.rows)
        facts |= {"rows_per_s": rows_per_s(job)}
        if probes:
            facts |= {"seen_within_s": probes.longest_s()}
            again = watch.import_file(file)
            require(again, unchanged=feed.rows)
            facts |= {"again_rows_per_s": rows_per_s(again)}
        pending = watch.client.get("/product/list", params={"index_status": "pending", "page_size": 1}).json()["total"]
        facts |= {"encoded": round(watch.encoded() - encoded), "pending": pending, "peak_mib": watch.peak_mib}
    return facts


def write_feed(path: Path, feed: Feed) -> Path:
    if feed.is_workbook:
        workbook = openpyxl.Workbook(write_only=True)
        sheet = workbook.create_sheet()
        sheet.append(["sku", "price"])
        for row in rows_of(feed):
            sheet.append([row["sku"], float(row["price"])])
        workbook.save(path)
        return path
    with path.open("w", encoding="utf-8") as file:
        for row in rows_of(feed):
            file.write(f"{json.dumps(row)}{' ' * feed.padding}\n")
    return path


def rows_of(feed: Feed) -> Iterator[dict[str, str]]:
    for number in range(feed.rows):
        yield {"sku": f"P{number % feed.products + 1}", "price": str(price_of(number))}


def price_of(number: int) -> Decimal:
    """No other row's."""
    return Decimal(number + 1) / 100


class Probes:
    """Products that are searched for at their new prices from the moment that their rows are done."""

    def __init__(self, client: httpx.Client, feed: Feed) -> None:
        self._client = client
        numbers = range(0, feed.rows, max(1, feed.rows // PROBES))
        self._waiting = [(number, self._title_of(number)) for number in numbers]
        self._looked_at = time.monotonic()
        self._took_s: list[float] = []

    def look(self, job: Job) -> None:
        """The row may have been done since the last look, which is what counts."""
        since, self._looked_at = self._looked_at, time.monotonic()
        while self._waiting and job["rows"] > self._waiting[0][0]:
            number, title = self._waiting.pop(0)
            while not self._sees(number, title):
                if time.monotonic() - since > 2 * SEEN_WITHIN_S:
                    sys.exit(f"Row {number} is done, and no search sees its price.")
                time.sleep(PAUSE_S)
            self._took_s.append(time.monotonic() - since)

    def longest_s(self) -> float:
        if self._waiting:
            sys.exit(f"{len(self._waiting)} products were not searched for.")
        return round(max(self._took_s), 2)

    def _title_of(self, number: int) -> str:
        return str(self._client.get(f"/product/by-sku/P{number + 1}").raise_for_status().json()["title"])

    def _sees(self, number: int, title: str) -> bool:
        """The filter finds it, and the answer says it."""
        price = float(price_of(number))
        filters = {"price_min": price, "price_max": price}
        query = {"mode": "text_to_text", "text": title, "filters": filters, "top_k": 5}
        hits = self._client.post("/search", json=query).raise_for_status().json()["hits"]
        found = [(hit["product"]["sku"], Decimal(str(hit["product"]["price"]))) for hit in hits]
        return found == [(f"P{number + 1}", price_of(number))]

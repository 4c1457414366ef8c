"""A large file on the embedded default: memory, kills, what is reported, and what the same file costs again.

    python -m benchmarks.imports --rows 100000 --index
    python -m benchmarks.imports --price-feed --rows 100000
    python -m benchmarks.imports --price-feed --rows 100000 --products 1000 --padding 50000

The first: rows with a small picture each, one in a hundred of them broken, as a ZIP archive. The service is killed with
-9 three times on the way. Stops with what is wrong where a row is lost, there twice, or not reported. The second: the
prices of 100,000 synthetic products (`price_feed.py`). The third: a file of 5 GB.
"""

import csv
import io
import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from PIL import Image

from benchmarks import results
from benchmarks.import_watch import Job, Watch, require, rows_per_s
from benchmarks.price_feed import Feed, measure_feed
from clients.catalogue_import import wait_until_indexed

KILLS, BROKEN_EACH, SIDE = 3, 100, 64


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--index", action="store_true", help="wait until all are indexed, before the second import")
    options.add_argument("--price-feed", action="store_true", help="a file of prices, for products that are there")
    options.add_argument("--products", type=int, help="that the feed's rows go round; as many as rows, by default")
    options.add_argument("--padding", type=int, default=0, help="bytes of blanks in each row of the feed")
    options.add_argument("--workbook", action="store_true", help="the feed as XLSX")
    chosen = options.parse_args()
    rows = 1000 if chosen.quick else chosen.rows
    report = results.Report("price_feed" if chosen.price_feed else "imports", quick=chosen.quick)
    # A service that did not stop in time was killed, and its children may write a moment longer.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        if chosen.price_feed:
            feed = Feed(rows, chosen.products or rows, chosen.padding, chosen.workbook)
            report.add(**measure_feed(Path(name), feed))
        else:
            measure(report, Path(name), rows, index=chosen.index)
    report.write(chosen.json)


def measure(report: results.Report, folder: Path, rows: int, *, index: bool) -> None:
    file = write_file(folder / "shop.zip", rows)
    broken, rates = len(range(0, rows, BROKEN_EACH)), Rates(rows)
    facts: results.Row = {"rows": rows, "broken": broken}
    with Watch(folder) as watch:
        job = watch.import_file(file, KILLS, rates.look)
        require(job, created=rows - broken, failed=broken)
        require_reported(watch, job)
        size = round(file.stat().st_size / results.MIB, 1)
        report.add(
            **facts,
            what="first",
            kills=KILLS,
            file_mib=size,
            rows_per_s=rows_per_s(job),
            **rates.facts(),
            peak_mib=watch.peak_mib,
        )
        if index:
            wait_until_indexed(watch.client, lambda _: None)
        before = watch.encoded()
        job = watch.import_file(file)
        require(job, unchanged=rows - broken, failed=broken)
        require_reported(watch, job)
        encoded = round(watch.encoded() - before) if index else None
        report.add(**facts, what="again", rows_per_s=rows_per_s(job), encoded=encoded, peak_mib=watch.peak_mib)


def write_file(path: Path, rows: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("rows.jsonl", "w") as member:
            for number in range(rows):
                price = "cheap" if number % BROKEN_EACH == 0 else number / 100
                row = {"sku": f"I{number}", "title": f"商品 {number}", "price": price, "image": f"{number}.png"}
                member.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        for number in range(rows):
            image = Image.new("RGB", (SIDE, SIDE), (number % 256, number // 256 % 256, number // 65536))
            picture = io.BytesIO()
            image.save(picture, "PNG", compress_level=1)
            archive.writestr(f"{number}.png", picture.getvalue())
    return path


class Rates:
    """Rows a second over the first and the last fifth of a file, in which nothing is killed: whether it grows slow."""

    def __init__(self, rows: int) -> None:
        self._marks = [rows * share // 100 for share in (1, 20, 80, 99)]
        self._passed: list[tuple[float, int]] = []

    def look(self, job: Job) -> None:
        while len(self._passed) < len(self._marks) and job["rows"] >= self._marks[len(self._passed)]:
            self._passed.append((time.monotonic(), job["rows"]))

    def facts(self) -> results.Row:
        if len(self._passed) < len(self._marks):
            return {}
        first, last = (self._between(*self._passed[index : index + 2]) for index in (0, 2))
        return {"first_fifth_rows_per_s": first, "last_fifth_rows_per_s": last}

    @staticmethod
    def _between(begin: tuple[float, int], end: tuple[float, int]) -> float:
        return round((end[1] - begin[1]) / max(end[0] - begin[0], 0.001), 1)


def require_reported(watch: Watch, job: Job) -> None:
    """Each broken row once, with its reason; and a product for each of the others."""
    report = watch.client.get(job["errors_url"]).raise_for_status().content.decode("utf-8-sig")
    errors = [row for row in csv.DictReader(io.StringIO(report)) if row["severity"] == "error"]
    lines = [int(row["line"]) for row in errors]
    if lines != list(range(1, job["rows"] + 1, BROKEN_EACH)) or not all(row["reason"] for row in errors):
        sys.exit(f"{len(lines)} errors are reported, {job['failed']} were made.")
    total = watch.client.get("/product/list", params={"page_size": 1}).json()["total"]
    if total != job["rows"] - job["failed"]:
        sys.exit(f"There are {total} products.")


if __name__ == "__main__":
    main()

"""A large file on the embedded default: memory, kills, what is reported, and what the same file costs again.

    python -m benchmarks.imports --rows 100000

Rows with a small picture each, one in a hundred of them broken, as a ZIP archive. The service is killed with -9 three
times on the way. Stops with what is wrong where a row is lost, there twice, or not reported.
"""

import csv
import io
import json
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image

from benchmarks import results, services
from clients.catalogue_import import wait_until_indexed
from clients.file_import import begin_import

KILLS, BROKEN_EACH, SIDE = 3, 100, 64
POLL_S = 0.2
VECTORS = "tuwen_index_vectors_total"


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--index", action="store_true", help="wait until all are indexed, before the second import")
    chosen = options.parse_args()
    rows = 1000 if chosen.quick else chosen.rows
    report = results.Report("imports", quick=chosen.quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = write_file(folder / "shop.zip", rows)
        broken = len(range(0, rows, BROKEN_EACH))
        with Watch(folder) as watch:
            first = watch.import_file(file, kills=KILLS)
            watch.require(first, created=rows - broken, failed=broken)
            if chosen.index:
                wait_until_indexed(watch.client, lambda _: None)
            vectors = watch.vectors()
            again = watch.import_file(file)
            watch.require(again, unchanged=rows - broken, failed=broken)
            encoded = watch.vectors() - vectors if chosen.index else None
        report.add(
            rows=rows,
            broken=broken,
            kills=KILLS,
            file_mib=round(file.stat().st_size / results.MIB, 1),
            first_rows_per_s=first["rows_per_s"],
            again_rows_per_s=again["rows_per_s"],
            encoded_again=encoded,
            peak_mib=round(watch.peak_bytes / results.MIB, 1),
        )
    report.write(chosen.json)


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


class Watch:
    """A service, the next one after a kill, and the most memory that any has taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._over = threading.Event()
        self.peak_bytes = 0

    def __enter__(self) -> "Watch":
        self._start()
        threading.Thread(target=self._measure, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._stack.close()

    def _start(self) -> None:
        self._service = self._stack.enter_context(services.running_service(self._folder))
        self.client = self._stack.enter_context(httpx.Client(base_url=self._service.url, timeout=300, trust_env=False))

    def _measure(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                self.peak_bytes = max(self.peak_bytes, int(self._service.memory()["in_all_mib"] * results.MIB))
            except (psutil.Error, OSError):  # killed a moment ago
                continue

    def import_file(self, file: Path, kills: int = 0) -> dict[str, Any]:
        job: dict[str, Any] = begin_import(self.client, file, "upsert", lambda _: None)
        killed_at = [(number + 1) / (kills + 1) for number in range(kills)]
        while job["status"] not in ("done", "failed", "cancelled"):
            if killed_at and job["progress"] >= killed_at[0]:
                killed_at.pop(0)
                for process in [*psutil.Process(self._service.process.pid).children(recursive=True)]:
                    process.kill()
                self._service.process.kill()
                self._service.process.wait()
                self._start()
            time.sleep(POLL_S)
            job = self.client.get(job["status_url"]).raise_for_status().json()
        if killed_at:
            sys.exit(f"Killed {kills - len(killed_at)} times of {kills}: too few rows.")
        return job

    def require(self, job: dict[str, Any], **counts: int) -> None:
        wanted = {"created": 0, "updated": 0, "unchanged": 0, "failed": 0} | counts
        found = {name: job[name] for name in wanted}
        if job["status"] != "done" or found != wanted:
            sys.exit(f"Wanted {wanted}, got {found}: {job}")
        report = self.client.get(job["errors_url"]).raise_for_status().content.decode("utf-8-sig")
        errors = [row for row in csv.DictReader(io.StringIO(report)) if row["severity"] == "error"]
        lines = [int(row["line"]) for row in errors]
        if lines != list(range(1, job["rows"] + 1, BROKEN_EACH)) or not all(row["reason"] for row in errors):
            sys.exit(f"{len(lines)} errors are reported, {counts['failed']} were made.")
        total = self.client.get("/product/list", params={"page_size": 1}).json()["total"]
        if total != job["rows"] - counts["failed"]:
            sys.exit(f"There are {total} products.")

    def vectors(self) -> float:
        """That were encoded, of this process."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(VECTORS) and "encoded" in line)


if __name__ == "__main__":
    main()

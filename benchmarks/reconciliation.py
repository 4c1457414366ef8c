"""What reconciliation costs at a size: fills empty stores with synthetic products, plants drift of every kind, and sees
whether a pass finds and mends exactly that.

    DATA_DIR=/tmp/bench MILVUS_URI=http://127.0.0.1:19530 python -m benchmarks.reconciliation --products 200000

DATABASE_URL chooses the database, as everywhere. The vectors are small (`--dim`): what a pass reads of a row are its
three keys, whatever the vectors weigh. Without MILVUS_URI, Milvus Lite runs in a process of its own, whose memory
does not count.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from orm_models import ProductRow, ProductVectorRow, VectorIndexRow, utc_now
from tuwen.assembly import Stores, new_reconciler, open_stores
from tuwen.errors import AppError
from tuwen.indexing.reconciliation import Drift, Reconciler
from tuwen.pictures.store import OWNER_DIGITS
from tuwen.settings import Settings, load_settings
from tuwen.vectors.registry import require_live_index
from vector_db import RANDOM_BITS, RowKey, VectorRow

BATCH = 2000
ONE_IN = 1000  # drifted, of each kind
STALE, UNBOUND, LOST, ORPHAN, UNUSED, PICTURELESS = range(6)  # a product's number, modulo ONE_IN, says which
COLLECTION = "products_benchmark"
AGO = timedelta(hours=2)  # longer than every grace


class Timed(NamedTuple):
    findings: dict[str, Drift]
    seconds: float
    peak_mib: float
    """How far the process grew beyond what it had before any pass."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    options.add_argument("--products", type=int, default=200_000)
    options.add_argument("--dim", type=int, default=8)
    chosen = options.parse_args()
    settings = load_settings()
    started = time.monotonic()
    # In a process of its own: what it needs is no part of what a pass needs.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(fill, settings, chosen.products, chosen.dim).result()
    print(f"{chosen.products} products, filled in {time.monotonic() - started:.0f} s")
    with open_stores(settings) as stores:
        reconciler = new_reconciler(stores, partial(require_live_index, stores.database, stores.vector_db))
        sys.exit(not measure(reconciler, chosen.products))


def measure(reconciler: Reconciler, products: int) -> bool:
    """True where every pass found what it should."""
    planted = products // ONE_IN
    right = True
    for name, mends, expected in (("look", False, planted), ("repair", True, planted), ("look again", False, 0)):
        timed = run(reconciler, mends=mends)
        share = 100_000 / products
        each = f"{timed.seconds * share:.1f} s and {timed.peak_mib * share:.0f} MiB for 100,000"
        print(f"{name}: {timed.seconds:.1f} s, grew by {timed.peak_mib:.0f} MiB; {each}", flush=True)
        for kind, drift in timed.findings.items():
            wrong = drift.found != expected or drift.mended != (expected if mends else 0)
            right &= not wrong
            remark = f"   WRONG, expected {expected}" if wrong else ""
            print(f"  {kind:28} found {drift.found:6}, mended {drift.mended:6}, {drift.took_s:7.1f} s{remark}")
    return right


def run(reconciler: Reconciler, *, mends: bool) -> Timed:
    before, started = peak_mib(), time.monotonic()
    findings = reconciler.reconcile() if mends else reconciler.look()
    if findings is None:
        sys.exit("Another process reconciles here.")
    return Timed(findings, time.monotonic() - started, peak_mib() - before)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fill(settings: Settings, products: int, dim: int) -> None:
    with open_stores(settings) as stores:
        with stores.database.write() as session:
            if session.scalar(sa.select(sa.func.count()).select_from(VectorIndexRow)):
                sys.exit("This database is in use: the benchmark fills empty ones alone.")
            index = VectorIndexRow(collection=COLLECTION, model_fingerprint="benchmark", status="active")
            session.add(index)
        if stores.vector_db.has_collection(COLLECTION):
            stores.vector_db.drop_collection(COLLECTION)
        stores.vector_db.create_collection(COLLECTION, clip_dim=dim, text_dim=dim)
        for first in range(1, products + 1, BATCH):
            fill_batch(stores, index.vector_index_id, range(first, min(first + BATCH, products + 1)), dim)


def fill_batch(stores: Stores, index_id: int, numbers: range, dim: int) -> None:
    shown = [n for n in numbers if n % ONE_IN not in (STALE, UNBOUND)]
    rows = [vector_row(n, dim) for n in shown + [n for n in numbers if n % ONE_IN == ORPHAN]]
    ids = stores.vector_db.insert(COLLECTION, rows)
    keys = [RowKey(milvus_id, row.product_id, row.row_token) for milvus_id, row in zip(ids, rows, strict=True)]
    lost = [key for key in keys if key.product_id % ONE_IN == LOST]
    stores.vector_db.delete(COLLECTION, [key.milvus_id for key in lost], [key.product_id for key in lost])
    bound = {"vector_index_id": index_id, "version": 1}
    owner = stores.database.installation_id()[:OWNER_DIGITS]
    write_pictures(Path(stores.settings.image_store_address), owner, numbers)
    with stores.database.write() as session:
        session.execute(sa.insert(ProductRow), [product_row(owner, n) for n in numbers])
        session.execute(sa.insert(ProductVectorRow), [key._asdict() | bound for key in keys[: len(shown)]])


def product_row(owner: str, number: int) -> dict[str, Any]:
    path, digest = picture_of(owner, f"product {number}")
    return {
        "product_id": number,
        "title": f"商品 {number}",
        "attributes": {},
        "image_path": path,
        "image_sha256": digest,
        "image_width": 1,
        "image_height": 1,
        "index_status": "pending" if number % ONE_IN == STALE else "indexed",
        "created_at": utc_now() - AGO,
        "updated_at": utc_now() - AGO,
    }


def write_pictures(folder: Path, owner: str, numbers: range) -> None:
    """One for each product but one in so many, and another for as many that nothing names; all of them old."""
    moment = (utc_now() - AGO).timestamp()
    names = [f"product {n}" for n in numbers if n % ONE_IN != PICTURELESS] + [
        f"unused {n}" for n in numbers if n % ONE_IN == UNUSED
    ]
    for name in names:
        file = folder / picture_of(owner, name)[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (moment, moment))


def picture_of(owner: str, name: str) -> tuple[str, str]:
    """Its path, and the hash in it."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{owner}/{digest[:2]}/{digest}.png", digest


def vector_row(number: int, dim: int) -> VectorRow:
    made_at = int((utc_now() - AGO).timestamp())
    vector = np.random.default_rng(number).standard_normal(dim).astype(np.float32)
    return VectorRow(
        product_id=number,
        row_token=(made_at << RANDOM_BITS) | random.getrandbits(RANDOM_BITS),
        image_clip_vector=vector,
        text_clip_vector=vector,
        text_bge_vector=vector,
        image_path="",
        title=f"商品 {number}",
        category=None,
        attributes={},
    )


if __name__ == "__main__":
    try:
        main()
    except AppError as error:
        sys.exit(error.detail)

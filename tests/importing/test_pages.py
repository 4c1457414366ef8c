"""Pages of rows that are hard to settle, worked off in this process: no row is another's, or the import's, end."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from data_models import ImportJob, ImportMode
from orm_models import ImportErrorRow, ProductRow
from tests.conftest import picture
from tests.importing.files import csv_of, zip_of
from tests.importing.kills import import_all
from tuwen.api.imports import _errors, _products
from tuwen.api.state import Threads
from tuwen.database.engine import Database
from tuwen.importing.attempts import JOBS_LOOKED_AT, WARNING, begin_attempt
from tuwen.importing.files import import_folder, new_file
from tuwen.importing.jobs import ImportJobs
from tuwen.settings import Settings

PICTURES = {f"{name}.png": picture(name) for name in ("red", "blue")}


def run_import(settings: Settings, database: Database, rows: list[list[object]], mode: ImportMode) -> ImportJob:
    name, file = new_file(settings)
    with file:
        file.write(zip_of({"a.csv": csv_of(["sku", "title", "price", "image"], *rows), **PICTURES}))
    job = ImportJobs(database).create(name, "a.zip", mode)
    asyncio.run(import_all(settings))
    return ImportJobs(database).read(job.job_id)


def name_job(database: Database, name: str) -> int:
    return ImportJobs(database, most_of_one=1000).create(name, "a.zip", "create").job_id


def counts_of(job: ImportJob) -> tuple[int, int, int, int]:
    assert job.status == "done", job
    return job.created, job.updated, job.unchanged, job.failed


def products_in(database: Database) -> Mapping[str | None, ProductRow]:
    with database.read() as session:
        return {product.sku: product for product in session.scalars(sa.select(ProductRow))}


def test_of_two_products_with_one_sku_each_row_changes_the_one_that_is_typed_so(
    settings: Settings, database: Database
) -> None:
    run_import(settings, database, [["A1", "半角", 1, "red.png"], ["B", "全角", 2, "red.png"]], "create")
    with database.write() as session:  # as migration 0013 leaves such a pair
        typed = {"sku": "Ａ１", "sku_normalised": None}
        session.execute(sa.update(ProductRow).where(ProductRow.sku == "B").values(typed))
    rows: list[list[object]] = [["A1", "半角", 10, ""], ["Ａ１", "全角", 20, ""]]
    for _ in range(2):
        job = run_import(settings, database, rows, "upsert")
        prices = {sku: product.price for sku, product in products_in(database).items()}
        assert prices == {"A1": Decimal(10), "Ａ１": Decimal(20)}
    assert counts_of(job) == (0, 0, 2, 0)


def test_one_sku_in_two_ways_of_typing_is_one_product(settings: Settings, database: Database) -> None:
    assert counts_of(run_import(settings, database, [["TW1", "一", 1, "red.png"]], "create")) == (1, 0, 0, 0)
    rows: list[list[object]] = [["TW1", "一", 1, "blue.png"], ["ＴＷ1", "一", 1, "red.png"]]
    assert counts_of(run_import(settings, database, rows, "upsert")) == (0, 2, 0, 0)
    rows = [["ＮＥＷ", "新", 1, "blue.png"], ["NEW", "新", 2, "red.png"]]
    assert counts_of(run_import(settings, database, rows, "upsert")) == (1, 1, 0, 0)
    products = products_in(database)
    assert set(products) == {"TW1", "ＮＥＷ"}
    assert products["TW1"].image_sha256 == products["ＮＥＷ"].image_sha256


def test_a_row_that_the_database_never_takes_is_an_error_of_its_own(settings: Settings, database: Database) -> None:
    run_import(settings, database, [["OLD", "旧", 1, "red.png"]], "create")
    with database.write() as session:
        refuse = "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        session.execute(sa.text(f"CREATE TRIGGER t BEFORE INSERT ON product WHEN NEW.sku = 'BAD' {refuse}"))
    names = ("N1", "BAD", "N2")
    rows: list[list[object]] = [[name, name, 1, "red.png"] for name in names] + [["P", "贵", "x", ""]]
    job = run_import(settings, database, [["OLD", "旧", 2, "red.png"], *rows], "upsert")
    assert (job.rows, counts_of(job)) == (5, (2, 1, 0, 2))
    with database.read() as session:
        said = [error for error in session.scalars(sa.select(ImportErrorRow)) if not error.reason.startswith(WARNING)]
    errors = [(error.line, error.sku, error.field) for error in said]
    assert errors == [(4, "BAD", "row"), (6, "P", "price")]


def test_jobs_whose_files_are_elsewhere_keep_no_other_waiting(settings: Settings, database: Database) -> None:
    folder = import_folder(settings)
    for number in range(JOBS_LOOKED_AT):
        name_job(database, f"elsewhere-{number}")
    assert begin_attempt(database, folder) is None
    name_job(database, "elsewhere")
    name, file = new_file(settings)
    file.close()
    job_id = name_job(database, name)
    attempt = begin_attempt(database, folder)
    assert attempt is not None
    assert (attempt.job_id, attempt.number, attempt.path) == (job_id, 1, folder / name)
    assert begin_attempt(database, folder) is None


@pytest.mark.parametrize("what", ["errors", "products"])
def test_a_file_is_made_beside_the_event_loop(settings: Settings, database: Database, what: str) -> None:
    services = SimpleNamespace(database=database)
    api: Any = SimpleNamespace(threads=Threads(), imports=ImportJobs(database), services=services)
    stream = _errors(api, name_job(database, "none"), [], "zh") if what == "errors" else _products(api, [], "csv")

    async def read() -> bytes:
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not first.done()
        return await first + b"".join([each async for each in stream])

    assert asyncio.run(read()).decode("utf-8-sig").endswith(("reason,severity\r\n", "group_id\r\n"))

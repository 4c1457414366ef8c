"""Imports on each database, two at once: their locks, their inserts, and what is forgotten in the end."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from orm_models import ImportErrorRow, JobRow, OutboxRow, ProductRow, utc_now
from tests.conftest import picture
from tests.importing.files import csv_of, zip_of
from tests.importing.kills import import_all
from tests.servers import new_mysql_database
from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.importing.attempts import KEPT_FOR, delete_old_jobs
from tuwen.importing.files import make_durable, new_file
from tuwen.importing.jobs import ImportJobs
from tuwen.settings import Settings

ROWS = 250  # three pages


@pytest.fixture(params=["sqlite", "mariadb"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    dsn = new_mysql_database(request.getfixturevalue("mariadb")) if request.param == "mariadb" else ""
    return Settings(_env_file=None, data_dir=tmp_path, durable_writes=False, database_url=dsn)


def begin(settings: Settings, database: Database, first: int, price: str) -> int:
    """So many rows from that one on, the last of which is bad."""
    rows = [[f"S{first + number}", f"商品 {number}", price, "a.png"] for number in range(ROWS)]
    rows.append(["X", "坏", "贵", "a.png"])
    name, file = new_file(settings)
    with file:
        file.write(zip_of({"a.csv": csv_of(["货号", "标题", "价格", "图片"], *rows), "a.png": picture()}))
        make_durable(settings, file)
    return ImportJobs(database).create(name, "a.zip", "upsert").job_id


def test_two_imports_at_once_of_overlapping_files(settings: Settings) -> None:
    database = open_database(settings)
    job_ids = [begin(settings, database, 0, "1"), begin(settings, database, ROWS // 2, "2")]

    async def both() -> None:
        await asyncio.gather(import_all(settings), import_all(settings))

    asyncio.run(both())
    jobs = [ImportJobs(database).read(job_id) for job_id in job_ids]
    assert [(job.status, job.rows, job.failed) for job in jobs] == [("done", ROWS + 1, 1)] * 2
    with database.read() as session:
        products = list(session.scalars(sa.select(ProductRow)))
        created = set(session.scalars(sa.select(OutboxRow.message_key)))
        attempts = list(session.scalars(sa.select(JobRow.attempts)))
    assert len(products) == len({product.sku for product in products}) == ROWS + ROWS // 2
    assert created == {str(product.product_id) for product in products}
    assert sum(job.created for job in jobs) == len(products)
    assert sum(job.updated + job.unchanged for job in jobs) == 2 * ROWS - len(products)
    assert attempts == [1, 1]
    with database.write() as session:
        session.execute(sa.update(JobRow).values(finished_at=utc_now() - 2 * KEPT_FOR))
    delete_old_jobs(database)
    with database.read() as session:
        assert [session.scalar(sa.select(sa.func.count()).select_from(each)) for each in (JobRow, ImportErrorRow)] == [
            0,
            0,
        ]
    database.close()

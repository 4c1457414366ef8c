"""kill -9 after every single change that an import makes (every other one, but for `make test-long`): no row is lost,
and none is there twice.
"""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from data_models import ImportJob
from orm_models import ImportErrorRow, JobRow, OutboxRow, ProductRow, utc_now
from tests.conftest import picture
from tests.importing.files import json_lines_of, zip_of
from tests.importing.kills import import_all
from tests.processes import ROOT, environment
from tuwen.catalogue.picture_store import open_image_store
from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.importing.attempts import MOST_LOST, WARNING
from tuwen.importing.files import make_durable, new_file
from tuwen.importing.jobs import ImportJobs
from tuwen.settings import Settings

LONG = bool(os.environ.get("LONG_TESTS"))
ROWS = 8
LEAST_CHANGES = 3 + 2 + 2 * 5  # three pages, the beginning and the end, and five pictures with their thumbnails


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.importing.kills"],
        cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.communicate()


def was_killed(forks: subprocess.Popen[str], settings: Settings, after: int) -> bool:
    assert forks.stdin is not None
    assert forks.stdout is not None
    print(json.dumps({"data_dir": str(settings.data_dir), "after": after}), file=forks.stdin, flush=True)
    status = int(forks.stdout.readline())
    assert status in (0, -signal.SIGKILL)
    return status != 0


def begin(settings: Settings, database: Database) -> ImportJob:
    """Of eight rows five are new, one has no sku either, one is bad, and one stands there twice."""
    rows = [{"sku": f"S{number}", "title": f"商品 {number}", "image": f"{number}.png"} for number in range(4)]
    rows += [{"title": "无货号", "image": "4.png"}, {"sku": "S4", "title": "没有图片"}]
    rows += [{"sku": "S5", "title": "价格", "price": "贵", "image": "4.png"}, rows[0]]
    pictures = {f"{number}.png": picture((number, 9, 9)) for number in range(5)}
    name, file = new_file(settings)
    with file:
        file.write(zip_of({"a.jsonl": json_lines_of(*rows), **pictures}))
        make_durable(settings, file)
    return ImportJobs(database).create(name, "a.zip", "create")


def let_time_pass(database: Database) -> None:
    with database.write() as session:
        session.execute(sa.update(JobRow).values(heartbeat_at=utc_now() - timedelta(minutes=5)))


def assert_whole(settings: Settings, database: Database, job: ImportJob) -> None:
    job = ImportJobs(database).read(job.job_id)
    assert (job.status, job.rows, job.created, job.unchanged, job.failed) == ("done", ROWS, 5, 1, 2)
    with database.read() as session:
        products = list(session.scalars(sa.select(ProductRow)))
        events = list(session.scalars(sa.select(OutboxRow.message_key)))
        said = session.execute(sa.select(ImportErrorRow.line, ImportErrorRow.reason).order_by(ImportErrorRow.line))
        lines = [(line, reason.startswith(WARNING)) for line, reason in said]
    assert sorted(product.title for product in products) == [*(f"商品 {number}" for number in range(4)), "无货号"]
    assert sorted(map(int, events)) == [product.product_id for product in products]
    assert [line for line, is_warning in lines if not is_warning] == [6, 7]
    assert {line for line, is_warning in lines if is_warning} == {8}
    images = open_image_store(settings, database)
    assert all(images.read(product.image_path) for product in products)
    assert list((settings.data_dir / "imports").iterdir()) == []


def test_an_import_goes_on_wherever_it_was_killed(forks: subprocess.Popen[str], tmp_path: Path) -> None:
    for number in itertools.count(1, 1 if LONG else 2):
        settings = Settings(_env_file=None, data_dir=tmp_path / str(number), durable_writes=False)
        database = open_database(settings)
        job = begin(settings, database)
        killed = was_killed(forks, settings, number)
        let_time_pass(database)
        asyncio.run(import_all(settings))
        assert_whole(settings, database, job)
        database.close()
        if not killed:
            break
    assert number > LEAST_CHANGES


def test_an_import_that_is_killed_again_and_again_gets_on(forks: subprocess.Popen[str], tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, durable_writes=False)
    database = open_database(settings)
    job = begin(settings, database)
    kills = 0
    while was_killed(forks, settings, 8):
        kills += 1
        let_time_pass(database)
    assert kills > 1
    assert_whole(settings, database, job)
    database.close()


def test_an_import_that_kills_every_process_fails_with_the_reason(forks: subprocess.Popen[str], tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, durable_writes=False)
    database = open_database(settings)
    job = begin(settings, database)
    for _ in range(MOST_LOST):
        assert was_killed(forks, settings, 2)
        assert not was_killed(forks, settings, 9)  # the killed one may live, and is not taken up at once
        let_time_pass(database)
    assert not was_killed(forks, settings, 9)
    ended = ImportJobs(database).read(job.job_id)
    assert (ended.status, ended.rows) == ("failed", 0)
    assert "5 processes in a row ended in the page after row 0" in (ended.error or "")
    database.close()

"""`mode=replace_all` deletes what the file does not have, and nothing that it may have, nor too much, nor twice."""

import asyncio
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from data_models import ImportJob, ImportMode
from orm_models import OutboxRow, ProductRow
from tests.api.test_api import assert_problem
from tests.conftest import picture
from tests.demo.test_demo_command import run_cli
from tests.importing.files import csv_of, zip_of
from tests.importing.kills import import_all
from tests.importing.test_killed_imports import forks, let_time_pass, was_killed  # noqa: F401  # a fixture
from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.importing.files import new_file
from tuwen.importing.jobs import ImportJobs
from tuwen.settings import Settings


def settings_in(folder: Path) -> Settings:
    return Settings(_env_file=None, data_dir=folder, durable_writes=False)


def rows_of(numbers: Iterator[int] | range, title: str = "商品") -> list[list[object]]:
    return [[f"R{number}", f"{title} {number}", "a.png"] for number in numbers]


def begin(
    settings: Settings, database: Database, rows: list[list[object]], mode: ImportMode = "replace_all", **options: Any
) -> ImportJob:
    name, file = new_file(settings)
    with file:
        file.write(zip_of({"a.csv": csv_of(["sku", "title", "image"], *rows), "a.png": picture()}))
    return ImportJobs(database).create(name, "a.zip", mode, **options)


def run(settings: Settings, database: Database, rows: list[list[object]], **options: Any) -> ImportJob:
    job = begin(settings, database, rows, **options)
    asyncio.run(import_all(settings))
    return ImportJobs(database).read(job.job_id)


def skus_in(database: Database) -> set[str | None]:
    with database.read() as session:
        return set(session.scalars(sa.select(ProductRow.sku)))


def numbered(numbers: range) -> set[str | None]:
    return {f"R{number}" for number in numbers}


NAMELESS: list[list[object]] = [["", "没有货号", "a.png"]]


def deletes_in(database: Database) -> list[str]:
    with database.read() as session:
        rows = session.execute(sa.select(OutboxRow.message_key, OutboxRow.payload))
        return sorted(key for key, payload in rows if payload["op"] == "delete")


def test_what_the_file_lacks_goes_and_what_it_names_stays(settings: Settings, database: Database) -> None:
    run(settings, database, [*rows_of(range(40)), *NAMELESS], mode="create")
    rows: list[list[object]] = [
        *rows_of(range(20)),
        ["ｒ99", "新", "a.png"],
        ["R30", "", "none.png"],
        [" R31 ", "坏" * 600, ""],
    ]
    job = run(settings, database, rows, allow_deletes_percent=50)
    assert (job.status, job.created, job.unchanged, job.failed, job.deleted) == ("done", 1, 20, 2, 18)
    assert (job.deletes_allowed, job.error) == (20, None)
    assert skus_in(database) == numbered(range(20)) | {"ｒ99", "R30", "R31", None}
    assert len(deletes_in(database)) == 18
    assert run(settings, database, rows).deleted == 0


def test_more_than_a_share_goes_only_when_asked_for(settings: Settings, database: Database) -> None:
    run(settings, database, rows_of(range(130)), mode="create")
    job = run(settings, database, rows_of(range(116)))
    assert (job.status, job.deleted, job.unchanged, len(skus_in(database))) == ("failed", 0, 116, 130)
    assert "lacks 14 of 130 products, and 13 may go; nothing was deleted" in (job.error or "")
    few = run(settings, database, rows_of(range(120)), allow_deletes_percent=5.0)
    assert (few.status, few.deletes_allowed, few.deleted) == ("failed", 6, 0)
    all_of_them = run(settings, database, rows_of(range(10)), allow_deletes_percent=95.0)
    assert (all_of_them.status, all_of_them.deleted) == ("done", 120)
    assert skus_in(database) == numbered(range(10))


@pytest.mark.parametrize(("there", "may_go"), [(1, 0), (3, 1), (12, 6), (60, 10)])
def test_of_few_products_no_wrong_file_takes_more_than_half(
    settings: Settings, database: Database, there: int, may_go: int
) -> None:
    run(settings, database, rows_of(range(there)), mode="create")
    other: list[list[object]] = [["Z", "别的商店的文件", "a.png"]]
    dry = run(settings, database, other, dry_run=True)
    assert (dry.status, dry.deleted, dry.deletes_allowed) == ("failed", 0, may_go)
    assert f"lacks {there} of {there} products, and {may_go} may go; nothing was deleted" in (dry.error or "")
    assert run(settings, database, other, dry_run=True, allow_deletes_percent=100).deleted == there
    job = run(settings, database, [*rows_of(range(there - may_go - 1)), *other])
    assert (job.status, job.deleted, len(skus_in(database))) == ("failed", 0, there + 1)
    job = run(settings, database, [*rows_of(range(there - may_go)), *other])
    assert (job.status, job.deleted, len(skus_in(database))) == ("done", may_go, there - may_go + 1)


def test_all_go_only_where_it_was_said_so(database: Database, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, durable_writes=False, reconcile_large_share=1)
    run(settings, database, rows_of(range(30)), mode="create")
    none: list[list[object]] = []
    job = run(settings, database, none)
    assert (job.status, job.deletes_allowed, len(skus_in(database))) == ("failed", 29, 30)
    assert run(settings, database, none, allow_deletes_percent=99.0).status == "failed"
    assert run(settings, database, none, allow_deletes_percent=100.0).deleted == 30


def test_a_dry_run_counts_and_changes_nothing(settings: Settings, database: Database) -> None:
    run(settings, database, rows_of(range(5)), mode="create")
    stored = sorted(path for path in settings.data_dir.rglob("images/**/*.*"))
    with database.read() as session:
        events = session.scalar(sa.select(sa.func.count()).select_from(OutboxRow))
    rows: list[list[object]] = [
        *rows_of(range(2)),
        *rows_of(range(2, 3), "改名"),
        ["N1", "新", "a.png"],
        ["N2", "坏", "none.png"],
    ]
    job = run(settings, database, rows, dry_run=True)
    counts = job.created, job.updated, job.unchanged, job.failed, job.deleted
    assert (job.status, job.dry_run, counts) == ("done", True, (1, 1, 2, 1, 2))
    assert skus_in(database) == numbered(range(5))
    assert sorted(path for path in settings.data_dir.rglob("images/**/*.*")) == stored
    with database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(OutboxRow)) == events
    done = run(settings, database, rows)
    assert (done.created, done.updated, done.unchanged, done.failed, done.deleted) == counts


@pytest.mark.parametrize("row", [["", "没有货号", "a.png"], ["R1", "多一格", "a.png", "x"]])
def test_a_row_that_names_no_product_keeps_all(settings: Settings, database: Database, row: list[object]) -> None:
    run(settings, database, rows_of(range(5)), mode="create")
    job = run(settings, database, [*rows_of(range(2)), row])
    assert (job.status, job.deleted, len(skus_in(database))) == ("failed", 0, 5)
    assert "has 1 rows that name no sku (line 4)" in (job.error or "")


def test_what_came_after_the_import_stays(settings: Settings, database: Database) -> None:
    run(settings, database, rows_of(range(2)), mode="create")
    job = begin(settings, database, rows_of(range(1)))
    run(settings, database, rows_of(range(7, 8)), mode="create")  # the older one first
    assert ImportJobs(database).read(job.job_id).deleted == 1
    assert skus_in(database) == {"R0", "R7"}


def test_it_goes_on_wherever_it_was_killed(forks: subprocess.Popen[str], tmp_path: Path) -> None:  # noqa: F811
    for number in itertools.count(1, 2):
        settings = settings_in(tmp_path / str(number))
        database = open_database(settings)
        run(settings, database, rows_of(range(14)), mode="create")
        job = begin(settings, database, rows_of(range(3)), allow_deletes_percent=80)
        killed = was_killed(forks, settings, number)
        let_time_pass(database)
        asyncio.run(import_all(settings))
        ended = ImportJobs(database).read(job.job_id)
        assert (ended.status, ended.deleted, ended.unchanged) == ("done", 11, 3), number
        assert skus_in(database) == numbered(range(3))
        assert len(set(deletes_in(database))) == len(deletes_in(database)) == 11
        database.close()
        if not killed:
            break
    assert number > 6


def test_the_command_line_and_the_api_take_it(api: httpx.Client, tmp_path: Path) -> None:
    file, url = tmp_path / "a.csv", str(api.base_url)
    (tmp_path / "a.png").write_bytes(picture())
    file.write_bytes(csv_of(["sku", "title", "image"], *rows_of(range(3))))
    assert run_cli("import", str(file), API_URL=url).returncode == 0
    file.write_bytes(csv_of(["sku", "title", "image"], *rows_of(range(1))))
    dry = run_cli("import", str(file), "--mode", "replace_all", "--dry-run", API_URL=url)
    assert (dry.returncode, "lacks 2 of 3 products, and 1 may go" in dry.stderr) == (1, True)
    dry = run_cli("import", str(file), "--mode", "replace_all", "--dry-run", "--allow-deletes", "70", API_URL=url)
    assert "0 failed, 2 would be deleted, of 1 rows. Nothing was changed: it was a dry run." in dry.stdout
    assert api.get("/product/list").json()["total"] == 3
    braked = run_cli("import", str(file), "--mode", "replace_all", "--allow-deletes", "10", API_URL=url)
    assert (braked.returncode, "lacks 2 of 3 products, and 0 may go" in braked.stderr) == (1, True)
    failed = api.get("/product/import/4", headers={"Accept-Language": "zh-CN"}).json()["error"]
    assert failed.startswith("file：缺少 3 件商品中的 2 件，而最多可以删除 0 件；什么也没有删除")
    gone = run_cli("import", str(file), "--mode", "replace_all", "--allow-deletes", "70", API_URL=url)
    assert (gone.returncode, "2 deleted" in gone.stdout) == (0, True)
    assert api.get("/product/list").json()["total"] == 1
    given = {"allow_deletes_percent": 5}
    response = api.post("/product/import", params=given, files={"file": ("a.csv", b"x")})
    assert_problem(response, 422, "allow_deletes_percent", "replace_all")

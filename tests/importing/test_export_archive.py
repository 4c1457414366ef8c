"""Products with their pictures out of one installation and into an empty one: the same products, the same pictures."""

import asyncio
import io
import json
import zipfile
from pathlib import Path
from typing import Literal

import httpx
import sqlalchemy as sa

from data_models import ImportJob
from orm_models import ProductRow
from tests.conftest import picture
from tests.importing.files import counts_of, import_file, json_lines_of, zip_of
from tests.importing.kills import import_all
from tests.pictures.files import encoded
from tests.pictures.kinds import product as a_product
from tuwen.catalogue.picture_store import open_image_store
from tuwen.catalogue.pictures import pictures_of
from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.importing.export_archive import archive_of_products, last_of_archive
from tuwen.importing.files import new_file
from tuwen.importing.jobs import ImportJobs
from tuwen.settings import Settings

ROWS: list[dict[str, object]] = [
    {"sku": "EA-1", "title": '红色 "布艺", 沙发', "category": "沙发", "price": "1299.50", "image": "a.heic"},
    {"sku": "EA-2", "title": "木椅", "attributes": {"颜色": ["红"], "n": 1.5}, "image": "b.png"},
    {"sku": "EA-3", "title": "同一张图片的木椅", "image": "b.png"},
    {"title": "没有货号", "image": "c.jpg"},
]
PICTURES = {
    "a.heic": encoded(a_product(), "HEIF", quality=90),
    "b.png": picture("red"),
    "c.jpg": picture("blue", image_format="JPEG"),
}


def seen_in(database: Database) -> list[tuple[object, ...]]:
    columns = ProductRow.sku, ProductRow.title, ProductRow.category, ProductRow.price, ProductRow.attributes
    of_picture = ProductRow.image_sha256, ProductRow.image_width, ProductRow.image_height
    with database.read() as session:
        return [tuple(row) for row in session.execute(sa.select(*columns, *of_picture).order_by(ProductRow.product_id))]


def test_an_export_with_pictures_makes_the_same_products_elsewhere(api: httpx.Client, tmp_path: Path) -> None:
    assert counts_of(import_file(api, zip_of({"a.jsonl": json_lines_of(*ROWS), **PICTURES})))[0] == 4
    exported = api.get("/product/export", params={"format": "zip"})
    assert (exported.headers["Content-Type"], "Link" in exported.headers) == ("application/zip", False)
    with zipfile.ZipFile(io.BytesIO(exported.content)) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 1 + 3
    settings = Settings(_env_file=None, data_dir=tmp_path / "other", durable_writes=False)
    other = open_database(settings)
    name, file = new_file(settings)
    with file:
        file.write(exported.content)
    job = ImportJobs(other).create(name, "a.zip", "create")
    asyncio.run(import_all(settings))
    ended = ImportJobs(other).read(job.job_id)
    assert (ended.status, ended.created, ended.failed) == ("done", 4, 0)
    mine = api.get("/product/list", params={"sort": "product_id"}).json()["items"]
    found = seen_in(other)
    assert [row[:2] for row in found] == [(each["sku"], each["title"]) for each in mine]
    assert [row[4] for row in found] == [each["attributes"] for each in mine]
    images = open_image_store(settings, other)
    with other.read() as session:
        paths = list(session.scalars(sa.select(ProductRow.image_path).order_by(ProductRow.product_id)))
    assert [images.read(path) for path in paths] == [PICTURES[str(row["image"])] for row in ROWS]
    again = import_file(api, exported.content, "upsert")
    assert counts_of(again) == (0, 0, 3, 1)  # the one without a sku can't come back so
    other.close()


def test_an_archive_has_a_bound_and_the_next_one_goes_on(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, durable_writes=False)
    database = open_database(settings)
    images = open_image_store(settings, database)
    name, file = new_file(settings)
    with file:
        rows = [{"sku": f"B{number}", "title": f"商品 {number}", "image": f"{number}.png"} for number in range(25)]
        pictures = {f"{number}.png": picture((number, 9, 9)) for number in range(25)}
        file.write(zip_of({"a.jsonl": json_lines_of(*rows), **pictures}))
    ImportJobs(database).create(name, "a.zip", "create")
    asyncio.run(import_all(settings))
    after, found = 0, []
    for count in (10, 10, 5):
        last = last_of_archive(database, after, most=10)
        assert (last is None) == (count == 5)
        pieces = list(archive_of_products(database, images, tmp_path, after, last))
        assert len(pieces) > count // 8  # while it is made
        with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
            lines = archive.read("products.jsonl").decode().splitlines()
            found += [json.loads(line)["sku"] for line in lines]
            assert (len(lines), len(archive.namelist())) == (count, count + 1)
        after = last or 0
    assert found == [f"B{number}" for number in range(25)]
    database.close()


def imported(
    settings: Settings, data: bytes, mode: Literal["create", "upsert"] = "create"
) -> tuple[Database, ImportJob]:
    database = open_database(settings)
    name, file = new_file(settings)
    with file:
        file.write(data)
    job = ImportJobs(database).create(name, "a.zip", mode)
    asyncio.run(import_all(settings))
    return database, ImportJobs(database).read(job.job_id)


def settings_in(folder: Path) -> Settings:
    return Settings(_env_file=None, data_dir=folder, durable_writes=False)


def test_an_archive_has_no_more_pictures_than_an_import_takes_files(tmp_path: Path) -> None:
    counts = [3, 1, 9, 2, 2]
    names = iter(range(100))
    rows: list[dict[str, object]] = [
        {"sku": f"C{n}", "title": f"商品 {n}", "image": [f"{next(names)}.png" for _ in range(count)]}
        for n, count in enumerate(counts)
    ]
    pictures = {f"{n}.png": picture((n * 9, 9, 9)) for n in range(sum(counts))}
    database, _ = imported(settings_in(tmp_path), zip_of({"a.jsonl": json_lines_of(*rows), **pictures}))
    after, found = 0, []
    while True:
        last = last_of_archive(database, after, most_pictures=4)
        with database.read() as session:
            ids = sa.select(ProductRow.image_count).where(ProductRow.product_id > after)
            if last is not None:
                ids = ids.where(ProductRow.product_id <= last)
            found.append(list(session.scalars(ids.order_by(ProductRow.product_id))))
        if last is None:
            break
        after = last
    assert found == [[3, 1], [9], [2, 2]]  # one product's stay together
    database.close()


def test_a_product_that_lost_a_picture_is_told_and_loses_no_other_by_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "mine")
    rows: list[dict[str, object]] = [
        {"sku": "A", "title": "三张", "image": ["r.png", "g.png", "b.png"]},
        {"sku": "B", "title": "一张", "image": "k.png"},
    ]
    pictures = {
        name: picture(colour)
        for name, colour in zip(["r.png", "g.png", "b.png", "k.png"], ["red", "green", "blue", "black"], strict=True)
    }
    database, _ = imported(settings, zip_of({"a.jsonl": json_lines_of(*rows), **pictures}))
    images = open_image_store(settings, database)
    with database.read() as session:
        product = session.scalars(sa.select(ProductRow).where(ProductRow.sku == "A")).one()
        before = pictures_of(session, [product])[product.product_id]
    (settings.data_dir / "images" / before[0].image_path).unlink()
    archive = b"".join(archive_of_products(database, images, tmp_path, 0, None))
    database.close()
    imports: list[tuple[Settings, Literal["create", "upsert"]]] = [
        (settings_in(tmp_path / "other"), "create"),
        (settings, "upsert"),
    ]
    for other, mode in imports:
        database, job = imported(other, archive, mode)
        assert (job.status, job.failed) == ("done", 1)
        [error] = ImportJobs(database).errors_after(job.job_id, 0)
        assert (error.sku, error.field) == ("A", "image")
        assert "is not in the archive" in error.reason
        with database.read() as session:
            products = list(session.scalars(sa.select(ProductRow).order_by(ProductRow.sku)))
            found = {product.sku: len(pictures_of(session, [product])[product.product_id]) for product in products}
        assert found == ({"B": 1} if mode == "create" else {"A": 3, "B": 1})
        database.close()

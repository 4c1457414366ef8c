"""Products with their pictures out of one installation and into an empty one: the same products, the same pictures."""

import asyncio
import io
import json
import zipfile
from pathlib import Path

import httpx
import sqlalchemy as sa

from orm_models import ProductRow
from tests.conftest import picture
from tests.importing.files import counts_of, import_file, json_lines_of, zip_of
from tests.importing.kills import import_all
from tests.pictures.files import encoded
from tests.pictures.kinds import product as a_product
from tuwen.catalogue.picture_store import open_image_store
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

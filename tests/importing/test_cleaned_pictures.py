"""Pictures whose metadata are removed on the way in are still the same pictures, whoever stored them before."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from data_models import ImportJob, ProductChanges
from tests.importing.files import csv_of, zip_of
from tests.importing.kills import import_all
from tests.importing.test_pages import counts_of, products_in
from tests.pictures.test_cleaning import SECRET, telling
from tuwen.catalogue.picture_store import open_image_store
from tuwen.catalogue.products import ProductWriter
from tuwen.database.engine import Database
from tuwen.importing.files import new_file
from tuwen.importing.jobs import ImportJobs
from tuwen.pictures.checks import check_image
from tuwen.settings import Settings

PHOTO = telling("JPEG")


def import_photo(settings: Settings, database: Database) -> ImportJob:
    name, file = new_file(settings)
    with file:
        file.write(zip_of({"a.csv": csv_of(["sku", "title", "image"], ["P1", "照片", "a.jpg"]), "a.jpg": PHOTO}))
    job = ImportJobs(database).create(name, "a.zip", "upsert")
    asyncio.run(import_all(settings))
    return ImportJobs(database).read(job.job_id)


@pytest.mark.parametrize("first", ["remove", "keep"])
def test_the_same_photo_again_is_no_change_however_it_was_stored(
    settings: Settings, database: Database, first: str
) -> None:
    assert counts_of(import_photo(settings.model_copy(update={"image_metadata": first}), database)) == (1, 0, 0, 0)
    before = products_in(database)["P1"]
    images = open_image_store(settings, database)
    assert (SECRET.encode() in images.read(before.image_path)) == (first == "keep")
    assert counts_of(import_photo(settings, database)) == (0, 0, 1, 0)
    registry: Any = SimpleNamespace(known=None)
    writer = ProductWriter(database, images, registry, settings.kafka_topic, lambda _: None)
    writer.change(before.product_id, ProductChanges(), check_image(PHOTO, settings))
    after = products_in(database)["P1"]
    assert (after.version, after.image_path) == (before.version, before.image_path)
    assert images.read(after.image_path)
    (settings.data_dir / "images" / after.image_path).unlink()  # what is lost is stored anew, cleaned
    writer.change(before.product_id, ProductChanges(), check_image(PHOTO, settings))
    mended = products_in(database)["P1"]
    assert SECRET.encode() not in images.read(mended.image_path)

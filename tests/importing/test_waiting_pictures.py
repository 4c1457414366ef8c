"""An import's pictures wait for their share of the memory, and a page that begins again meets none of its last try."""

import asyncio
from typing import Any

import pytest

from data_models import ImportJob
from tests.conftest import picture
from tests.importing.files import json_lines_of, zip_of
from tuwen.background import FIRST_WAIT_S
from tuwen.catalogue.picture_store import open_image_store
from tuwen.database.engine import Database
from tuwen.errors import Overloaded
from tuwen.importing.files import make_durable, new_file
from tuwen.importing.importer import Importer
from tuwen.importing.jobs import ImportJobs
from tuwen.pictures import decoder as decoding
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.checks import check_image
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.download import PictureFetcher
from tuwen.pictures.store import NOT_STORED
from tuwen.settings import Settings

PICTURES = 4


def begin(settings: Settings, database: Database) -> ImportJob:
    rows = [{"sku": f"S{number}", "title": f"商品 {number}", "image": f"{number}.png"} for number in range(PICTURES)]
    pictures = {f"{number}.png": picture((number, 9, 9)) for number in range(PICTURES)}
    name, file = new_file(settings)
    with file:
        file.write(zip_of({"a.jsonl": json_lines_of(*rows), **pictures}))
        make_durable(settings, file)
    return ImportJobs(database).create(name, "a.zip", "create")


async def import_with(decoder: PictureDecoder, settings: Settings, database: Database) -> None:
    async with PictureFetcher(settings) as fetcher:
        images = open_image_store(settings, database)
        assert await Importer(settings, database, images, decoder, fetcher, lambda _: None).take_turn()


def test_an_import_waits_for_memory_for_as_long_as_it_takes(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoding, "DECODE_WAIT_S", 0.01)
    job = begin(settings, database)

    async def scenario() -> None:
        decoder = PictureDecoder(settings)
        await decoder._budget.take(10**12, max_wait_s=0)
        importing = asyncio.ensure_future(import_with(decoder, settings, database))
        with pytest.raises(Overloaded):  # whoever waits for an answer
            await decoder.check(picture("red"))
        await asyncio.wait([importing], timeout=1.0)
        decoder._budget.give_back(10**12)
        await importing

    asyncio.run(scenario())
    assert ImportJobs(database).read(job.job_id).created == PICTURES
    assert "Import waits" not in caplog.text


class OnceOverloaded(PictureDecoder):
    """Refuses the first picture at once, while others of the page are being decoded."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.begun, self.under_way, self.left_over = 0, 0, 0

    async def check(self, data: bytes, **options: Any) -> CheckedImage:
        self.begun += 1
        if self.begun == 1:
            await asyncio.sleep(0)  # the others begin
            raise Overloaded("no memory")
        if self.begun == PICTURES + 1:
            self.left_over = self.under_way
        self.under_way += 1
        try:
            await asyncio.sleep(2 * FIRST_WAIT_S if self.begun <= PICTURES else 0)
            return await super().check(data, **options)
        finally:
            self.under_way -= 1


def test_a_page_begins_again_when_all_of_its_pictures_have_ended(settings: Settings, database: Database) -> None:
    job = begin(settings, database)

    async def scenario() -> OnceOverloaded:
        decoder = OnceOverloaded(settings)
        await import_with(decoder, settings, database)
        return decoder

    decoder = asyncio.run(scenario())
    assert (decoder.begun, decoder.left_over) == (2 * PICTURES, 0)
    assert ImportJobs(database).read(job.job_id).created == PICTURES


def test_a_picture_that_cannot_be_stored_is_its_rows_error_and_holds_up_no_other(
    settings: Settings, database: Database
) -> None:
    job, root = begin(settings, database), settings.data_dir / "images"
    refused = check_image(picture((0, 9, 9)), settings)
    folder = (root / open_image_store(settings, database).path_of(refused)).parent
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where this picture's folder should be")
    asyncio.run(import_with(PictureDecoder(settings), settings, database))
    done = ImportJobs(database).read(job.job_id)
    assert (done.status, done.created, done.failed) == ("done", PICTURES - 1, 1)
    (error,) = ImportJobs(database).errors_after(job.job_id, 0)
    assert (error.sku, error.field, error.reason) == ("S0", "image", NOT_STORED)

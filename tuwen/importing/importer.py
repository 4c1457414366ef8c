"""Works off import jobs, a page of rows at a time, in the process that has their files: the API's.

A page is read, its pictures are stored, and then products, errors and the job's progress are one short transaction.
Whoever takes a job up passes over the rows that are done.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from typing import Any, TypeVar

from sqlalchemy.exc import DataError, IntegrityError

from tuwen.background import WorkPool, until_up
from tuwen.database.engine import Database
from tuwen.errors import AppError, DependencyUnavailable, FieldError, InvalidInput, ValueRefused
from tuwen.importing.attempts import (
    Attempt,
    JobGone,
    begin_attempt,
    delete_old_jobs,
    finish,
    has_ended,
    keep,
    let_go,
)
from tuwen.importing.doubles import Doubles, beside
from tuwen.importing.files import import_folder, lacks_room, remove_left_files
from tuwen.importing.image_sources import delete_unused_sources
from tuwen.importing.pages import PictureNeeded
from tuwen.importing.personal_data import masked, without_personal_data
from tuwen.importing.pictures import PictureReader, keep_stored
from tuwen.importing.replacing import Replacement
from tuwen.importing.rows import ImportRow, RowError, read_row
from tuwen.importing.source import Source
from tuwen.importing.writing import Read, Writing
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.download import PictureFetcher
from tuwen.pictures.store import ImageStore
from tuwen.pulse import beat
from tuwen.request_ids import working_for
from tuwen.settings import Settings

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

LOOK_EVERY_S, KEEP_EVERY_S, CLEAR_UP_EVERY_S = 0.5, 4.0, 60.0
# Rows of a page, and those of them that name pictures, which take far longer. A page's price is its commit: a feed of
# prices is 5,000 rows a second and a commit up to 60 ms.
PAGE_ROWS, PAGE_PICTURES = 500, 100
PASSED_OVER_AT_ONCE = 5000
LOOK_FOR_ROOM_EVERY_S = 2.0
TRIES = 5
NOT_WRITTEN = FieldError("row", "could not be written; something else may change the same product, so import it again")


class Importer:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        images: ImageStore,
        decoder: PictureDecoder,
        fetcher: PictureFetcher,
        wake_relay: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._images = images
        self._wake_relay = wake_relay
        self._folder = import_folder(settings)
        self._clear_up_at = 0.0
        self._reading = WorkPool("reading imports", threads=1, max_waiting=100)
        self._writing = WorkPool("writing imports", threads=1, max_waiting=10)
        self._keeping = WorkPool("keeping imports", threads=1, max_waiting=10)
        self._pictures = PictureReader(settings, images, decoder, fetcher, self._reading)

    async def run(self) -> None:
        while True:
            beat()
            try:
                while await self.take_turn():
                    beat()
            except DependencyUnavailable as error:
                logger.warning("Imports wait: %s", error.detail)
            await asyncio.sleep(LOOK_EVERY_S)

    async def take_turn(self) -> bool:
        """The next job, to its end. False where there is none."""
        attempt = await self._writing.run(begin_attempt, self._database, self._folder)
        if attempt is None:
            await self._writing.run(self._clear_up)
            return False
        with working_for([attempt.request_id]):
            await self._work_off(attempt)
        return True

    async def _work_off(self, attempt: Attempt) -> None:
        try:
            await self._keep_while(attempt, self._import(attempt))
        except JobGone:
            logger.info("Import job %d ends here", attempt.job_id)
        except (DependencyUnavailable, asyncio.CancelledError):
            with suppress(AppError, JobGone):
                await self._keeping.run(let_go, self._database, attempt)
            raise
        except Exception as error:  # it must not come again for ever
            reason = error.detail if isinstance(error, InvalidInput) else f"unexpected: {error!r}"
            if not isinstance(error, InvalidInput):
                logger.exception("Unexpected while importing")
            with suppress(JobGone):  # the reason may quote the file
                reason = masked(reason) if attempt.masks else reason
                await self._keeping.run(finish, self._database, attempt, reason)
        await self._writing.run(self._remove_if_ended, attempt)

    def _remove_if_ended(self, attempt: Attempt) -> None:
        if has_ended(self._database, attempt.job_id):
            attempt.path.unlink(missing_ok=True)
            beside(attempt.path).unlink(missing_ok=True)

    def _clear_up(self) -> None:
        if time.monotonic() >= self._clear_up_at:
            self._clear_up_at = time.monotonic() + CLEAR_UP_EVERY_S
            remove_left_files(self._database, self._folder)
            delete_old_jobs(self._database)
            delete_unused_sources(self._database)

    async def _keep_while(self, attempt: Attempt, work: Any) -> None:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                beat()
                await asyncio.wait([task], timeout=KEEP_EVERY_S)
                if not task.done():
                    with suppress(DependencyUnavailable):  # the work waits for it, too
                        await self._keeping.run(keep, self._database, attempt)
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _import(self, attempt: Attempt) -> None:
        with Source(attempt.path) as source, closing(Doubles(attempt.path)) as doubles:
            rows = source.rows()
            passed_over = 0
            while passed_over < attempt.state.get("rows", 0):
                count = min(PASSED_OVER_AT_ONCE, attempt.state["rows"] - passed_over)
                await self._reading.run(_pass_over, rows, count)
                passed_over += count
            database = self._database.of_shop(attempt.shop_id)
            writing = Writing(database, self._settings, self._images, attempt, source, doubles)
            waiting: deque[Read] = deque()
            while True:
                await self._until_there_is_room()
                waiting.extend(await self._reading.run(self._read_rows, rows, list(waiting), attempt.masks))
                if not waiting:
                    break
                await self._write_page(writing, source, waiting)
        if attempt.mode == "replace_all":
            await self._until_up(self._replace, attempt)
        await self._writing.run(finish, self._database, attempt)
        logger.info("Import job %d is done", attempt.job_id)

    async def _replace(self, attempt: Attempt) -> None:
        database = self._database.of_shop(attempt.shop_id)
        await Replacement(self._settings, database, attempt, self._reading, self._writing).run()

    async def _until_there_is_room(self) -> None:
        """Rather than fill the disk that the databases are on."""
        said = False
        while full := await self._reading.run(lacks_room, self._settings):
            if not said:
                logger.warning("An import waits until there is room: %s", full)
            said = True
            await asyncio.sleep(LOOK_FOR_ROOM_EVERY_S)

    def _read_rows(self, rows: Iterator[Any], waiting: list[Read], mask: bool) -> list[Read]:
        """As many as fill the page with those that wait."""
        page = list(waiting)
        pictures = sum(map(_has_picture, page))
        while len(page) < PAGE_ROWS and pictures < PAGE_PICTURES and (found := next(rows, None)) is not None:
            row = read_row(found, self._settings, masked if mask else str)
            page.append(without_personal_data(row, mask=mask) if isinstance(row, ImportRow) else row)
            pictures += _has_picture(row)
        return page[len(waiting) :]

    async def _write_page(self, writing: Writing, source: Source, waiting: "deque[Read]") -> None:
        """Of the first of these, which wait no more."""
        if (done := await self._try_to_write(writing, source, list(waiting))) is not None:
            for _ in range(done):
                waiting.popleft()
            return
        while waiting:  # each alone, so that one that can't be written keeps no other out
            row = waiting.popleft()
            if await self._try_to_write(writing, source, [row]) is None:
                line, sku = (row.line, row.sku) if isinstance(row, ImportRow) else (row[0].line, row[0].sku)
                error = RowError(line, sku, NOT_WRITTEN.field, NOT_WRITTEN.message)
                await self._until_up(self._write, writing, source, [[error]], False)

    async def _try_to_write(self, writing: Writing, source: Source, read: list[Read]) -> int | None:
        """How many of the first of these are written; None where the database takes them at no try."""
        for number in range(TRIES):
            is_last = number == TRIES - 1
            with suppress(PictureNeeded, IntegrityError, DataError, ValueRefused):  # mostly, others wrote meanwhile
                return await self._until_up(self._write, writing, source, read, not is_last)
        return None

    async def _until_up(self, write: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
        return await until_up("Import", lambda: write(*arguments), max_wait_s=self._settings.retry_backoff_max_s)

    async def _write(self, writing: Writing, source: Source, read: list[Read], trust_known: bool) -> int:
        good = [row for row in read if isinstance(row, ImportRow)]
        known = await self._reading.run(writing.find_known, good)
        reading = self._pictures.read(source, good, known, writing.attempt, trust_known=trust_known)
        pictures, done = await reading
        if done < len(good):  # no more could be held; the errors between them go with those that are done
            read = read[: read.index(good[done])]
        warnings = await self._reading.run(writing.find_warnings, read, pictures)
        await self._writing.run(writing.write, read, pictures, warnings)
        self._wake_relay(self._settings.kafka_topic)
        if not writing.attempt.is_dry_run:
            await self._writing.run(keep_stored, self._images, pictures)
        return len(read)


def _has_picture(row: Read) -> bool:
    return isinstance(row, ImportRow) and row.image is not None


def _pass_over(rows: Iterator[Any], count: int) -> None:
    for _ in itertools.islice(rows, count):
        pass

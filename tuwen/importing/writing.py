"""The pages of one attempt, as they are written: products, errors, warnings and how far the job is, or none of it."""

import itertools
import time
from contextlib import suppress
from typing import Any

from orm_models import utc_now
from tuwen.catalogue.pictures import pictures_of
from tuwen.database.engine import Database
from tuwen.importing.attempts import LOST, Attempt, add_errors, require_running
from tuwen.importing.doubles import Doubles, Seen
from tuwen.importing.image_sources import ImageSource, find_sources, write_sources
from tuwen.importing.pages import Known, Page, PageWriter, Picture, products_by_sku
from tuwen.importing.personal_data import masked_object, without_numbers
from tuwen.importing.rows import ImportRow, RowError, RowWarning
from tuwen.importing.source import Source
from tuwen.pictures.store import ImageStore
from tuwen.settings import Settings

MOST_WARNINGS = 100_000
Read = ImportRow | list[RowError]


class _NotKept(Exception):
    """The end of a dry run's transaction."""


class Writing:
    """The pages of one attempt. Blocks."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        images: ImageStore,
        attempt: Attempt,
        source: Source,
        doubles: Doubles,
    ) -> None:
        self._database = database
        self.attempt = attempt
        self._source = source
        self._doubles = doubles
        self._state = attempt.state
        self._pages = PageWriter(settings, images, attempt.mode)
        self._started, self._rows_before = time.monotonic(), attempt.state.get("rows", 0)

    def find_known(self, rows: list[ImportRow]) -> Known:
        with self._database.read() as session:
            products = products_by_sku(session, rows)
            return Known(products, pictures_of(session, list(products.values())), find_sources(session, rows))

    def find_warnings(self, read: list[Read], pictures: dict[int, Picture | RowError]) -> list[RowWarning]:
        """No more of them than a file that is nothing else may leave in the database."""
        rows = _rows(read)
        seen = {line: Seen(each.sha256, each.likeness) for line, each in pictures.items() if isinstance(each, Picture)}
        of_rows = itertools.chain.from_iterable(row.warnings for row in rows)
        left = max(0, MOST_WARNINGS - self._state.get("warnings", 0))
        return [*of_rows, *self._doubles.find(rows, seen)][:left]

    def write(self, read: list[Read], pictures: dict[int, Picture | RowError], warnings: list[RowWarning]) -> None:
        """Raises JobGone, PictureNeeded or what the database says of the rows, and has then written nothing."""
        tried = self._try(read, pictures) if self.attempt.is_dry_run else None
        with self._database.write() as session:
            job = require_running(session, self.attempt)
            page = tried or self._pages.write(session, _rows(read), pictures)
            if not self.attempt.is_dry_run:
                write_sources(session, _rows(read), _fetched(pictures))
            page.errors += itertools.chain.from_iterable(row for row in read if isinstance(row, list))
            said: list[RowError | RowWarning] = [*page.errors, *warnings]
            said = list(map(without_numbers, said)) if self.attempt.masks else said
            add_errors(session, job.job_id, sorted(said, key=lambda each: each.line))
            state = self._state | self._counted(page, len(read), len(warnings))
            job.state, job.heartbeat_at = state, utc_now()
            job.progress = self._source.share_read
        self._state = state

    def _try(self, read: list[Read], pictures: dict[int, Picture | RowError]) -> Page:
        """What would come of it. A sku that stands in several pages is counted as new in each."""
        page = Page()
        with suppress(_NotKept), self._database.write() as session:
            require_running(session, self.attempt)
            page = self._pages.write(session, _rows(read), pictures)
            raise _NotKept
        return page

    def _counted(self, page: Page, rows: int, warnings: int) -> dict[str, Any]:
        counts = {"rows": rows, "created": page.created, "updated": page.updated}
        counts |= {"unchanged": page.unchanged, "failed": page.failed, "warnings": warnings}
        state: dict[str, Any] = {name: self._state.get(name, 0) + count for name, count in counts.items()}
        seconds = max(time.monotonic() - self._started, 0.001)
        rate = round((state["rows"] - self._rows_before) / seconds, 1)
        columns = self._source.columns
        return state | {
            "rows_per_s": rate,
            "columns": masked_object(columns) if self.attempt.masks else columns,
            LOST: 0,
        }


def _fetched(pictures: dict[int, Picture | RowError]) -> dict[str, ImageSource]:
    read = itertools.chain.from_iterable(each.all for each in pictures.values() if isinstance(each, Picture))
    return dict(each.fetched for each in read if each.fetched is not None)


def _rows(read: list[Read]) -> list[ImportRow]:
    return [row for row in read if isinstance(row, ImportRow)]

"""In the background: every product is compared once with all others, and reports are worked off, page by page.

One process at a time. A page is a transaction of its own, and what is left is found again: a kill loses nothing.
"""

import asyncio
import logging
import time

import sqlalchemy as sa

from orm_models import ProductRow
from tuwen.background import Lease, WorkPool
from tuwen.catalogue.twins import VERSION, Found, settle, to_compare
from tuwen.cores import stand_behind
from tuwen.database.engine import Database
from tuwen.errors import DependencyUnavailable
from tuwen.pulse import beat
from tuwen.twins.finder import DuplicateFinder
from tuwen.twins.reports import ReportWriter

logger = logging.getLogger(__name__)

PAGE = 20
LOOK_EVERY_S, CLEAR_UP_EVERY_S, LONGEST_PAGE_S = 3.0, 60.0, 300.0
LEASE = "twins"


class TwinKeeper:
    def __init__(self, database: Database, finder: DuplicateFinder) -> None:
        self._database = database
        self._finder = finder
        self._reports = ReportWriter(database, finder)
        self._lease = Lease(database, LEASE)
        self._thread = WorkPool(LEASE, threads=1, max_waiting=1, prepare_thread=stand_behind)
        self._clear_up_at = 0.0
        self._is_reports_turn = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            beat(LONGEST_PAGE_S)
            try:
                started = time.monotonic()
                while await self._thread.run(self.take_page):
                    beat(LONGEST_PAGE_S)
                    await asyncio.sleep(time.monotonic() - started)  # a whole catalogue must not take a core for hours
                    started = time.monotonic()
            except DependencyUnavailable as error:
                logger.warning("Products with the same picture are looked for later: %s", error.detail)
            beat()
            await asyncio.sleep(LOOK_EVERY_S)

    def take_page(self) -> bool:
        """Of what is to be compared, and of a report, by turns. False with nothing to do, or where another does it."""
        with self._database.read() as session:
            waiting = to_compare(session, PAGE)
        is_asked = self._reports.has_work()
        if not waiting and not is_asked:
            self._clear_up()
            return False
        self._is_reports_turn = is_asked and not (waiting and self._is_reports_turn)
        progress = self._lease.take()
        if progress is None:
            return False
        try:
            return self._reports.take_page() if self._is_reports_turn else self._settle(waiting)
        finally:
            self._lease.give_back(progress)

    def _settle(self, product_ids: list[int]) -> bool:
        try:
            self._write(self._finder.find(product_ids))
        except DependencyUnavailable:
            raise
        except Exception:  # one that can't be compared must not keep the others from it
            if len(product_ids) > 1:
                for each in product_ids:
                    self._settle([each])
                return True
            logger.exception("Product %d can't be compared with others", product_ids[0])
            self._pass_over(product_ids[0])
        return True

    def _write(self, found: list[tuple[ProductRow, list[Found]]]) -> None:
        """One product a transaction: it locks its twins, too."""
        for product, same in found:
            with self._database.write() as session:
                settle(session, product.product_id, product.image_sha256, same)

    def _pass_over(self, product_id: int) -> None:
        with self._database.write() as session:
            mine = ProductRow.product_id == product_id
            change = sa.update(ProductRow).where(mine).values(sketch_version=VERSION)
            session.execute(change.execution_options(synchronize_session=False))

    def _clear_up(self) -> None:
        if time.monotonic() >= self._clear_up_at:
            self._clear_up_at = time.monotonic() + CLEAR_UP_EVERY_S
            self._reports.delete_old()

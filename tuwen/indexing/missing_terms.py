"""Products without terms, or with those of another version, get theirs: after an upgrade, all of them, page by page."""

import logging
from collections.abc import Callable

from tuwen.catalogue.terms import make_terms, products_without_terms
from tuwen.database.engine import Database

PAGE = 100  # some 5,000 rows a transaction

logger = logging.getLogger(__name__)


def make_missing_terms(database: Database, after_page: Callable[[], None]) -> None:
    """Raises what `after_page` raises. What can't be made is left for the next time, and logged."""
    made = 0
    try:
        while page := _page(database):
            made += page
            after_page()
    finally:
        if made:
            logger.info("Terms of %d products were made", made)


def _page(database: Database) -> int:
    try:
        with database.read() as session:
            found = products_without_terms(session, PAGE)
        if found:
            with database.write() as session:
                make_terms(session, found)
        return len(found)
    except Exception:  # it must not keep all else from being mended
        logger.exception("Terms could not be made; they are tried again later")
        return 0

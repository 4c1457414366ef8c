"""The way back for products that failed, once the reason is mended."""

from collections.abc import Iterator

from tuwen.database.engine import Database
from tuwen.indexing.queries import failed_products_after, requeue

PAGE = 500


def retry_failed(database: Database, topic: str, reason_contains: str = "") -> Iterator[int]:
    """Have them indexed again, page by page, each a short transaction; yields how many each page queued.

    Safe beside running services, whose relay sends what this leaves in the outbox.
    """
    after = 0
    while True:
        with database.write() as session:
            page = failed_products_after(session, after, reason_contains, PAGE)
            to_queue = [product_id for product_id, has_reason in page.items() if has_reason]
            queued = len(requeue(session, to_queue, "failed", topic)) if to_queue else 0
        if not page:
            return
        if queued:
            yield queued
        after = max(page)

"""The kinds of drift between the database and the picture store: pictures without a product, products without theirs.

As in `drift.py`: page by page, and what is about to be changed is looked at once more. A picture can't be made again,
so a large share is never believed, and a product whose picture is gone is shown to a person and not deleted.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence

import sqlalchemy as sa

from orm_models import MAIN, ProductRow, utc_now
from tuwen.catalogue.pictures import Picture, pictures_of
from tuwen.catalogue.queries import load_products, lock_products
from tuwen.errors import PictureUnreadable
from tuwen.indexing.drift import PAGE, Pass, Step
from tuwen.indexing.outcomes import of_picture
from tuwen.indexing.queries import (
    PictureOfProduct,
    forget_unused,
    image_paths_in_use,
    note_unused,
    pictured_products_after,
    unused_since,
)
from tuwen.pictures.store import ImageStore
from tuwen.pictures.stored_file import StoredFile
from tuwen.vectors.binding import mark_failed

logger = logging.getLogger(__name__)

IMAGE_PAGE = 50
# More pictures than this, and than RECONCILE_LARGE_SHARE of all, are not removed without being told to.
MANY_IMAGES = 100
PICTURED_PAGE = 100  # of few products each may lie in a folder of its own, which is listed
KEPT_LISTINGS = 2  # of one beginning of the hashes: the installation's own folder, and that of version 0.2.0
# More products than the first, and than that share of all, or than the second, are not marked without being told to.
FEW_LOST, MOST_LOST = 10, 1000


def delete_unused_images(work: Pass, _: int) -> Iterator[Step]:
    """Pictures that nothing has named for a while. They can't be made again: a large share is not believed."""
    unlisted, stuck = dict[str, str](), dict[str, str]()
    for aside in work.images.list_pages_aside(IMAGE_PAGE, unlisted):  # a sweep was killed between its two steps
        paths = [path for path, mark in aside if not work.repair or _remove_or_take_back(work, path, mark, stuck)]
        yield Step(0, paths, len(paths) if work.repair else 0)
    may_remove = work.repair and (yield from _may_remove_unused(work))
    for page in work.images.list_pages(IMAGE_PAGE if may_remove else PAGE, unlisted):
        unused = _unused(work, page)
        if may_remove:
            unused = _remove_all(work, unused, stuck)
        yield Step(0, unused, len(unused) if may_remove else 0)
    yield _say_passed_over(0, "%d folders can't be read, the first because: %s", unlisted)
    yield _say_passed_over(0, "%d pictures can't be removed, the first because: %s", stuck)


def _say_passed_over(after: int, message: str, reasons: Mapping[str, str]) -> Step:
    """What the store can't list or move (path → reason) holds up nothing else, and each is a finding."""
    if reasons:
        logger.error(message, len(reasons), next(iter(reasons.values())))
    return Step(after, list(reasons), 0)


def _may_remove_unused(work: Pass) -> Generator[Step, None, bool]:
    total = unused = 0
    for page in work.images.list_pages(PAGE, {}):
        total += len(page)
        unused += len(_unused(work, page))
        yield Step(0, (), 0)
    if unused <= max(MANY_IMAGES, int(total * work.settings.reconcile_large_share)) or work.may_delete_many:
        return True
    logger.error(
        "%d of %d pictures are named by nothing, and none of them is removed: is this the right database? "
        "If it is: python cli.py reconcile --repair --delete-many",
        *(unused, total),
    )
    return False


def _unused(work: Pass, page: list[StoredFile]) -> list[str]:
    """Those that nothing has named for the whole grace, by what earlier sweeps have noted; a picture's age says nothing
    of that. Who names one again stores it anew, so that an older note of it does not count.
    """
    grace, now = work.graces.image, utc_now()
    old = {file.path: file.modified_at for file in page if file.modified_at <= now - grace}
    with work.database.read() as session:
        used, noted = image_paths_in_use(session, list(old)), unused_since(session, list(old))
    unused = {path: since for path, since in noted.items() if path not in used and since >= old[path] + grace}
    outdated, new = noted.keys() - unused.keys(), old.keys() - used - unused.keys()
    if work.repair and (outdated or new):
        with work.database.write() as session:
            forget_unused(session, outdated)
            note_unused(session, new, now)
    unused |= dict.fromkeys(new, now)
    return [path for path in old if path in unused and unused[path] <= now - grace]


def _remove_all(work: Pass, unused: list[str], stuck: dict[str, str]) -> list[str]:
    # What is stuck aside would be set aside again at each pass, in S3 as one more copy.
    removed = [path for path in unused if path not in stuck and _remove_or_take_back(work, path, None, stuck)]
    done = [path for path in unused if path not in stuck]  # the others' notes stay, and the next pass tries them again
    if done:
        with work.database.write() as session:
            forget_unused(session, done)
    return removed


def _remove_or_take_back(work: Pass, path: str, mark: str | None, stuck: dict[str, str]) -> bool:
    """True where it is gone; what was named since it was looked at goes back. `mark`: of one that lies aside already.

    What the store can't move or remove goes into `stuck`, with the reason.
    """
    try:
        mark = mark or work.images.set_aside(path)
        with work.database.read() as session:
            is_used = bool(image_paths_in_use(session, [path]))
        if is_used:
            work.images.take_back(path, mark)
        else:
            work.images.remove_aside(path, mark)
    except PictureUnreadable as error:
        stuck[path] = error.detail
        return False
    return not is_used


def mark_products_without_image(work: Pass, after: int) -> Iterator[Step]:
    """Products of which a picture is gone: failed, with that as the reason, so that a person sees them.

    In the order of the pictures' hashes, and so folder by folder: each is listed once, however many pages its pictures
    fill, and no picture is asked for by itself that is there.
    """
    if work.repair and work.may_delete_many:
        work.images.mark()  # somebody says that it is the right store
    seen, lost, listings = 0, list[int](), Listings(work.images)
    for folder, page in _pictured_products(work, after):
        seen += len(page)
        found = [row.product_id for row in page if listings.lacks(row.image_path)]
        may_mark = work.repair and work.may_delete_many
        yield Step(folder, found, _mark_lost(work, found) if may_mark else 0)
        lost += found if work.repair and not may_mark else []
    yield _say_passed_over(after, "%d folders can't be read, the first because: %s", listings.unlisted)
    if len(lost) > min(MOST_LOST, max(FEW_LOST, int(seen * work.settings.reconcile_large_share))):
        logger.error(
            "The pictures of %d of %d products are gone, and none of these is marked: is this the right picture store? "
            "If it is: python cli.py reconcile --repair --delete-many",
            *(len(lost), seen),
        )
        return
    for start in range(0, len(lost), PICTURED_PAGE):
        yield Step(after, (), _mark_lost(work, lost[start : start + PICTURED_PAGE]))


def _pictured_products(work: Pass, folder: int) -> Iterator[tuple[int, Sequence[PictureOfProduct]]]:
    """Pages, each with the number that its last picture's hash begins with."""
    after = (f"{folder:02x}", 0)
    while True:
        with work.database.read() as session:
            page = pictured_products_after(session, *after, PICTURED_PAGE)
        if not page:
            return
        after = (page[-1].image_sha256, page[-1].product_id)
        yield int(page[-1].image_sha256[:2], 16), [row for row in page if row.index_status != "failed"]


class Listings:
    """What lies in the folders that were listed last, for paths that come folder by folder."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self._kept: dict[str, set[str]] = {}
        self.unlisted: dict[str, str] = {}
        """Folder → why it can't be read; nobody knows what is gone from there."""

    def lacks(self, path: str) -> bool:
        folder = path.rpartition("/")[0]
        if folder in self.unlisted:
            return False
        try:
            if folder not in self._kept:
                if len(self._kept) == KEPT_LISTINGS:
                    del self._kept[next(iter(self._kept))]
                self._kept[folder] = self._images.paths_in(folder)
            # One that lies aside, or was stored since the listing, is asked for by itself.
            return path not in self._kept[folder] and not self._images.has(path)
        except PictureUnreadable as error:
            self.unlisted[folder] = error.detail
            return False


def _mark_lost(work: Pass, product_ids: list[int]) -> int:
    """Those that lack their picture still, and were not changed since it was looked for: the very same may be back."""
    listings = Listings(work.images)
    with work.database.read() as session:
        products = load_products(session, product_ids)
        pictures = pictures_of(session, products)
    reasons = {each.product_id: _what_it_lacks(pictures[each.product_id], listings) for each in products}
    # A picture that is sent again is no change of its product, and leaves its time all the same.
    versions = {
        each.product_id: (each.content_version, each.queued_at) for each in products if reasons[each.product_id]
    }
    unbound, marked, index = list[int](), 0, work.index
    with work.database.write() as session:
        lock_products(session, list(versions))
        for product in session.scalars(sa.select(ProductRow).where(ProductRow.product_id.in_(versions))):
            is_same = (product.content_version, product.queued_at) == versions[product.product_id]
            reason = reasons[product.product_id]
            if is_same and reason and product.index_status != "failed":
                unbound += mark_failed(session, product, index.vector_index_id, reason)
                marked += 1
    work.vector_db.delete(index.collection, unbound, list(versions))
    return marked


def _what_it_lacks(pictures: Sequence[Picture], listings: Listings) -> str | None:
    """As ingestion says it."""
    for position, picture in enumerate(pictures, start=MAIN):
        if listings.lacks(picture.image_path):
            return of_picture(position, f"There is no picture {picture.image_path}.")
    return None

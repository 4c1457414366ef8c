"""The pictures that a page of rows names: read from the archive or fetched, and left alone where a product has them."""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from tuwen.background import WorkPool
from tuwen.errors import InvalidInput, PictureUnreadable
from tuwen.importing.attempts import Attempt
from tuwen.importing.image_sources import ImageSource, is_address
from tuwen.importing.pages import Known, Picture
from tuwen.importing.rows import ImportRow, RowError
from tuwen.importing.source import Source
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.checks import is_stored_as
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.download import NONE, Download, NotFetched, PictureFetcher, Validators
from tuwen.pictures.likeness import likeness_of
from tuwen.pictures.store import NOT_STORED, ImageStore
from tuwen.settings import Settings
from tuwen.texts import canonical_text

logger = logging.getLogger(__name__)

AT_ONCE = 8
MOST_HELD_BYTES = 32 * 1024 * 1024  # until the page is written; what is over that waits for the next one
FETCHES, FIRST_PAUSE_S = 3, 0.5


class PictureReader:
    """`reading`: the one thread that reads the file."""

    def __init__(
        self,
        settings: Settings,
        images: ImageStore,
        decoder: PictureDecoder,
        fetcher: PictureFetcher,
        reading: WorkPool,
    ) -> None:
        self._settings = settings
        self._images = images
        self._decoder = decoder
        self._fetcher = fetcher
        self._reading = reading
        self._storing = WorkPool("storing imported pictures", threads=AT_ONCE, max_waiting=AT_ONCE)

    async def read(
        self,
        source: Source,
        rows: Sequence[ImportRow],
        known: Known,
        attempt: Attempt,
        *,
        trust_known: bool,
    ) -> tuple[dict[int, Picture | RowError], int]:
        """By line, stored, of as many of the first rows as may be held; how many rows these are.

        `trust_known`: what is there will still be when the page is written. Without it, PictureNeeded can't come.
        """
        pictures: dict[int, Picture | RowError] = {}
        times = Counter(canonical_text(row.sku) for row in rows if row.sku is not None)
        held = done = 0
        while done < len(rows) and held < MOST_HELD_BYTES:
            several = first_with_pictures(rows[done:], AT_ONCE)
            done += len(several)
            reads = []
            for row in several:
                product = known.products.get(row.sku) if row.sku is not None and trust_known else None
                if row.image is None or (product is not None and attempt.mode == "create"):
                    continue
                # One row's picture may be another row's change, and a product that failed may have lost its own.
                is_once = times[canonical_text(row.sku or "")] == 1
                is_sure = product is not None and is_once and product.index_status != "failed"
                stored = known.pictures[product.product_id] if product and is_sure else []
                present = _Present([each.image_sha256 for each in stored], known.sources)
                reads.append((row.line, self._read(source, row, present, store=not attempt.is_dry_run)))
            results = await _all_of(read for _, read in reads)
            pictures |= zip((line for line, _ in reads), results, strict=True)
            held += sum(len(image.data) for each in results for image in _read_of(each))
        return pictures, done

    async def _read(self, source: Source, row: ImportRow, present: "_Present", *, store: bool) -> Picture | RowError:
        """All that the row names."""
        pictures = []
        try:
            for index, name in enumerate(row.images):
                if is_address(name):
                    pictures.append(await self._fetch(name, present, index, store=store))
                else:
                    data = await self._bytes(source, name)
                    pictures.append(await self._as_picture(data, present.at(index), store=store))
        except InvalidInput as error:
            reason = "; ".join(each.message for each in error.errors) or error.detail
            return RowError(row.line, row.sku, "image", reason)
        except PictureUnreadable as error:  # waited for, it would hold up the import and all behind it
            await self._storing.run(self._images.check)  # raises where the whole store is away: then all of them wait
            logger.warning("A picture of line %d is not stored: %s", row.line, error.detail)
            return RowError(row.line, row.sku, "image", NOT_STORED)
        main, *further = pictures
        return main if row.further is None else main._replace(further=tuple(further))

    async def _as_picture(self, data: bytes, present: str | None, *, store: bool) -> Picture:
        """`present`: what the product has in its place."""
        if present is not None and await self._reading.run(partial(is_stored_as, present, data, self._settings)):
            return Picture(present, None)
        image = await self._decoder.check(data, can_wait=True)
        return Picture(image.sha256, image, await self._storing.run(self._take, image, store))

    def _take(self, image: CheckedImage, store: bool) -> bytes | None:
        if store:
            self._images.save(image)
        return likeness_of(image.thumbnail)

    async def _bytes(self, source: Source, image: str) -> bytes:
        """Raises InvalidInput."""
        try:
            return await self._reading.run(source.read_picture, image, self._settings.upload_max_bytes)
        except OSError as error:
            raise InvalidInput.in_field("image", f"{image!r} can't be read: {error}") from error

    async def _fetch(self, address: str, present: "_Present", index: int, *, store: bool) -> Picture:
        """Raises InvalidInput."""
        known = present.fetched_from(address, index)
        download = await self._download(address, known.validators if known else NONE)
        if known is not None and download.is_same:
            return Picture(known.image_sha256, None)
        picture = await self._as_picture(download.data, present.at(index), store=store)
        if not any(download.validators):
            return picture
        return picture._replace(fetched=(address, ImageSource(picture.sha256, download.validators)))

    async def _download(self, address: str, known: Validators) -> Download:
        for attempt in range(1, FETCHES):
            try:
                return await self._fetcher.fetch_unless_same(address, known)
            except NotFetched:
                await asyncio.sleep(FIRST_PAUSE_S * attempt)
        return await self._fetcher.fetch_unless_same(address, known)


async def _all_of(reads: Iterable[Awaitable[Picture | RowError]]) -> list[Picture | RowError]:
    """All have ended when one's failure is raised: the page begins again then, and would have them twice."""
    results = await asyncio.gather(*reads, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def first_with_pictures(rows: Sequence[ImportRow], at_once: int) -> Sequence[ImportRow]:
    """The first rows, with so many pictures together; what is one row's stays together."""
    pictures = itertools.accumulate(len(row.images) for row in rows)
    return rows[: 1 + sum(1 for _ in itertools.takewhile(lambda count: count < at_once, pictures))]


class _Present(NamedTuple):
    """What a row need not bring."""

    sha256s: Sequence[str]
    """Of the product's own pictures, in their order."""
    sources: Mapping[str, ImageSource]

    def at(self, index: int) -> str | None:
        return self.sha256s[index] if index < len(self.sha256s) else None

    def fetched_from(self, address: str, index: int) -> ImageSource | None:
        """If the product has it still; the main one as such, a further one at whichever place."""
        source = self.sources.get(address)
        of_kind = self.sha256s[:1] if index == 0 else self.sha256s[1:]
        return source if source is not None and source.image_sha256 in of_kind else None


def keep_stored(images: ImageStore, pictures: Mapping[int, Picture | RowError]) -> None:
    """After the transaction that names them. Blocks."""
    for picture in pictures.values():
        for image in _read_of(picture):
            images.save_if_gone(image)


def _read_of(picture: Picture | RowError) -> list[CheckedImage]:
    """The main one and the further ones, but for those that the product has."""
    if isinstance(picture, RowError):
        return []
    return [each.image for each in picture.all if each.image is not None]

"""Decodes pictures for everyone in the process, and sees to how much memory that takes at once."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from PIL import Image

from tuwen.background import WorkPool
from tuwen.budget import Budget
from tuwen.cores import available_cores, stand_behind
from tuwen.errors import Overloaded
from tuwen.pictures.apart import APART, ReadersApart, bytes_to_read
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.checks import as_checked, require_pixels, require_size
from tuwen.pictures.decoding import DECODE_SIDE, Decoded, decode, read_header
from tuwen.pictures.formats import format_of
from tuwen.pictures.thumbnails import SHOWN_SIDE, as_webp, make_thumbnail
from tuwen.settings import Settings

Result = TypeVar("Result")

# A picture of 40 megapixels takes a second or two of a core.
DECODE_WAIT_S = 30.0
INGESTORS = 2  # the live index's, and one that fills another: neither may be refused for what it sends by itself
HASHED_AT_ONCE_BYTES = 256 * 1024  # a fraction of a millisecond, less than another thread costs


class PictureDecoder:
    """One for a process. Waits for its share of DECODE_MAX_MEGAPIXELS without a thread, and for no longer than said."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._budget = Budget("Memory to decode the picture", settings.decode_max_megapixels * 1_000_000)
        # Few, because a header is not counted: text in a PNG or a GIF's background may be megabytes.
        max_waiting = 2 * settings.query_queue_size + INGESTORS * settings.pictures_indexed_at_once
        self._header_threads = WorkPool("picture headers", threads=2, max_waiting=max_waiting)
        self._apart = ReadersApart(bytes_to_read(settings.image_max_pixels))
        cores = available_cores()
        self._threads = WorkPool("decoding", threads=cores, max_waiting=max_waiting)
        self._threads_behind = WorkPool(
            "decoding behind", threads=cores, max_waiting=max_waiting, prepare_thread=stand_behind
        )

    async def check(self, data: bytes, *, is_ours: bool = False, can_wait: bool = False) -> CheckedImage:
        """An upload, or one of ours. Raises ImageTooLarge, UnsupportedImageType, UnreadableImage or Overloaded.

        `can_wait`: nobody is there who waits for the answer.
        """
        use = partial(as_checked, data, self._settings, is_ours=is_ours)
        max_wait_s = None if can_wait else DECODE_WAIT_S
        return await self._decode(data, use, self._threads_behind, is_stored=False, max_wait_s=max_wait_s)

    async def sha256(self, data: bytes) -> str:
        """In hex digits. A large picture's is no work for the event loop."""
        if len(data) <= HASHED_AT_ONCE_BYTES:
            return _sha256(data)
        return await self._header_threads.run(_sha256, data)

    async def query_picture(self, data: bytes, prepare: Callable[[Image.Image], Result], *, is_stored: bool) -> Result:
        """What is searched for, as `prepare` hands it to the encoder, on the same thread.

        Raises as `check` and as `prepare`; what is stored was let in before.
        """
        return await self._decode(data, partial(_prepared, prepare), self._threads, is_stored=is_stored, trim=True)

    async def thumbnail(self, data: bytes) -> bytes:
        """Of a picture that was checked when it came in. Raises UnreadableImage or Overloaded."""
        return await self._decode(data, _thumbnail_of, self._threads)

    async def shown(self, data: bytes) -> bytes:
        """The picture as every browser shows it. Raises as `thumbnail`."""
        return await self._decode(data, _webp_of, self._threads, side=SHOWN_SIDE)

    async def stored_picture(self, data: bytes, prepare: Callable[[Image.Image], Result]) -> Result:
        """One that was checked when it came in, for the index, which can wait.

        Raises UnreadableImage, and as `prepare`.
        """
        return await self._decode(data, partial(_prepared, prepare), self._threads_behind, trim=True, max_wait_s=None)

    async def _decode(
        self,
        data: bytes,
        use: Callable[[Decoded], Result],
        threads: WorkPool,
        *,
        is_stored: bool = True,
        side: int = DECODE_SIDE,
        trim: bool = False,
        max_wait_s: float | None = DECODE_WAIT_S,
    ) -> Result:
        pixels = await self._header_threads.run(self._cost, data, side, is_stored)
        await self._budget.take(pixels, max_wait_s=max_wait_s, comes_first=threads is self._threads)
        # A task of its own, because a thread can't be stopped: the share is given back when the work has ended, and not
        # when whoever asked for it has hung up.
        working = asyncio.ensure_future(threads.run(self._decode_and, use, data, side, trim))
        working.add_done_callback(partial(self._end, pixels))
        try:
            return await asyncio.shield(working)
        finally:
            del working  # as in `WorkPool.run`

    def _end(self, pixels: int, working: asyncio.Future[object]) -> None:
        self._budget.give_back(pixels)
        if not working.cancelled():
            working.exception()  # seen, whether or not somebody still waits for it

    def _cost(self, data: bytes, side: int, is_stored: bool) -> int:
        if not is_stored:
            require_size(data, self._settings)
        header = self._apart.header(data, side) if format_of(data) in APART else read_header(data, side)
        if not is_stored:
            require_pixels(header, self._settings)
        return header.pixels_to_decode

    def _decode_and(self, use: Callable[[Decoded], Result], data: bytes, side: int, trim: bool) -> Result:
        decode_it = self._apart.decode if format_of(data) in APART else decode
        try:
            return use(decode_it(data, side=side, trim=trim))
        except MemoryError as error:
            raise Overloaded("There is no memory to decode the picture; try again in a second.") from error


def _prepared(prepare: Callable[[Image.Image], Result], decoded: Decoded) -> Result:
    return prepare(decoded.image)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _thumbnail_of(decoded: Decoded) -> bytes:
    return make_thumbnail(decoded.image)


def _webp_of(decoded: Decoded) -> bytes:
    return as_webp(decoded.image)

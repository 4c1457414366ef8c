"""Decodes pictures for everyone in the process, and sees to how much memory that takes at once."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from PIL import Image

from tuwen.background import Budget, WorkPool
from tuwen.cores import available_cores
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.checks import check_image, open_within_limits
from tuwen.pictures.decoding import decode_image, open_image, pixels_to_decode
from tuwen.pictures.thumbnails import make_thumbnail
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
        self._threads = WorkPool("decoding", threads=available_cores(), max_waiting=max_waiting)

    async def check(self, data: bytes) -> CheckedImage:
        """An upload. Raises ImageTooLarge, UnsupportedImageType, UnreadableImage or Overloaded."""
        return await self._decode(self._cost_within_limits, check_image, data, self._settings)

    async def sha256(self, data: bytes) -> str:
        """In hex digits. A large picture's is no work for the event loop."""
        if len(data) <= HASHED_AT_ONCE_BYTES:
            return _sha256(data)
        return await self._header_threads.run(_sha256, data)

    async def query_picture(self, data: bytes, prepare: Callable[[Image.Image], Result], *, is_stored: bool) -> Result:
        """What is searched for, as `prepare` hands it to the encoder, on the same thread.

        Raises as `check` and as `prepare`; what is stored was let in before.
        """
        cost = _cost if is_stored else self._cost_within_limits
        return await self._decode(cost, partial(_decode_and, prepare), data)

    async def thumbnail(self, data: bytes) -> bytes:
        """Of a picture that was checked when it came in. Raises UnreadableImage or Overloaded."""
        return await self._decode(_cost, _thumbnail_of, data)

    async def stored_picture(self, data: bytes, prepare: Callable[[Image.Image], Result]) -> Result:
        """One that was checked when it came in, for the index, which can wait.

        Raises UnreadableImage, and as `prepare`.
        """
        return await self._decode(_cost, partial(_decode_and, prepare), data, max_wait_s=None)

    async def _decode(
        self,
        cost: Callable[[bytes], int],
        work: Callable[..., Result],
        data: bytes,
        *arguments: object,
        max_wait_s: float | None = DECODE_WAIT_S,
    ) -> Result:
        pixels = await self._header_threads.run(cost, data)
        await self._budget.take(pixels, max_wait_s=max_wait_s)
        # A task of its own, because a thread can't be stopped: the share is given back when the work has ended, and not
        # when whoever asked for it has hung up.
        working = asyncio.ensure_future(self._threads.run(work, data, *arguments))
        working.add_done_callback(partial(self._end, pixels))
        return await asyncio.shield(working)

    def _end(self, pixels: int, working: asyncio.Future[object]) -> None:
        self._budget.give_back(pixels)
        if not working.cancelled():
            working.exception()  # seen, whether or not somebody still waits for it

    def _cost_within_limits(self, data: bytes) -> int:
        return pixels_to_decode(open_within_limits(data, self._settings))


def _decode_and(prepare: Callable[[Image.Image], Result], data: bytes) -> Result:
    return prepare(decode_image(data, trim=True))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _thumbnail_of(data: bytes) -> bytes:
    return make_thumbnail(decode_image(data))


def _cost(data: bytes) -> int:
    return pixels_to_decode(open_image(data))

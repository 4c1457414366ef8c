"""The encoders as asynchronous services: micro-batched, on one model thread, with a cache of query vectors."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from cachetools import LRUCache
from PIL import Image

from tuwen.cores import stand_behind
from tuwen.encoders.base import Embeddings, Encoders, PreparedPicture, Vector
from tuwen.encoders.batching import BatchSizes, MicroBatcher
from tuwen.encoders.turns import Turns, Urgency
from tuwen.errors import EncodingFailed, ModelsUnavailable
from tuwen.settings import Settings
from tuwen.texts import normalise_text

Item = TypeVar("Item")

# What every sound model takes.
KNOWN_GOOD_TEXT = "商品"
KNOWN_GOOD_SIZE = (224, 224)
TITLES_AT_ONCE = 8  # at least, where no search waits for them
REMOTE_ASKED_EVERY_S = 5.0


def _as_it_is() -> None:
    """The thread keeps what it has."""


def _encode(
    lock: threading.Lock, encode: Callable[[Sequence[Item]], Embeddings], items: Sequence[Item]
) -> list[Vector]:
    with lock:  # two services may share a model for a while: the one that fills an index, and the one that serves it
        return list(encode(items))


def _of_normalised(encode: Callable[[Sequence[str]], Embeddings]) -> Callable[[Sequence[str]], Embeddings]:
    """Titles and queries alike, so that the same in another script or width, or with invisible characters, is near."""
    return lambda texts: encode([normalise_text(text) for text in texts])


class Lane:
    """A thread, whose turn it is on it, and how much is done in a turn."""

    def __init__(self, prepare_thread: Callable[[], None], settings: Settings, *, least_bulk: int = 1) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="model", initializer=prepare_thread)
        self.turns = Turns()
        self.sizes: BatchSizes = {
            "batch_size": settings.query_batch_size,
            "bulk_batch_size": max(least_bulk, settings.ingest_encode_batch_size),
            "queue_size": settings.query_queue_size,
        }


def _batcher(
    lane: Lane,
    encode: Callable[[Sequence[Item]], list[Vector]],
    known_good: Item,
    query_urgency: Urgency = Urgency.SHORT_QUERY,
    encode_bulk: Callable[[Sequence[Item]], list[Vector]] | None = None,
    *,
    is_remote: bool = False,
) -> MicroBatcher[Item, Vector]:
    return MicroBatcher(
        encode,
        lane.executor,
        lane.turns,
        process_bulk=encode_bulk,
        query_urgency=query_urgency,
        known_good=known_good,
        asked_every_s=REMOTE_ASKED_EVERY_S if is_remote else None,
        **lane.sizes,
    )


class EncodingService:
    """Query vectors for searches, bulk vectors for the index. Create it on a running event loop; close it there."""

    def __init__(
        self, encoders: Encoders, settings: Settings, *, prepare_thread: Callable[[], None] = _as_it_is
    ) -> None:
        """`prepare_thread` is called on each thread of the models before all else."""
        self.encoders = encoders
        self._loop = asyncio.get_running_loop()
        # The models use all cores by themselves, so one at a time; but for the texts of searches, each of which takes
        # a fraction of a picture's time, and would wait for the pictures of the index that are under way. Titles of the
        # index, for the model that has a network of its own for them, are computed by one thread behind all others.
        clip, text = encoders.clip, encoders.text
        for_texts, for_pictures = (Lane(prepare_thread, settings) for _ in range(2))
        for_titles = Lane(stand_behind, settings, least_bulk=TITLES_AT_ONCE)
        # Whoever waits for another machine holds up nobody who does not ask it.
        elsewhere = [Lane(_as_it_is, settings) for _ in range(3)]
        clip_lane = elsewhere[0] if clip.is_remote else for_texts
        text_lane = elsewhere[1] if text.is_remote else for_texts
        self._lanes = (for_texts, for_pictures, for_titles, *elsewhere)
        a_picture = clip.prepare(Image.new("RGB", KNOWN_GOOD_SIZE, "gray"))
        pictures = partial(_encode, encoders.picture_lock, clip.encode_prepared)
        of_index = partial(_encode, encoders.picture_lock, clip.index_prepared) if clip.indexes_apart else None
        clip_lock, text_lock = encoders.clip_text_lock, encoders.text_lock
        clip_texts = partial(_encode, clip_lock, _of_normalised(clip.encode_texts))
        queries = partial(_encode, text_lock, _of_normalised(text.encode_queries))
        of_its_own = for_titles, encoders.index_lock
        title_lane, title_lock = of_its_own if clip.indexes_apart else (for_pictures, clip_lock)
        titles = partial(_encode, title_lock, _of_normalised(clip.index_texts))
        document_lane, document_lock = of_its_own if text.indexes_apart else (for_pictures, text_lock)
        documents = partial(_encode, document_lock, _of_normalised(text.encode_documents))
        self.clip_images = _batcher(for_pictures, pictures, a_picture, Urgency.LONG_QUERY, of_index)
        self.clip_pictures = self._remote_pictures(elsewhere[2], a_picture) if clip.is_remote else self.clip_images
        self.clip_texts = _batcher(title_lane, titles, KNOWN_GOOD_TEXT)
        self.clip_queries = _batcher(clip_lane, clip_texts, KNOWN_GOOD_TEXT, is_remote=clip.is_remote)
        self.text_queries = _batcher(text_lane, queries, KNOWN_GOOD_TEXT, is_remote=text.is_remote)
        self.text_documents = _batcher(document_lane, documents, KNOWN_GOOD_TEXT)
        texts = (self.clip_texts, self.clip_queries, self.text_queries, self.text_documents)
        self._batchers = (self.clip_images, *((self.clip_pictures,) if clip.is_remote else ()), *texts)
        of_clip, of_text = (self.clip_pictures, self.clip_queries), (self.text_queries,)
        self._for_queries = (*(() if clip.is_remote else of_clip), *(() if text.is_remote else of_text))
        self._cache: LRUCache[Hashable, Vector] = LRUCache(settings.query_cache_size)
        self._cache_counts: Counter[str] = Counter()

    def _remote_pictures(self, lane: Lane, known_good: PreparedPicture) -> MicroBatcher[PreparedPicture, Vector]:
        """Pictures that are searched for: calls for the index are patient, and bear others beside them."""
        pictures = partial(_encode, threading.Lock(), self.encoders.clip.encode_prepared)
        return _batcher(lane, pictures, known_good, Urgency.LONG_QUERY, is_remote=True)

    async def query_clip_text(self, text: str) -> Vector:
        return await self._cached(self.clip_queries, ("clip", normalise_text(text)), text)

    async def query_text(self, text: str) -> Vector:
        return await self._cached(self.text_queries, ("text", normalise_text(text)), text)

    def prepare(self, image: Image.Image) -> PreparedPicture:
        """For `query_image` and `clip_images`, on the thread that decoded it: the model has enough to do.

        Raises EncodingFailed or ModelsUnavailable.
        """
        try:
            return self.encoders.clip.prepare(image)
        except MemoryError as error:
            raise ModelsUnavailable("There is no memory to prepare a picture for the model.") from error
        except Exception as error:  # libraries raise whatever they like, of a picture one pixel high for one
            raise EncodingFailed(f"The model can't encode this: {error!r}") from error

    async def query_image(self, picture: PreparedPicture, sha256: str) -> Vector:
        return await self._cached(self.clip_pictures, ("image", sha256), picture)

    def cached_image(self, sha256: str) -> Vector | None:
        """Spares a known picture its decoding."""
        return self._known(("image", sha256))

    def take_cache_counts(self) -> Counter[str]:
        """How many queries were a `hit` and a `miss` since this was last asked."""
        counts, self._cache_counts = self._cache_counts, Counter()
        return counts

    async def check(self, *, for_queries_alone: bool = False) -> None:
        """Raises ModelsUnavailable. `for_queries_alone`: the index may be in trouble, or slow behind searches; so may a
        model elsewhere, which is away for all processes, and whose absence must not take the other searches along.
        """
        for batcher in self._for_queries if for_queries_alone else self._batchers:
            await batcher.check(for_queries_alone=for_queries_alone)

    async def close(self) -> None:
        await asyncio.gather(*(batcher.close() for batcher in self._batchers))
        for lane in self._lanes:
            lane.executor.shutdown()

    def close_soon(self) -> None:
        """From any thread; waits for nothing."""
        asyncio.run_coroutine_threadsafe(self.close(), self._loop)

    async def _cached(self, batcher: MicroBatcher[Item, Vector], key: Hashable, item: Item) -> Vector:
        vector = self._known(key)
        if vector is None:
            self._cache_counts["miss"] += 1
            vector = await batcher.query(item)
            if self._cache.maxsize:
                self._cache[key] = vector
        return vector

    def _known(self, key: Hashable) -> Vector | None:
        vector = self._cache.get(key)
        if vector is not None:
            self._cache_counts["hit"] += 1
        return vector

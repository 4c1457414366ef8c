"""A5 as the API sees it: jobs are taken, read, waited for and cancelled. Drawing is `tuwen/generation/worker.py`'s.

A job and its message are one transaction; the job table is the truth, a message only wakes a worker.
"""

import asyncio
import copy
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from data_models import (
    DEFAULT_SHOP,
    ENDED,
    MAX_SEED,
    GeneratedImage,
    GenerateRequest,
    GenerationEvent,
    GenerationJob,
    SearchMode,
    SearchRequest,
    SimilarProduct,
)
from orm_models import GeneratedImageRow, JobRow
from tuwen.access.queues import require_room_for
from tuwen.background import WorkPool
from tuwen.catalogue.representation import image_url
from tuwen.database.engine import Database
from tuwen.database.jobs import cancel_job, find_job
from tuwen.errors import InvalidInput, NotFound, QueueFull, VectorDBUnavailable
from tuwen.generation.queries import count_jobs_waiting, find_generated_image, generated_images
from tuwen.messaging.outbox import add_to_outbox
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.store import ImageStore
from tuwen.pictures.thumbnails import thumbnail_path
from tuwen.search.searcher import Searcher
from tuwen.settings import Settings
from tuwen.vectors.registry import IndexRegistry

logger = logging.getLogger(__name__)

POLL_S = 0.2
JOB_THREADS = 4
SIMILAR_PRODUCTS = 8


@dataclass(frozen=True)
class JobState:
    """One reading of the database."""

    job: JobRow
    images: list[GeneratedImageRow]
    jobs_before: int


class GenerationJobs:
    """`wake_relay` is called with its topic after each commit, from whichever thread made it; `stopping` ends what
    waits for a job."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        images: ImageStore,
        decoder: PictureDecoder,
        registry: IndexRegistry,
        searcher: Searcher,
        wake_relay: Callable[[str], None],
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._database = self._all_shops = database
        self._shop_id = DEFAULT_SHOP
        self._images = images
        self._decoder = decoder
        self._registry = registry
        self._searcher = searcher
        self._wake_relay = wake_relay
        self._stopping = stopping
        self._threads = WorkPool("generation jobs", threads=JOB_THREADS, max_waiting=settings.query_queue_size)

    def of_shop(self, shop_id: str) -> Self:
        view = copy.copy(self)
        view._shop_id = shop_id
        view._database, view._searcher = self._database.of_shop(shop_id), self._searcher.of_shop(shop_id)
        return view

    def create(self, request: GenerateRequest, client: str) -> int:
        """The new job's id. Raises InvalidInput over a limit, QueueFull when too many wait, TooManyAtOnce when too many
        of this client."""
        self._require_within_limits(request)
        seed = secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed
        stored = request.model_copy(update={"seed": seed}).model_dump(mode="json", exclude={"wait_s"})
        settings = self._settings
        with self._all_shops.write() as session:  # they share one queue
            if count_jobs_waiting(session) >= settings.generation_queue_size:
                raise QueueFull("As many drawings wait as may, and no more are taken; try again later.")  # of all shops
            require_room_for(session, client, "generate", "drawings", settings.generation_queue_per_client)
            job = JobRow(kind="generate", shop_id=self._shop_id, request=stored, client=client)
            session.add(job)
            session.flush()
            event = GenerationEvent(job_id=job.job_id)
            add_to_outbox(session, self._settings.generation_topic, str(job.job_id), event)
        self._wake_relay(self._settings.generation_topic)
        return job.job_id

    def cancel(self, job_id: int) -> None:
        """Its worker notices at the next denoising step. Cancelling twice is no error; a job that ended is one."""
        with self._database.write() as session:
            job = find_job(session, "generate", job_id, lock=True)
            if job is None:
                raise _no_job(job_id)
            cancel_job(job)

    async def read(self, job_id: int) -> GenerationJob:
        return await self._describe(await self._threads.run(self._load, job_id))

    async def wait(self, job_id: int, wait_s: float) -> GenerationJob:
        """As soon as it ended, or as it is after `wait_s` or when the service stops."""
        deadline = time.monotonic() + wait_s
        state = await self._threads.run(self._load, job_id)
        while state.job.status not in ENDED and time.monotonic() < deadline and not self._stopping.is_set():
            await asyncio.sleep(POLL_S)
            state = await self._threads.run(self._load, job_id)
        return await self._describe(state)

    async def watch(self, job_id: int) -> AsyncIterator[GenerationJob]:
        """The job now, and again at each change, until it ended or the service stops."""
        seen: tuple[str, float, int] | None = None
        while (seen is None or seen[0] not in ENDED) and not self._stopping.is_set():
            state = await self._threads.run(self._load, job_id)
            now = (state.job.status, state.job.progress, state.jobs_before)
            if now != seen:
                seen = now
                yield await self._describe(state)
            else:
                await asyncio.sleep(POLL_S)

    def require(self, job_id: int) -> None:
        """Raises NotFound."""
        self._load(job_id)

    async def picture(self, image_id: int) -> CheckedImage:
        """A generated picture, ready to become a product's. Raises InvalidInput where there is none."""
        return await self._decoder.check(await self._threads.run(self._read_picture, image_id), is_ours=True)

    def _require_within_limits(self, request: GenerateRequest) -> None:
        largest = self._settings.generator_max_side
        for field, side in (("width", request.width), ("height", request.height)):
            if side is not None and side > largest:
                raise InvalidInput.in_field(field, f"is over the limit of {largest} pixels")
        if request.steps is not None and request.steps > self._settings.generator_max_steps:
            raise InvalidInput.in_field("steps", f"is over the limit of {self._settings.generator_max_steps}")

    def _read_picture(self, image_id: int) -> bytes:
        with self._database.read() as session:
            row = find_generated_image(session, image_id)
        if row is None:
            raise InvalidInput.in_field("generated_image_id", f"there is no generated picture {image_id}")
        return self._images.read(row.image_path)

    def _load(self, job_id: int) -> JobState:
        with self._database.read() as session:
            job = find_job(session, "generate", job_id)
            if job is None:
                raise _no_job(job_id)
            images = generated_images(session, job_id) if job.status == "done" else []
            before = count_jobs_waiting(session, job_id) if job.status == "queued" else 0
        return JobState(job, images, before)

    async def _describe(self, state: JobState) -> GenerationJob:
        job = state.job
        prompt = str(job.request["prompt"])
        return GenerationJob(
            job_id=job.job_id,
            status=job.status,
            status_url=f"/generate/{job.job_id}",
            events_url=f"/generate/{job.job_id}/events",
            progress=job.progress,
            jobs_before=state.jobs_before,
            error=job.error,
            prompt=prompt,
            images=[await self._describe_image(row, prompt) for row in state.images],
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )

    async def _describe_image(self, row: GeneratedImageRow, prompt: str) -> GeneratedImage:
        data = await self._threads.run(self._images.read, row.image_path)
        encoding = self._registry.encoding  # one for both: vectors of different models can't be compared
        vector = await self._searcher.encoder.image(data, encoding, is_stored=True)
        return GeneratedImage(
            image_id=row.image_id,
            image_url=image_url(row.image_path),
            thumbnail_url=image_url(thumbnail_path(row.image_path)),
            width=row.image_width,
            height=row.image_height,
            seed=row.seed,
            agreement=float(np.dot(vector, await encoding.query_clip_text(prompt))),
            similar=await self._find_similar(data),
        )

    async def _find_similar(self, picture: bytes) -> list[SimilarProduct] | None:
        """None while the vector database is down: a picture that took minutes to draw is shown all the same."""
        nearest = SearchRequest(mode=SearchMode.IMAGE_TO_IMAGE, top_k=SIMILAR_PRODUCTS)
        try:
            found = await self._searcher.search(nearest, picture, is_stored=True)
        except VectorDBUnavailable as error:
            logger.warning("Similar products are left out: %s", error)
            return None
        return [SimilarProduct(score=hit.score, product=hit.product, image=hit.image) for hit in found.hits]


def _no_job(job_id: int) -> NotFound:
    return NotFound(f"There is no generation job {job_id}; results are kept for a set time.")

"""The process that owns the diffusion pipeline: takes generation jobs one by one, draws, stores, finishes them.

Run any number behind Kafka: `python -m tuwen.generation.worker`. On the embedded default the API starts one at the
first job. A message only wakes it: what is to be done stands in the job table, and so do jobs whose worker died.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial

from data_models import MAX_SEED, GenerateRequest
from orm_models import GeneratedImageRow, JobRow, utc_now
from tuwen.background import STOP_SIGNALS, Loop, running_loops, until_up, until_up_or_stopped
from tuwen.catalogue.picture_store import open_image_store
from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.errors import AppError, DependencyUnavailable, PictureUnreadable
from tuwen.generation.pipeline import DrawRequest, Generator, load_generator
from tuwen.generation.queries import claim_generation_job, finish_job, give_back_job, report_on_job
from tuwen.logs import configure_logging
from tuwen.messaging.connect import new_consumer
from tuwen.messaging.transport import MessageConsumer
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.provenance import encode_generated
from tuwen.pictures.store import NOT_STORED, ImageStore
from tuwen.processes import Presence
from tuwen.pulse import USUAL_STEP_S, Pulses, beat
from tuwen.request_ids import working_for
from tuwen.settings import VERSION, Settings, load_settings

logger = logging.getLogger(__name__)

BOUND_TO_PARENT = "--bound-to-parent"
MAX_ATTEMPTS = 4  # the first, and three more where a worker died
SIGNS_OF_LIFE = 4  # heartbeats within the time after which a job counts as abandoned
NICENESS = 10  # searches come first
# A pipeline of several GB may be fetched first; on a processor, a step of a large one takes minutes.
LOADING_S, LONGEST_STEP_S = 3600.0, 900.0


class Interrupted(Exception):
    """Ends a drawing between two steps."""


class JobLost(Interrupted):
    """It was cancelled, or another worker has it."""


class Stopping(Interrupted):
    """This process is told to stop."""


class GenerationWorker:
    """Draws on the calling thread. `stop` and `wake` may come from any thread or a signal."""

    def __init__(self, settings: Settings, database: Database, images: ImageStore) -> None:
        self._settings = settings
        self._database = database
        self._images = images
        self._generator: Generator | None = None
        self._wakeup = threading.Event()
        self._stopping = threading.Event()
        self._silence = timedelta(seconds=settings.generation_heartbeat_s * SIGNS_OF_LIFE)

    def wake(self) -> None:
        self._wakeup.set()

    def stop(self) -> None:
        self._stopping.set()
        self._wakeup.set()

    def run(self) -> None:
        """Until stopped. Wakes by itself as well, for jobs that other workers left behind."""
        max_wait_s = self._settings.retry_backoff_max_s
        while not self._stopping.is_set():
            self._wakeup.clear()
            if not until_up_or_stopped("Drawing", self.draw_next, self._stopping, max_wait_s=max_wait_s):
                beat(self._settings.generation_heartbeat_s + USUAL_STEP_S)
                self._wakeup.wait(self._settings.generation_heartbeat_s)

    def draw_next(self) -> bool:
        """Take one job up and end it. False where none waits. Raises DependencyUnavailable; the job is then left."""
        with self._database.write() as session:
            job = claim_generation_job(session, utc_now() - self._silence)
        if job is None:
            return False
        if job.attempts > MAX_ATTEMPTS:
            self._finish(job, error=f"Its worker died {MAX_ATTEMPTS} times while drawing it.")
            return True
        with working_for([job.request_id]):
            self._draw_to_its_end(job)
        return True

    def _draw_to_its_end(self, job: JobRow) -> None:
        try:
            with self._heartbeat(job):
                pictures = self._draw(job)
            self._finish_if_stored(job, pictures)
        except JobLost:
            logger.info("Job %d was cancelled or taken over", job.job_id)
        except Stopping:
            self._give_back(job)
        except DependencyUnavailable:
            with suppress(DependencyUnavailable):  # else its heartbeat stops, and it counts as abandoned after a while
                self._give_back(job)
            raise
        except AppError as error:
            self._finish(job, error=error.detail)
        except Exception as error:
            logger.exception("Job %d failed unexpectedly", job.job_id)
            self._finish(job, error=f"The model failed: {error!r}")

    def _draw(self, job: JobRow) -> list[tuple[int, CheckedImage]]:
        """(seed, picture) of each one."""
        if self._generator is None:
            beat(LOADING_S)
            self._generator = load_generator(self._settings)
        request = GenerateRequest.model_validate(job.request)
        assert request.seed is not None, "the API chose one"
        pictures = []
        for position in range(request.num_images):
            seed = (request.seed + position) % (MAX_SEED + 1)

            def on_step(done: int, steps: int, position: int = position) -> None:
                beat(LONGEST_STEP_S)
                self._report(job, (position + done / steps) / request.num_images)

            beat(LONGEST_STEP_S)
            image = self._generator.draw(_draw_request(request, seed), on_step)
            notes = {"Software": f"Tuwen {VERSION}", "Model": self._generator.name}
            pictures.append((seed, encode_generated(image, notes | {"Prompt": request.prompt, "Seed": str(seed)})))
        return pictures

    def _report(self, job: JobRow, progress: float | None = None) -> None:
        if self._stopping.is_set():
            raise Stopping
        with suppress(DependencyUnavailable):  # a database that is away for a moment need not cost the drawing
            with self._database.write() as session:
                is_ours = report_on_job(session, job.job_id, job.attempts, progress)
            if not is_ours:
                raise JobLost

    @contextmanager
    def _heartbeat(self, job: JobRow) -> Iterator[None]:
        """Signs of life while a model loads or a single step takes long."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self._settings.generation_heartbeat_s):
                with suppress(Interrupted):  # the drawing thread finds out at its next step
                    self._report(job)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _give_back(self, job: JobRow) -> None:
        with self._database.write() as session:
            give_back_job(session, job.job_id, job.attempts)

    def _finish_if_stored(self, job: JobRow, pictures: list[tuple[int, CheckedImage]]) -> None:
        try:
            self._finish(job, pictures=pictures)
        except PictureUnreadable as error:  # given back, it would be drawn for ever, and nobody's job behind it
            self._images.check()  # raises where the whole store is away: then it waits
            logger.warning("A picture of job %d is not stored: %s", job.job_id, error.detail)
            self._finish(job, error=NOT_STORED)

    def _finish(
        self, job: JobRow, pictures: list[tuple[int, CheckedImage]] | None = None, error: str | None = None
    ) -> None:
        # Stored only now, under their hashes: a cancelled job leaves no file, a second attempt writes the same ones.
        for _, picture in pictures or []:
            beat()
            self._images.save(picture)
        rows = [
            GeneratedImageRow(
                job_id=job.job_id,
                position=position,
                seed=seed,
                image_path=self._images.path_of(picture),
                image_sha256=picture.sha256,
                image_width=picture.width,
                image_height=picture.height,
            )
            for position, (seed, picture) in enumerate(pictures or [])
        ]
        with self._database.write() as session:
            is_ours = finish_job(session, job.job_id, job.attempts, error=error, images=rows)
        if is_ours:
            for _, picture in pictures or []:
                self._images.save_if_gone(picture)
            logger.info("Job %d %s", job.job_id, f"failed: {error}" if error else "done")


def _draw_request(request: GenerateRequest, seed: int) -> DrawRequest:
    return DrawRequest(
        prompt=request.prompt,
        seed=seed,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        steps=request.steps,
        guidance=request.guidance,
    )


async def work(settings: Settings, *, bound_to_parent: bool) -> None:
    """Until SIGTERM, SIGINT, or, where bound to one, the parent's end. Raises AppError at a start that fails."""
    consumer = None if bound_to_parent else new_consumer(settings, settings.generation_topic, settings.generation_group)
    database = open_database(settings)
    worker = GenerationWorker(settings, database, open_image_store(settings, database))
    for signal_number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(signal_number, worker.stop)
    pulses = Pulses(settings.heartbeat_dir)
    presence = Presence(database, "generation", lambda: {"version": VERSION, "loops": pulses.overdue_s()})
    loops: dict[str, Loop] = {"presence": presence.run}
    if consumer is None:
        threading.Thread(target=_read_parent, args=[worker], name="parent", daemon=True).start()
    else:
        loops["wake-ups"] = partial(_wake_on_messages, worker, consumer, settings)
        logger.info("Consuming %s as one of %s", settings.generation_topic, settings.generation_group)
    try:
        async with running_loops(loops, pulses):
            with pulses.of("drawing"):
                await asyncio.to_thread(worker.run)
    finally:
        if consumer is not None:
            await consumer.close()
        database.close()


def _read_parent(worker: GenerationWorker) -> None:
    """Each line on standard input wakes; its end means that the parent is gone, however it went."""
    for _ in sys.stdin:
        worker.wake()
    worker.stop()


async def _wake_on_messages(worker: GenerationWorker, consumer: MessageConsumer, settings: Settings) -> None:
    """A transport that is down costs no job: the worker looks for jobs by itself as well."""
    while True:
        await until_up(
            "Waking up for new jobs", partial(consumer.next_batch, 100), max_wait_s=settings.retry_backoff_max_s
        )
        worker.wake()
        await consumer.commit()


if __name__ == "__main__":
    os.nice(NICENESS)
    settings = load_settings()
    configure_logging(settings.log_level)
    try:
        asyncio.run(work(settings, bound_to_parent=BOUND_TO_PARENT in sys.argv[1:]))
    except AppError as error:
        sys.exit(error.detail)

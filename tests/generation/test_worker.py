"""The worker that draws, without its process."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orm_models import GeneratedImageRow, JobRow, utc_now
from tests.tiny_models import (
    save_tiny_stable_diffusion,
)
from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.errors import ImageStoreUnavailable
from tuwen.generation.worker import GenerationWorker
from tuwen.pictures.store import NOT_STORED, ImageStore
from tuwen.settings import Settings

# diffusers' Euler scheduler makes a numpy array of a torch tensor in a way that numpy 2 wants otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[tuple[GenerationWorker, Database]]:
    """On a fresh database; its model is not there."""
    settings = Settings(
        _env_file=None, data_dir=tmp_path, generator_model=str(tmp_path / "none"), generation_heartbeat_s=0.05
    )
    database = open_database(settings)
    yield GenerationWorker(settings, database, ImageStore(settings, database.installation_id())), database
    database.close()


def add_job(database: Database, *, seed: int = 1, **columns: Any) -> int:
    request = {"prompt": "红色的沙发", "seed": seed, "num_images": 1}
    with database.write() as session:
        job = JobRow(kind="generate", request=request, **columns)
        session.add(job)
    return job.job_id


def job_of(database: Database, job_id: int) -> JobRow:
    with database.read() as session:
        return session.get_one(JobRow, job_id)


def test_a_job_that_killed_four_workers_fails_and_says_so(worker: tuple[GenerationWorker, Database]) -> None:
    drawing, database = worker
    long_ago = utc_now() - timedelta(hours=1)
    job_id = add_job(database, status="running", attempts=4, heartbeat_at=long_ago)
    assert drawing.draw_next()
    job = job_of(database, job_id)
    assert (job.status, job.error) == ("failed", "Its worker died 4 times while drawing it.")
    assert not drawing.draw_next()


def test_a_model_that_is_not_there_fails_the_job_with_its_reason(worker: tuple[GenerationWorker, Database]) -> None:
    drawing, database = worker
    job_id = add_job(database)
    assert drawing.draw_next()
    job = job_of(database, job_id)
    assert job.status == "failed"
    assert "GENERATOR_MODEL" in (job.error or "")


@pytest.mark.parametrize("is_loop", [False, True])
def test_a_picture_store_that_is_down_costs_no_attempt(tmp_path: Path, is_loop: bool) -> None:
    model = save_tiny_stable_diffusion(tmp_path / "model")
    settings = Settings(_env_file=None, data_dir=tmp_path, generator_model=str(model), generator_steps=1)
    database = open_database(settings)
    job_id = add_job(database)
    drawing = GenerationWorker(settings, database, ImageStore(settings, database.installation_id()))
    shutil.rmtree(tmp_path / "images", ignore_errors=True)
    if is_loop:  # each single picture can't be stored then
        (tmp_path / "images").symlink_to("images")
    else:
        (tmp_path / "images").write_text("a file where the folder should be")
    with pytest.raises(ImageStoreUnavailable):
        drawing.draw_next()
    job = job_of(database, job_id)
    assert (job.status, job.attempts) == ("queued", 0)
    (tmp_path / "images").unlink()
    (tmp_path / "images").mkdir()
    assert drawing.draw_next()
    assert job_of(database, job_id).status == "done"
    database.close()


def test_a_drawing_that_cannot_be_stored_fails_with_the_reason_and_holds_up_nobody(tmp_path: Path) -> None:
    model = save_tiny_stable_diffusion(tmp_path / "model")
    settings = Settings(_env_file=None, data_dir=tmp_path, generator_model=str(model), generator_steps=1)
    database = open_database(settings)
    drawing = GenerationWorker(settings, database, ImageStore(settings, database.installation_id()))
    add_job(database)
    assert drawing.draw_next()
    with database.read() as session:
        path = tmp_path / "images" / session.scalars(sa.select(GeneratedImageRow.image_path)).one()
    shutil.rmtree(path.parent)
    path.parent.write_text("a file where this picture's folder should be")
    refused, behind = add_job(database), add_job(database, seed=2)
    assert [drawing.draw_next(), drawing.draw_next(), drawing.draw_next()] == [True, True, False]
    job = job_of(database, refused)
    assert (job.status, job_of(database, behind).status) == ("failed", "done")
    assert job.error == NOT_STORED
    database.close()

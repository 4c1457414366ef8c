"""Jobs over HTTP, with the process that draws killed, cancelled and waited for."""

import io
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from data_models import ENDED
from tests.conftest import create_product, picture, wait_until_indexed
from tests.processes import running_api, wait_until
from tests.promises import require_in_time


@pytest.fixture(scope="module")
def studio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def studio(studio_folder: Path, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    """An embedded API whose generator is tiny, with a few products to be similar to."""
    settings: dict[str, Any] = {
        **tiny_models, "GENERATION_HEARTBEAT_S": 0.5, "GENERATION_QUEUE_SIZE": 30, "GENERATOR_MAX_SIDE": 256
    }  # fmt: skip
    with (
        running_api(studio_folder, **settings) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        for color in ("red", "green", "blue"):
            create_product(client, f"{color} sofa", picture(color))
        wait_until_indexed(client)
        yield client


def submit(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post("/generate", json={"prompt": "红色的沙发", "steps": 4, **body})
    assert response.status_code in (httpx.codes.ACCEPTED, httpx.codes.OK), response.text
    job: dict[str, Any] = response.json()
    return job


def read(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(job["status_url"]).raise_for_status().json()
    return found


def wait_until_ended(client: httpx.Client, *jobs: dict[str, Any], timeout_s: float = 60) -> list[dict[str, Any]]:
    for job in jobs:
        wait_until(
            lambda job=job: read(client, job)["status"] in ENDED,  # type: ignore[misc]
            timeout_s=timeout_s,
            what=f"job {job['job_id']} to end",
        )
    return [read(client, job) for job in jobs]


def drawing_processes(folder: Path) -> list[psutil.Process]:
    """Children of this module's API alone: their data lies in its folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("tuwen.generation.worker" in part for part in process.info["cmdline"] or []):
            try:
                mine = process.environ().get("DATA_DIR", "").startswith(str(folder))
            except psutil.Error:
                continue
            if mine:
                found.append(process)
    return found


def test_no_process_draws_before_the_first_job(studio: httpx.Client, studio_folder: Path) -> None:
    assert studio.get("/health").json()["status"] == "ok"
    assert drawing_processes(studio_folder) == []


def test_a_title_becomes_apicture(studio: httpx.Client) -> None:
    job = submit(studio, seed=5, num_images=2)
    assert job["status"] in ("queued", "running")
    [done] = wait_until_ended(studio, job)
    assert (done["status"], done["progress"], done["error"]) == ("done", 1, None)
    assert [image["seed"] for image in done["images"]] == [5, 6]
    for image in done["images"]:
        assert -1 <= image["agreement"] <= 1
        assert sorted(hit["product"]["title"] for hit in image["similar"]) == ["blue sofa", "green sofa", "red sofa"]
        scores = [hit["score"] for hit in image["similar"]]
        assert scores == sorted(scores, reverse=True)
        data = studio.get(image["image_url"]).raise_for_status().content
        opened = Image.open(io.BytesIO(data))
        opened.load()
        assert opened.size == (image["width"], image["height"]) == (64, 64)
        assert "trainedAlgorithmicMedia" in opened.info["XML:com.adobe.xmp"]
        assert opened.info["Prompt"] == "红色的沙发"
        assert studio.get(image["thumbnail_url"]).is_success


def test_the_same_seed_gives_the_same_file(studio: httpx.Client) -> None:
    first, again, other = wait_until_ended(studio, *(submit(studio, seed=seed) for seed in (11, 11, 12)))
    urls = [job["images"][0]["image_url"] for job in (first, again, other)]
    assert urls[0] == urls[1] != urls[2]


def test_wait_s_answers_with_the_result(studio: httpx.Client) -> None:
    response = studio.post("/generate", json={"prompt": "a sofa", "steps": 2, "wait_s": 30})
    assert response.status_code == httpx.codes.OK
    assert response.json()["status"] == "done"
    assert response.headers["location"] == response.json()["status_url"]


def test_events_tell_each_step_and_the_end(studio: httpx.Client) -> None:
    job = submit(studio, steps=60, num_images=2)
    names, progress = [], []
    with studio.stream("GET", job["events_url"]) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            elif line.startswith("data: "):
                progress.append(json.loads(line.removeprefix("data: "))["progress"])
    assert names[-1] == "done"
    assert set(names[:-1]) == {"progress"}
    assert progress == sorted(progress)
    assert any(0 < value < 1 for value in progress)
    assert studio.get("/generate/999999/events").status_code == httpx.codes.NOT_FOUND


def test_cancelling_stops_within_a_step(studio: httpx.Client) -> None:
    running = submit(studio, steps=100, width=256, height=256, num_images=4)
    queued = submit(studio)
    wait_until(lambda: read(studio, running)["progress"] > 0, what="the first step")
    for job in (queued, running):
        assert studio.delete(job["status_url"]).status_code == httpx.codes.NO_CONTENT
        assert read(studio, job)["status"] == "cancelled"
    assert studio.delete(running["status_url"]).status_code == httpx.codes.NO_CONTENT  # twice is no error
    started = time.monotonic()
    [after] = wait_until_ended(studio, submit(studio, steps=2))
    assert after["status"] == "done"
    require_in_time(time.monotonic() - started, 10)  # 400 steps of that size take far longer
    assert read(studio, running)["images"] == []
    assert studio.delete(after["status_url"]).status_code == httpx.codes.CONFLICT
    assert studio.delete("/generate/999999").status_code == httpx.codes.NOT_FOUND


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""), ("prompt", "   "), ("prompt", "沙" * 1001), ("prompt", "a\x00b"), ("width", 65), ("width", 264),
        ("height", 32), ("height", 1032), ("steps", 0), ("steps", 101), ("num_images", 0), ("num_images", 5),
        ("seed", -1), ("seed", 2**32), ("guidance", -1), ("guidance", "NaN"), ("wait_s", 61), ("negative_prompt", ""),
        ("colour", "red"),
    ],
)  # fmt: skip
def test_bad_input_names_its_field_and_stores_nothing(studio: httpx.Client, field: str, value: object) -> None:
    before = submit(studio, steps=1, wait_s=30)["job_id"]
    response = studio.post("/generate", json={"prompt": "a sofa", field: value})
    assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert submit(studio, steps=1, wait_s=30)["job_id"] == before + 1


def test_a_generated_picture_becomes_a_product_that_says_so(studio: httpx.Client) -> None:
    [job] = wait_until_ended(studio, submit(studio))
    form = {"title": "红色的沙发(设计稿)", "generated_image_id": str(job["images"][0]["image_id"])}
    created = studio.post("/product", data=form)
    product = created.json()
    assert created.status_code == httpx.codes.CREATED, created.text
    assert product["image_url"] == job["images"][0]["image_url"]
    assert product["image_is_generated"] is True
    uploaded = studio.get(product["image_url"]).content
    again = create_product(studio, "the same, as an upload", uploaded)
    assert again["image_is_generated"] is True  # the file says so itself
    assert create_product(studio, "a photograph", picture("white"))["image_is_generated"] is False
    for bad in ("999999", "x", "-1"):
        response = studio.post("/product", data=form | {"generated_image_id": bad})
        assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
        assert response.json()["errors"][0]["field"] == "generated_image_id"
    both = studio.post("/product", data=form, files={"image": ("x.png", picture("red"))})
    assert both.json()["errors"][0]["field"] == "generated_image_id"
    path = f"/product/{create_product(studio, 'a photograph', picture('gray'))['product_id']}"
    changed = studio.patch(path, data={"generated_image_id": form["generated_image_id"]}).json()
    assert (changed["image_url"], changed["image_is_generated"]) == (product["image_url"], True)
    search = studio.post("/search", data={"mode": "text_to_text", "text": "x", "generated_image_id": "1"})
    assert search.status_code == httpx.codes.UNPROCESSABLE_ENTITY  # not a field of a search, and not ignored
    studio.delete(path)
    for each in (product, again):
        studio.delete(f"/product/{each['product_id']}")


def test_killed_workers_are_replaced_and_no_job_is_lost_or_doubled(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    """The long form: LONG_TESTS=1 for 100 jobs and ten kills."""
    jobs_wanted, kills = (100, 10) if os.environ.get("LONG_TESTS") else (14, 2)
    rng = random.Random(0)
    settings: dict[str, Any] = {**tiny_models, "GENERATION_HEARTBEAT_S": 0.3, "GENERATION_QUEUE_PER_CLIENT": 100}
    with running_api(tmp_path, **settings) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        jobs = [submit(client, steps=10, seed=100 + number) for number in range(jobs_wanted)]
        for number in sorted(rng.sample(range(jobs_wanted - 1), kills)):
            wait_until(lambda number=number: read(client, jobs[number])["status"] != "queued", what="that job to begin")  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.3))  # anywhere in a job, not always at its start
            for process in drawing_processes(tmp_path):
                os.kill(process.pid, signal.SIGKILL)
        ended = wait_until_ended(client, *jobs, timeout_s=120)
        assert [job["status"] for job in ended] == ["done"] * jobs_wanted
        assert [[image["seed"] for image in job["images"]] for job in ended] == [[100 + n] for n in range(jobs_wanted)]
        shown = [job["images"][0]["image_url"] for job in ended]
    stored = [path for path in (tmp_path / "data" / "images").rglob("*.png") if "thumbnails" not in path.parts]
    below = tmp_path / "data" / "images"
    assert sorted(f"/images/{path.relative_to(below)}" for path in stored) == sorted(shown)


def test_a_full_queue_refuses_and_says_when_to_come_back(studio: httpx.Client) -> None:
    taken = [submit(studio, steps=100, width=256, height=256)]
    while True:
        response = studio.post("/generate", json={"prompt": "a sofa", "steps": 1})
        if response.status_code != httpx.codes.ACCEPTED:
            break
        taken.append(response.json())
        assert len(taken) < 40
    assert response.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["type"].endswith("queue-full")
    assert not any(map(str.isdigit, response.json()["detail"]))  # how many others wait
    for job in reversed(taken):
        studio.delete(job["status_url"])


def test_pictures_are_drawn_in_any_folder_and_shown_while_milvus_is_down(
    tmp_path: Path, tiny_models: dict[str, str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for module in ("tuwen", "random"):  # that folder's own modules are nobody's business
        (elsewhere / module).mkdir(parents=True)
        (elsewhere / module / "__init__.py").write_text("raise RuntimeError('of another project')")
    settings: dict[str, Any] = {**tiny_models, "MILVUS_URI": "http://127.0.0.1:9", "MILVUS_TIMEOUT_S": 0.5}
    with (
        running_api(tmp_path, ready_path="/openapi.json", cwd=str(elsewhere), **settings) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        [done] = wait_until_ended(client, submit(client, num_images=2))
        assert [image["similar"] for image in done["images"]] == [None, None]
        assert all(client.get(image["image_url"]).is_success for image in done["images"])


def test_the_process_that_draws_ends_with_the_api(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    """Even where the API is killed; its jobs go on with the next API."""
    settings: dict[str, Any] = {**tiny_models, "GENERATION_HEARTBEAT_S": 0.3, "GENERATION_QUEUE_PER_CLIENT": 100}
    with running_api(tmp_path, **settings) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        job = submit(client, steps=30, num_images=2, width=128, height=128)
        wait_until(lambda: read(client, job)["progress"] > 0, what="the first step")
        [drawing] = drawing_processes(tmp_path)
        os.kill(drawing.ppid(), signal.SIGKILL)
        wait_until(lambda: not drawing_processes(tmp_path), what="the drawing process to follow")
    with running_api(tmp_path, **settings) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        [done] = wait_until_ended(client, job, timeout_s=120)
        assert done["status"] == "done"
        assert len(done["images"]) == 2
    wait_until(lambda: not drawing_processes(tmp_path), what="the drawing process to stop with the API")

"""Fixtures that several test modules share: tiny models, a running API on the embedded default, pictures."""

import io
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pillow_heif
import pytest
from PIL import Image

from cli import DEMO_CATALOGUE
from clients import catalogue_import
from tests.processes import running_api, wait_until
from tests.secrecy import leaks
from tests.servers import running_kafka, running_mariadb, running_milvus, running_s3
from tests.tiny_models import (
    save_tiny_chinese_clip,
    save_tiny_chinese_stable_diffusion,
    save_tiny_sentence_model,
)

if TYPE_CHECKING:
    from tests.faults.steps import Steps

ROOM_OF_MARIADB = 2 * 2**30

pillow_heif.register_heif_opener()  # so that tests can write HEIC
# What nohup or a script's & started ignores SIGINT, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert leaks("\n".join(record.getMessage() for record in records), set()) == []


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings that choose tiny random models in the production formats."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "CLIP_MODEL": str(save_tiny_chinese_clip(folder / "clip")),
        "TEXT_MODEL": str(save_tiny_sentence_model(folder / "text")),
        "GENERATOR_MODEL": str(save_tiny_chinese_stable_diffusion(folder / "generator")),
    }


@pytest.fixture(scope="module")
def api_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's API keeps its log and, in `data`, everything else."""
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def api(api_folder: Path, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of an embedded API that a module's tests share."""
    with (
        running_api(api_folder, **tiny_models, IMAGE_MAX_PIXELS=4_000_000, UPLOAD_MAX_BYTES=1_000_000) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The embedded service with the demo models and all of the demo catalogue; tests leave it as it was."""
    with running_api(tmp_path_factory.mktemp("shop")) as url, catalogue_import.open_client(url) as client:
        items = catalogue_import.read_catalogue(DEMO_CATALOGUE)
        catalogue_import.load_catalogue(client, items, lambda _: None)
        assert catalogue_import.wait_until_indexed(client, lambda _: None) == len(items)
        yield client


def picture(
    color: str | tuple[int, int, int] = "red", size: tuple[int, int] = (64, 48), image_format: str = "PNG"
) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, image_format)
    return buffer.getvalue()


def create_product(client: httpx.Client, title: str, image: bytes | None = None, **fields: str) -> dict[str, Any]:
    """Through the API; the product as it answered."""
    files = {"image": ("picture.png", image or picture())}
    response = client.post("/product", data={"title": title, **fields}, files=files)
    assert response.status_code == httpx.codes.CREATED, response.text
    created: dict[str, Any] = response.json()
    return created


@contextmanager
def broken_picture(api_folder: Path, product: Mapping[str, Any]) -> Iterator[None]:
    """The end of the product's stored picture is cut off, until the block ends."""
    path = api_folder / "data" / str(product["image_url"]).removeprefix("/")
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    try:
        yield
    finally:
        path.write_bytes(whole)


def wait_until_indexed(client: httpx.Client, *, timeout_s: float = 60.0) -> None:
    def none_pending() -> bool:
        return bool(client.get("/product/list", params={"index_status": "pending"}).json()["total"] == 0)

    wait_until(none_pending, timeout_s=timeout_s, what="all products to be indexed")


@pytest.fixture(scope="session")
def steps(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> "Iterator[Steps]":
    """What kills or pauses work between two steps; it has loaded the models."""
    from tests.faults.steps import Steps  # noqa: PLC0415  # which imports from here

    running = Steps(tiny_models, tmp_path_factory.mktemp("steps") / "log")
    yield running
    running.close()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """In memory, where there is room: a hundred tests make a database of their own there, and none cuts the power."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > ROOM_OF_MARIADB
    beside = memory if has_room else tmp_path_factory.mktemp("mariadb")
    with tempfile.TemporaryDirectory(dir=beside) as folder, running_mariadb(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_kafka(tmp_path_factory.mktemp("kafka")) as servers:
        yield servers


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_milvus(tmp_path_factory.mktemp("milvus")) as address:
        yield address


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_s3(tmp_path_factory.mktemp("s3")) as address:
        yield address

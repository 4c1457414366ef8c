"""Fixtures that several test modules share: tiny models, a running API on the embedded default, pictures."""

import io
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.processes import running_api, wait_until
from tests.tiny_models import save_tiny_chinese_clip, save_tiny_sentence_model


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings that choose tiny random models in the production formats."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "CLIP_MODEL": str(save_tiny_chinese_clip(folder / "clip")),
        "TEXT_MODEL": str(save_tiny_sentence_model(folder / "text")),
    }


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of an embedded API that a module's tests share."""
    with (
        running_api(tmp_path_factory.mktemp("api"), **tiny_models) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        yield client


def picture(color: str = "red", size: tuple[int, int] = (64, 48), image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, image_format)
    return buffer.getvalue()


def create_product(client: httpx.Client, title: str, image: bytes | None = None, **fields: str) -> dict[str, object]:
    """Through the API; the product as it answered."""
    files = {"image": ("picture.png", image or picture())}
    response = client.post("/product", data={"title": title, **fields}, files=files)
    assert response.status_code == httpx.codes.CREATED, response.text
    created: dict[str, object] = response.json()
    return created


def wait_until_indexed(client: httpx.Client, *, timeout_s: float = 30.0) -> None:
    def none_pending() -> bool:
        return bool(client.get("/product/list", params={"index_status": "pending"}).json()["total"] == 0)

    wait_until(none_pending, timeout_s=timeout_s, what="all products to be indexed")

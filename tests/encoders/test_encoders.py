"""The real loading code on tiny models in the real formats, and the errors of models that can't be had."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nlp_models import load_encoders
from tests.tiny_models import save_tiny_chinese_clip, save_tiny_sentence_model
from tuwen.encoders.base import Encoders
from tuwen.encoders.picture import prepare_picture
from tuwen.errors import ModelUnavailable
from tuwen.settings import Settings


@pytest.fixture(scope="module")
def encoders(tiny_models: dict[str, str]) -> Encoders:
    return load_encoders(_settings(tiny_models))


def _settings(models: dict[str, str], **changes: str) -> Settings:
    values: dict[str, Any] = {name.lower(): value for name, value in models.items()} | changes
    return Settings(_env_file=None, **values)


def test_vectors_are_float32_unit_rows_of_one_dimension(encoders: Encoders) -> None:
    images = [Image.new("RGB", (50, 30), "red"), Image.new("L", (10, 90)), Image.new("P", (7, 7))]
    for rows, dim in (
        (encoders.clip.encode_images(images), encoders.clip.dim),
        (encoders.clip.encode_texts(["红色沙发", "chair", "很长" * 300]), encoders.clip.dim),
        (encoders.text.encode_texts(["红色沙发", "chair", "很长" * 300]), encoders.text.dim),
    ):
        assert rows.shape == (3, dim)
        assert rows.dtype == np.float32
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_batch_gives_what_single_items_give(encoders: Encoders) -> None:
    texts = ["红色布艺沙发", "a", "蓝色木椅 现代简约"]
    together = encoders.clip.encode_texts(texts)
    alone = np.concatenate([encoders.clip.encode_texts([text]) for text in texts])
    assert np.allclose(together, alone, atol=1e-5)


def test_the_fingerprint_tells_other_weights_apart(tiny_models: dict[str, str], tmp_path: Path) -> None:
    same = load_encoders(_settings(tiny_models)).fingerprint
    assert same == load_encoders(_settings(tiny_models)).fingerprint
    other_clip = str(save_tiny_chinese_clip(tmp_path / "other", seed=1))
    assert load_encoders(_settings(tiny_models, clip_model=other_clip)).fingerprint != same


def test_transparent_margins_go_and_nothing_of_the_product_is_cut() -> None:
    image = Image.new("RGBA", (100, 60), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (10, 20, 50, 40))
    prepared = prepare_picture(image, pad_to_square=True)
    assert (prepared.mode, prepared.size) == ("RGB", (40, 40))
    assert prepared.getpixel((20, 2)) == (255, 255, 255)
    assert prepared.getpixel((20, 20)) == (255, 0, 0)
    assert prepare_picture(image, pad_to_square=False).size == (40, 20)


@pytest.mark.parametrize("setting", ["clip_model", "text_model"])
@pytest.mark.parametrize(
    ("value", "hub", "reason"),
    [
        ("/nowhere/at-all", "huggingface", "no such folder"),
        ("just-a-name", "huggingface", "no such folder"),
        ("owner/name", "none", "MODEL_HUB=none"),
    ],
)
def test_a_model_that_cannot_be_had_names_its_setting(
    tiny_models: dict[str, str], setting: str, value: str, hub: str, reason: str
) -> None:
    with pytest.raises(ModelUnavailable, match=reason) as failure:
        load_encoders(_settings(tiny_models, **{setting: value, "model_hub": hub}))
    assert setting.upper() in failure.value.detail


@pytest.mark.parametrize(("setting", "other"), [("clip_model", save_tiny_sentence_model), ("text_model", None)])
def test_a_folder_of_another_kind_is_a_clear_error(
    tiny_models: dict[str, str], tmp_path: Path, setting: str, other: object
) -> None:
    folder = tmp_path / "model"
    if callable(other):
        other(folder)
    else:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match=setting.upper()):
        load_encoders(_settings(tiny_models, **{setting: str(folder)}))


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
def test_an_unreachable_hub_is_a_clear_error_and_no_hang(
    tiny_models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: str
) -> None:
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match=f"CLIP_MODEL=nobody/nothing can't be had from {hub}"):
        load_encoders(_settings(tiny_models, clip_model="nobody/nothing", model_hub=hub))

"""The real loading code on tiny models in the real formats, and the errors of models that can't be had."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from nlp_models import load_encoders
from tests.processes import EXPORTS
from tests.tiny_models import (
    save_tiny_chinese_clip,
    save_tiny_naflex,
    save_tiny_sentence_model,
    save_tiny_siglip,
)
from tuwen.encoders.base import Encoders
from tuwen.encoders.device import choose_device
from tuwen.encoders.picture import prepare_picture
from tuwen.encoders.transformers_clip import TransformersClip
from tuwen.errors import ModelUnavailable
from tuwen.settings import Settings


@pytest.fixture(scope="module")
def encoders(tiny_models: dict[str, str]) -> Encoders:
    return load_encoders(_settings(tiny_models))


def _settings(models: dict[str, str], **changes: str) -> Settings:
    """By torch: conversion, which takes seconds each, is `test_exports.py`'s."""
    values: dict[str, Any] = {name.lower(): value for name, value in models.items()}
    values |= {"encoder_backend": "torch", "encoder_cache_dir": EXPORTS} | changes
    return Settings(_env_file=None, **values)


def test_vectors_are_float32_unit_rows_of_one_dimension(encoders: Encoders) -> None:
    images = [Image.new("RGB", (50, 30), "red"), Image.new("L", (10, 90)), Image.new("P", (7, 7))]
    for rows, dim in (
        (encoders.clip.encode_images(images), encoders.clip.dim),
        (encoders.clip.encode_texts(["红色沙发", "chair", "很长" * 300]), encoders.clip.dim),
        (encoders.text.encode_documents(["红色沙发", "chair", "很长" * 300]), encoders.text.dim),
    ):
        assert rows.shape == (3, dim)
        assert rows.dtype == np.float32
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_batch_gives_what_single_items_give(tiny_models: dict[str, str]) -> None:
    clip = TransformersClip(Path(tiny_models["CLIP_MODEL"]), "cpu")
    texts = ["红色布艺沙发", "a", "蓝色木椅 现代简约"]
    together = clip.encode_texts(texts)
    alone = np.concatenate([clip.encode_texts([text]) for text in texts])
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("save", [save_tiny_siglip, save_tiny_naflex])
def test_siglip_gives_a_text_one_vector_whatever_stands_beside_it(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    clip = TransformersClip(save(tmp_path / "siglip"), "cpu")
    alone, together = clip.encode_texts(["红沙发"]), clip.encode_texts(["红沙发", "蓝色木椅现代简约" * 3])
    assert np.allclose(alone[0], together[0], atol=1e-5)
    assert alone[0] @ together[1] < 0.999


def test_naflex_takes_pictures_of_any_proportions_together(tmp_path: Path) -> None:
    clip = TransformersClip(save_tiny_naflex(tmp_path / "naflex"), "cpu")
    wide, high = _halves((96, 32)), _halves((32, 96))
    together = clip.encode_images([wide, high])
    alone = np.concatenate([clip.encode_images([wide]), clip.encode_images([high])])
    assert np.allclose(together, alone, atol=1e-5)


def _halves(size: tuple[int, int]) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    picture.paste("black", (0, 0, size[0] // 2, size[1]))
    return picture


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_model_that_looks_at_padding_is_refused(tiny_models: dict[str, str], tmp_path: Path, backend: str) -> None:
    """A BERT whose tokenizer gives no mask takes padding for text."""
    folder = save_tiny_sentence_model(tmp_path / "text")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_input_names": ["input_ids"]}))
    with pytest.raises(ModelUnavailable, match=r"TEXT_MODEL: .*another vector than alone .*set TEXT_MODEL to another"):
        load_encoders(_settings(tiny_models, text_model=str(folder), encoder_backend=backend))


def test_a_model_whose_vectors_are_not_finite_is_refused(tiny_models: dict[str, str], tmp_path: Path) -> None:
    folder = save_tiny_chinese_clip(tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"CLIP_MODEL: .*not finite"):
        load_encoders(_settings(tiny_models, clip_model=str(folder)))


@pytest.mark.parametrize("device", ["banana", "cuda:77", "meta"])
def test_a_device_that_is_not_there_is_named_by_its_setting(tiny_models: dict[str, str], device: str) -> None:
    with pytest.raises(ModelUnavailable, match=rf"^MODEL_DEVICE={device}: torch can't compute there \("):
        load_encoders(_settings(tiny_models, model_device=device))
    with pytest.raises(ModelUnavailable, match=rf"^GENERATOR_DEVICE={device}: "):
        choose_device(device, "GENERATOR_DEVICE")


@pytest.mark.parametrize("changes", [{"encoder_backend": "openvino"}, {"encoder_precision": "int8"}])
def test_what_no_gpu_computes_is_refused_beside_one(tiny_models: dict[str, str], changes: dict[str, str]) -> None:
    with pytest.raises(ModelUnavailable, match=r"^MODEL_DEVICE=cuda: .* on the processor alone\. Set MODEL_DEVICE=cpu"):
        load_encoders(_settings(tiny_models, model_device="cuda", **changes))


def test_a_missing_package_is_named(tiny_models: dict[str, str], tmp_path: Path) -> None:
    """SigLIP's first tokenizer wants sentencepiece, which the requirements leave out."""
    folder = save_tiny_siglip(tmp_path / "siglip")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").touch()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    with pytest.raises(ModelUnavailable, match=r"CLIP_MODEL: .*package .*(?i:sentencepiece).*install it, or set"):
        load_encoders(_settings(tiny_models, clip_model=str(folder)))


@pytest.mark.parametrize("setting", ["clip_model", "text_model"])
def test_code_that_a_model_brings_is_not_run(tiny_models: dict[str, str], tmp_path: Path, setting: str) -> None:
    ran = tmp_path / "ran"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "of-its-own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}})
    )
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nConfig = Model = object\n")
    with pytest.raises(ModelUnavailable, match=f"{setting.upper()}: .*code of its own, which is never run"):
        load_encoders(_settings(tiny_models, **{setting: str(folder)}))
    assert not ran.exists()


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


@pytest.mark.parametrize("setting", ["clip_model", "text_model"])
def test_a_folder_that_is_no_model_is_refused_before_it_is_read(
    tiny_models: dict[str, str], tmp_path: Path, setting: str
) -> None:
    with (tmp_path / "disk.bin").open("wb") as file:
        file.truncate(2**40)  # takes no room, and an hour to be read
    for model in (tmp_path, tmp_path / "disk.bin"):
        with pytest.raises(ModelUnavailable, match=f"{setting.upper()}={model}: there is no model"):
            load_encoders(_settings(tiny_models, **{setting: str(model)}))


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

"""FG-CLIP 2 in its makers' files: each name, and each number by its formulas. Their weights are not at hand."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from nlp_models import load_encoders
from tests.fg_clip import (
    CONFIG,
    CONFIG_DIGEST,
    FILE_BYTES,
    PARAMETERS,
    PREPROCESSOR,
    PREPROCESSOR_DIGEST,
    Formulas,
    as_file,
    save_tiny_fg_clip,
    shapes_of,
)
from tests.processes import EXPORTS
from tuwen.encoders.base import Embeddings
from tuwen.encoders.fg_clip import UNUSED, FgClip, FgClip2, open_clip, patch_budget
from tuwen.encoders.self_test import require_sound_clip
from tuwen.errors import ModelUnavailable
from tuwen.settings import Settings

# With the end, 64 tokens and 65: a character is one, and spaces are, too.
JUST_SHORT, JUST_LONG = "红" * 63, "红" * 64
TEXTS = ["红色布艺沙发", "ABC", JUST_SHORT, JUST_LONG, "蓝色木椅 " * 30, "灰" * 300]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_fg_clip(tmp_path_factory.mktemp("models") / "fg-clip2")


@pytest.fixture(scope="module")
def clip(folder: Path) -> FgClip:
    clip = open_clip(folder, "cpu")
    assert isinstance(clip, FgClip)
    return clip


@pytest.fixture(scope="module")
def formulas(folder: Path) -> Formulas:
    return Formulas(load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text()))


def _unit(features: torch.Tensor) -> Embeddings:
    unit: Embeddings = (features / features.norm()).float().numpy()
    return unit


def _noise(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def test_the_layout_is_the_published_one_to_the_byte() -> None:
    """The hub's digests of its two configurations, its count of parameters, and the size of its file of weights."""
    for configuration, digest in ((CONFIG, CONFIG_DIGEST), (PREPROCESSOR, PREPROCESSOR_DIGEST)):
        content = as_file(configuration).encode()
        assert hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest() == digest  # as git does
    shapes = shapes_of(CONFIG)
    assert sum(map(math.prod, shapes.values())) == PARAMETERS
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):
        begin, end = end, end + 4 * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    assert 8 + (length + 7) // 8 * 8 + end == FILE_BYTES


def test_the_network_has_the_published_names_and_shapes() -> None:
    towers = (CONFIG["text_config"], CONFIG["vision_config"])
    text, vision = ({name: value for name, value in each.items() if name != "model_type"} for each in towers)
    with torch.device("meta"):
        model = FgClip2(transformers.Siglip2Config(text_config=text, vision_config=vision))
    published = {name: shape for name, shape in shapes_of(CONFIG).items() if not name.startswith(UNUSED)}
    assert {name: tuple(weight.shape) for name, weight in model.state_dict().items()} == published
    assert (model.short_len, model.keep_len, model.long_len) == (64, 20, 196)


def test_texts_are_what_the_formulas_give(folder: Path, clip: FgClip, formulas: Formulas) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, vector in zip(TEXTS, clip.encode_texts(TEXTS), strict=True):
        ids = tokenizer.encode(text.lower()).ids
        if len(ids) <= 64:
            expected = formulas.short_text(ids)
        else:
            expected = formulas.long_text([*ids[: min(len(ids), 196) - 1], ids[-1]])  # what is cut off has its end, too
        assert np.allclose(vector, _unit(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((96, 64), (9, 14)), ((256, 256), (16, 16)), ((640, 240), (17, 46)), ((1000, 900), (30, 34))],
)
def test_pictures_are_what_the_formulas_give(
    clip: FgClip, formulas: Formulas, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    picture = _noise(*size)
    assert clip.prepare(picture)["spatial_shapes"].tolist() == [list(grid)]
    assert np.allclose(clip.encode_images([picture])[0], _unit(formulas.picture(picture, *grid)), atol=1e-5)


def test_each_gets_one_vector_whatever_stands_beside_it(clip: FgClip) -> None:
    pictures = [_noise(96, 64), _noise(1000, 900), _noise(64, 96), _noise(1, 300), _noise(640, 240)]
    _require_same_and_apart(clip.encode_images(pictures), [clip.encode_images([picture]) for picture in pictures])
    _require_same_and_apart(clip.encode_texts(TEXTS), [clip.encode_texts([text]) for text in TEXTS])
    require_sound_clip(clip)


def _require_same_and_apart(together: Embeddings, alone: list[Embeddings]) -> None:
    assert np.allclose(together, np.concatenate(alone), atol=1e-5)
    assert np.triu(together @ together.T, 1).max() < 0.999


def test_capitals_make_no_difference(clip: FgClip) -> None:
    assert np.array_equal(clip.encode_texts(["ABC 沙发"]), clip.encode_texts(["abc 沙发"]))


def test_texts_are_padded_as_in_training(clip: FgClip) -> None:
    assert {*clip.tokenize(TEXTS[:3])} == {"input_ids"}
    assert clip.tokenize(TEXTS[:3])["input_ids"].shape == (3, 64)
    assert clip.tokenize(["ab"])["input_ids"][0, 2:].tolist() == [1, *[0] * 61]
    assert clip.tokenize(TEXTS[3:])["input_ids"].shape == (3, 196)


@pytest.mark.parametrize(
    ("size", "patches"),
    [
        ((15, 900), 128),
        ((128, 256), 128),
        ((144, 240), 256),
        ((272, 256), 576),
        ((400, 384), 784),
        ((463, 463), 784),
        ((464, 464), 1024),
    ],
)
def test_a_picture_gets_as_many_patches_as_the_model_card_says(size: tuple[int, int], patches: int) -> None:
    assert patch_budget(*size, 16) == patches


def _settings(models: dict[str, str], folder: Path, **changes: str) -> Settings:
    values: dict[str, Any] = {name.lower(): value for name, value in models.items()}
    values |= {"clip_model": str(folder), "encoder_backend": "torch", "encoder_cache_dir": EXPORTS} | changes
    return Settings(_env_file=None, **values)


def test_it_is_loaded_like_any_other_and_its_code_is_not_run(tiny_models: dict[str, str], folder: Path) -> None:
    encoders = load_encoders(_settings(tiny_models, folder))
    assert isinstance(encoders.clip, FgClip)
    assert encoders.clip.dim == 64


def test_what_openvino_does_not_compute_is_refused(tiny_models: dict[str, str], folder: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"ENCODER_BACKEND=openvino can't run it \(its picture processor, Sigl"):
        load_encoders(_settings(tiny_models, folder, encoder_backend="openvino"))


def test_weights_in_several_files_and_of_less_precision(tmp_path: Path, clip: FgClip) -> None:
    split = save_tiny_fg_clip(tmp_path / "split")
    weights = load_file(split / "model.safetensors")
    (split / "model.safetensors").unlink()
    weight_map = {name: f"model-{number % 2 + 1:05}-of-00002.safetensors" for number, name in enumerate(weights)}
    for file in set(weight_map.values()):
        part = {name: weights[name].bfloat16() for name in weights if weight_map[name] == file}
        save_file(part, split / file)
    (split / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert (FgClip(split, "cpu").encode_texts(TEXTS) * clip.encode_texts(TEXTS)).sum(1).min() > 0.999


def test_other_weights_beside_the_models_are_not_taken(tmp_path: Path, clip: FgClip) -> None:
    folder = save_tiny_fg_clip(tmp_path / "fg-clip2")
    others = {name: torch.zeros_like(weight) for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(others, folder / "model_ema.safetensors")
    assert (FgClip(folder, "cpu").encode_texts(TEXTS) * clip.encode_texts(TEXTS)).sum(1).min() > 0.9999


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"longtext_head.bias": None}, r"1 missing \(longtext_head\.bias\)"),
        ({"text_model.extra": torch.zeros(1)}, r"1 unknown \(text_model\.extra\)"),
        ({"vision_model.head.probe": torch.zeros(1, 2, 64)}, r"1 of another shape \(vision_model\.head\.probe\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_sentence(
    tiny_models: dict[str, str], tmp_path: Path, changes: dict[str, torch.Tensor | None], complaint: str
) -> None:
    folder = save_tiny_fg_clip(tmp_path / "fg-clip2")
    weights = load_file(folder / "model.safetensors") | changes
    kept = {name: weight for name, weight in weights.items() if weight is not None}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(ModelUnavailable, match=rf"^CLIP_MODEL: .*not those of an FG-CLIP 2 .*{complaint}; set CLIP"):
        load_encoders(_settings(tiny_models, folder))


def test_without_weights_it_is_refused(tiny_models: dict[str, str], tmp_path: Path) -> None:
    folder = save_tiny_fg_clip(tmp_path / "fg-clip2")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"CLIP_MODEL: .*no model\.safetensors"):
        load_encoders(_settings(tiny_models, folder))

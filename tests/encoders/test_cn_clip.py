"""Original cn_clip checkpoints: the same vectors as from the same weights in transformers format, and as from cn_clip.

Most need the extra of requirements-cn-clip.txt and run in the environment that its head describes.
"""

import importlib.util
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    ChineseCLIPProcessor,
)

from nlp_models import load_encoders
from tuwen.encoders.base import Embeddings, ImageTextEncoder
from tuwen.encoders.picture import prepare_picture
from tuwen.errors import ModelUnavailable
from tuwen.settings import Settings

StateDict: TypeAlias = dict[str, torch.Tensor]

RESOLUTION = 64
LAYERS = 2
HIDDEN = 128
HEADS = 2
TEXT_INTERMEDIATE = 256
DIM = 48
TOLERANCE = 1e-4

VIT = {"vision_width": HIDDEN, "vision_layers": LAYERS, "vision_patch_size": 16}
# The width of ViT-H-14, whose heads are 80 wide and not 64.
VIT_H = {"vision_width": 1280, "vision_layers": 1, "vision_patch_size": 32, "vision_head_width": 80}
RESNET = {"vision_width": 8, "vision_layers": (2, 1, 3, 1), "vision_patch_size": None}
TEXT = {
    "text_attention_probs_dropout_prob": 0.1,
    "text_hidden_act": "gelu",
    "text_hidden_dropout_prob": 0.1,
    "text_hidden_size": HIDDEN,
    "text_initializer_range": 0.02,
    "text_intermediate_size": TEXT_INTERMEDIATE,
    "text_max_position_embeddings": 512,
    "text_num_attention_heads": HEADS,
    "text_num_hidden_layers": LAYERS,
    "text_type_vocab_size": 2,
}

TEXTS = [
    "沙发",
    "红色布艺沙发，北欧风格 2米8",
    "A three-seat sofa in Red fabric",
    "Café table “Ｎｏ．３” ＆ 椅子　两把",
    "现代简约实木餐桌" * 12,
    "solid oak dining table with extension leaf " * 12,
]

# cn_clip's names, and the same weights' names in transformers; after transformers'
# models/chinese_clip/convert_chinese_clip_original_pytorch_to_hf.py.
TRANSFORMERS_NAMES = [
    (r"^bert\.", "text_model."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"\.attn\.", ".self_attn."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
]
TRANSPOSED = ("visual.proj", "text_projection")


@pytest.fixture(scope="session")
def cn_clip() -> Any:
    """The package's `clip` module."""
    return pytest.importorskip("cn_clip.clip", reason="cn_clip is not installed: see requirements-cn-clip.txt")


@pytest.fixture
def load_clip(tiny_models: dict[str, str]) -> Callable[[Path], ImageTextEncoder]:
    """Through the settings, as the service loads it."""

    def load(path: Path) -> ImageTextEncoder:
        text_model = tiny_models["TEXT_MODEL"]
        settings = Settings(clip_model=str(path), text_model=text_model, model_hub="none", model_device="cpu")
        return load_encoders(settings).clip

    return load


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_agrees_with_the_same_weights_in_transformers_format(
    cn_clip: Any, load_clip: Callable[[Path], ImageTextEncoder], tmp_path: Path, prefix: str
) -> None:
    state = _as_released(_random_model(cn_clip, VIT).state_dict())
    original = load_clip(_save_checkpoint(tmp_path / "clip_cn.pt", state, prefix))
    converted = load_clip(_save_in_transformers_format(tmp_path / "converted", state, cn_clip))

    assert original.dim == converted.dim == DIM
    _assert_same(original.encode_images(_pictures()), converted.encode_images(_pictures()))
    _assert_same(original.encode_texts(TEXTS), converted.encode_texts(TEXTS))


@pytest.mark.parametrize("vision", [VIT, VIT_H, RESNET], ids=["vit", "vit-h", "resnet"])
def test_agrees_with_cn_clip_itself(
    cn_clip: Any, load_clip: Callable[[Path], ImageTextEncoder], tmp_path: Path, vision: dict[str, Any]
) -> None:
    model = _random_model(cn_clip, vision)
    state = _as_released(model.state_dict())
    model.load_state_dict(state)
    loaded = load_clip(_save_checkpoint(tmp_path / "epoch_latest.pt", state, "module."))

    transform = cn_clip.image_transform(RESOLUTION)
    pixels = torch.stack([transform(prepare_picture(picture, pad_to_square=False)) for picture in _pictures()])
    with torch.inference_mode():
        image_features, text_features, _ = model(pixels, cn_clip.tokenize(TEXTS))
    _assert_same(loaded.encode_images(_pictures()), image_features.numpy())
    _assert_same(loaded.encode_texts(TEXTS), text_features.numpy())


def test_a_text_counts_up_to_52_tokens(
    cn_clip: Any, load_clip: Callable[[Path], ImageTextEncoder], tmp_path: Path
) -> None:
    state = _as_released(_random_model(cn_clip, VIT).state_dict())
    loaded = load_clip(_save_checkpoint(tmp_path / "clip_cn.pt", state, "module."))
    # [CLS] and [SEP] take two of the 52.
    full, longer, shorter = loaded.encode_texts(["沙" * 50, "沙" * 50 + "桌" * 450, "沙" * 49])
    np.testing.assert_allclose(full, longer, atol=1e-6)
    assert np.abs(full - shorter).max() > 1e-6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "isn't a PyTorch file", id="empty"),
        pytest.param(b"<html>404</html>", "isn't a PyTorch file", id="web page"),
        pytest.param(b"\x80\x02.", "isn't a PyTorch file", id="empty pickle"),
        pytest.param(Path("x"), "isn't a PyTorch file", id="pickled object"),
        pytest.param({"visual.conv1.weight": torch.zeros(2)}, "no 'state_dict'", id="bare weights"),
        pytest.param({"state_dict": 3}, "no 'state_dict'", id="no weights"),
        pytest.param({"state_dict": {}}, "no 'visual.conv1.weight'", id="no pictures"),
    ],
)
def test_a_file_of_another_layout_is_one_clear_error(
    cn_clip: Any, load_clip: Callable[[Path], ImageTextEncoder], tmp_path: Path, content: object, reason: str
) -> None:
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelUnavailable, match=f"CLIP_MODEL.*{reason}"):
        load_clip(path)


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("bert.embeddings.word_embeddings.weight", (30522, HIDDEN), "vocabulary has 30522 words"),
        ("visual.positional_embedding", (16, HIDDEN), "15 picture positions are no square"),
        ("visual.conv1.weight", (100, 3, 16, 16), "picture tower is 100 wide"),
        ("visual.conv1.weight", (HIDDEN, 3), "not one of 4 dimensions"),
        ("visual.ln_post.weight", (HIDDEN + 1,), "don't fit cn_clip's model"),
        ("visual.extra.weight", (1,), "don't fit cn_clip's model"),
    ],
)
def test_weights_that_do_not_fit_are_one_clear_error(
    cn_clip: Any,
    load_clip: Callable[[Path], ImageTextEncoder],
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...],
    reason: str,
) -> None:
    state = _random_model(cn_clip, VIT).state_dict() | {name: torch.zeros(shape)}
    with pytest.raises(ModelUnavailable, match=f"CLIP_MODEL.*{reason}"):
        load_clip(_save_checkpoint(tmp_path / "other.pt", state, "module."))


@pytest.mark.skipif(importlib.util.find_spec("cn_clip") is not None, reason="cn_clip is installed")
def test_without_cn_clip_the_error_names_the_setting_and_the_extra(
    load_clip: Callable[[Path], ImageTextEncoder], tmp_path: Path
) -> None:
    path = tmp_path / "clip_cn_vit-b-16.pt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ModelUnavailable, match=r"CLIP_MODEL=.*cn_clip can't be imported.*requirements-cn-clip\.txt"):
        load_clip(path)


def _random_model(cn_clip: Any, vision: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    vocab_size = len(cn_clip._tokenizer.vocab)
    model = cn_clip.model.CLIP(DIM, image_resolution=RESOLUTION, vocab_size=vocab_size, **vision, **TEXT).eval()
    # Fresh biases and some of ResNet's scales are zero, and would hide a mistake.
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def _as_released(state: StateDict) -> StateDict:
    """The files hold float16; both sides of a comparison get the rounded weights."""
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _save_checkpoint(path: Path, state: StateDict, prefix: str) -> Path:
    """As cn_clip/training/main.py saves it, with the unused pooler that some files still carry."""
    state = state | {"bert.pooler.dense.weight": torch.zeros(HIDDEN, HIDDEN)}
    torch.save({"epoch": 1, "step": 9, "name": "x", "state_dict": {prefix + k: v for k, v in state.items()}}, path)
    return path


def _save_in_transformers_format(folder: Path, state: StateDict, cn_clip: Any) -> Path:
    layers = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    vocabulary = cn_clip._tokenizer.vocab
    config = ChineseCLIPConfig(
        text_config={**layers, "intermediate_size": TEXT_INTERMEDIATE, "vocab_size": len(vocabulary)},
        vision_config={**layers, "intermediate_size": 4 * HIDDEN, "image_size": RESOLUTION, "patch_size": 16},
        projection_dim=DIM,
    )
    model = ChineseCLIPModel(config)
    model.load_state_dict(_in_transformers_names(state))
    model.save_pretrained(folder)
    shutil.copy(Path(cn_clip.__file__).with_name("vocab.txt"), folder)
    size = {"height": RESOLUTION, "width": RESOLUTION}
    image_processor = ChineseCLIPImageProcessorPil(size=size, do_center_crop=False)
    processor = ChineseCLIPProcessor(image_processor, BertTokenizer.from_pretrained(folder))  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)
    return folder


def _in_transformers_names(state: StateDict) -> StateDict:
    renamed: StateDict = {}
    for name, tensor in state.items():
        new_name = name
        for pattern, replacement in TRANSFORMERS_NAMES:
            new_name = re.sub(pattern, replacement, new_name)
        if ".in_proj_" in new_name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[new_name.replace(".in_proj_", f".{letter}_proj.")] = part
        else:
            renamed[new_name] = tensor.T if name in TRANSPOSED else tensor
    return renamed


def _pictures() -> list[Image.Image]:
    """Noise of various shapes and modes, one in a transparent frame."""
    random = np.random.default_rng(0)

    def noise(*shape: int) -> Image.Image:
        return Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))

    framed = Image.new("RGBA", (200, 120))
    framed.paste(noise(60, 90, 4), (30, 20))
    sizes: Sequence[tuple[int, int]] = [(RESOLUTION, RESOLUTION), (300, 150), (90, 401), (17, 23)]
    smooth = noise(5, 3, 3).resize((640, 480), Image.Resampling.BICUBIC)
    return [*(noise(height, width, 3) for width, height in sizes), noise(70, 50), smooth, framed]


def _assert_same(some: Embeddings, others: NDArray[np.float32]) -> None:
    assert some.dtype == np.float32
    assert some.shape == others.shape
    np.testing.assert_allclose(np.linalg.norm(some, axis=1), 1, atol=1e-5)
    # Else equal rows could hide that pictures or texts never reach the model.
    assert np.ptp(some, axis=0).max() > 10 * TOLERANCE
    assert np.abs(some - others).max() < TOLERANCE

"""The optional loader of original `cn_clip` checkpoints (`.pt`): the files of OFA's hub and of cn_clip's own training.

The only importer of cn_clip, which `requirements-cn-clip.txt` installs. The architecture is read off the shapes of the
weights, so that no model name has to be given. Sources named below are files of cn_clip 1.6.0 (github.com/OFA-Sys/
Chinese-CLIP).
"""

import math
import pickle
import re
import struct
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from cn_clip.clip import _tokenizer, image_transform, tokenize
from cn_clip.clip.model import CLIP
from PIL import Image

from tuwen.encoders.base import CHINESE_CLIP_CONTEXT, Embeddings, ImageTextEncoder, PreparedPicture, unit_rows
from tuwen.encoders.picture import prepare_picture

StateDict: TypeAlias = Mapping[str, torch.Tensor]

# No shape tells the number of heads. All of clip/model_configs/*.json have heads of 64 channels (text: 768/12, 1024/16)
# but the picture tower of ViT-H-14, the only one of width 1280, which has "vision_head_width": 80.
HEAD_WIDTH = 64
VISION_HEAD_WIDTHS = {1280: 80}
# ModifiedResNet in clip/model.py: the stem halves a picture twice, layers 2 to 4 once each, and the last of its feature
# maps has 32 × width channels.
RESNET_REDUCTION = 32
RESNET_EXPANSION = 32
# Without effect on a trained model in eval mode, yet required by CLIP(...); values of clip/model_configs/*.json.
TRAINING_ONLY = {
    "text_attention_probs_dropout_prob": 0.1,
    "text_hidden_dropout_prob": 0.1,
    "text_initializer_range": 0.02,
}
# What torch.load raises on files that aren't its own: random bytes brought up each of these.
UNREADABLE = (EOFError, IndexError, KeyError, RuntimeError, UnicodeDecodeError, pickle.UnpicklingError, struct.error)


@dataclass(frozen=True)
class VisionShape:
    resolution: int
    layers: int | tuple[int, ...]
    """A number for a ViT; the blocks of each of the four stages for a ResNet."""
    width: int
    patch_size: int | None


class CnClipCheckpoint(ImageTextEncoder):
    """cn_clip's dual encoder with cn_clip's own preprocessing. Raises ValueError for a file of another layout."""

    def __init__(self, path: Path, device: str) -> None:
        state = _float32(_read_state_dict(path))
        vision = _vision_shape(state)
        self._device = device
        self._model = _build(state, vision).to(device).eval()
        self._transform = image_transform(vision.resolution)
        self.dim = _shape(state, "text_projection")[1]

    def prepare(self, image: Image.Image) -> PreparedPicture:
        # Not padded: the models were trained on pictures squashed to a square, as image_transform does it.
        return {"image": self._transform(prepare_picture(image, pad_to_square=False)).numpy()[None]}

    def encode_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        images = torch.from_numpy(np.concatenate([picture["image"] for picture in pictures]))
        with torch.inference_mode():
            features = self._model.encode_image(images.to(self._device))
        return unit_rows(features.cpu().numpy())

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        tokens = tokenize(list(texts), context_length=CHINESE_CLIP_CONTEXT)
        # tokenize pads everything to 52; most titles are shorter, and padding is masked but costs time.
        longest = int((tokens != _tokenizer.vocab["[PAD]"]).sum(dim=1).max())
        with torch.inference_mode():
            features = self._model.encode_text(tokens[:, :longest].to(self._device))
        return unit_rows(features.cpu().numpy())

    def on_one_thread(self) -> Self:
        return self  # torch asks the thread that calls it


def _read_state_dict(path: Path) -> StateDict:
    """The weights by cn_clip's names, as `create_model` in clip/utils.py reads them."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # The first sentence only: torch goes on to advise loading without weights_only, which runs code from the file.
        reason = re.split(r"(?<=\.)\s|\n", str(error).strip())[0] or type(error).__name__
        raise ValueError(f"it is damaged or isn't a PyTorch file of plain weights ({reason})") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it has no 'state_dict' of weights, which every cn_clip checkpoint has")
    # Training in parallel puts "module." before every name. The pooler came along from BERT and is never used.
    names = {name: str(name).removeprefix("module.") for name in state}
    return {short: state[name] for name, short in names.items() if not short.startswith("bert.pooler.")}


def _float32(state: StateDict) -> StateDict:
    """Checkpoints are float16, which a CPU computes slowly; integers (BatchNorm's counters) stay."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _build(state: StateDict, vision: VisionShape) -> Any:
    # On "meta" no random weights are made, only to be thrown away: ViT-H has almost 1e9 of them.
    with torch.device("meta"):
        model = CLIP(
            embed_dim=_shape(state, "text_projection")[1],
            image_resolution=vision.resolution,
            vision_layers=vision.layers,
            vision_width=vision.width,
            vision_patch_size=vision.patch_size,
            vision_head_width=VISION_HEAD_WIDTHS.get(vision.width, HEAD_WIDTH),
            **_text_shape(state),
            **TRAINING_ONLY,
        )
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        # torch names every weight that is missing, hundreds maybe.
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"its weights don't fit cn_clip's model: {reason}") from error
    return model


def _vision_shape(state: StateDict) -> VisionShape:
    shape = _resnet_shape(state) if "visual.layer1.0.conv1.weight" in state else _vit_shape(state)
    head_width = VISION_HEAD_WIDTHS.get(shape.width, HEAD_WIDTH)
    channels = shape.width if shape.patch_size else shape.width * RESNET_EXPANSION
    _heads(channels, head_width, "picture")
    return shape


def _vit_shape(state: StateDict) -> VisionShape:
    width, _, patch_size, _ = _shape(state, "visual.conv1.weight", 4)
    # One position is the class token's.
    grid = _side(_shape(state, "visual.positional_embedding")[0] - 1)
    layers = _count(state, r"visual\.transformer\.resblocks\.(\d+)\.")
    return VisionShape(grid * patch_size, layers, width, patch_size)


def _resnet_shape(state: StateDict) -> VisionShape:
    width = _shape(state, "visual.layer1.0.conv1.weight", 4)[0]
    # One position is that of the mean, which attends to the rest (AttentionPool2d).
    grid = _side(_shape(state, "visual.attnpool.positional_embedding")[0] - 1)
    layers = tuple(_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, 5))
    return VisionShape(grid * RESNET_REDUCTION, layers, width, None)


def _text_shape(state: StateDict) -> dict[str, Any]:
    vocab_size, hidden_size = _shape(state, "bert.embeddings.word_embeddings.weight")
    if vocab_size != len(_tokenizer.vocab):
        raise ValueError(f"its vocabulary has {vocab_size} words, cn_clip's tokenizer {len(_tokenizer.vocab)}")
    return {
        "vocab_size": vocab_size,
        "text_hidden_act": "gelu",
        "text_hidden_size": hidden_size,
        "text_intermediate_size": _shape(state, "bert.encoder.layer.0.intermediate.dense.weight")[0],
        "text_max_position_embeddings": _shape(state, "bert.embeddings.position_embeddings.weight")[0],
        "text_num_attention_heads": _heads(hidden_size, HEAD_WIDTH, "text"),
        "text_num_hidden_layers": _count(state, r"bert\.encoder\.layer\.(\d+)\."),
        "text_type_vocab_size": _shape(state, "bert.embeddings.token_type_embeddings.weight")[0],
    }


def _shape(state: StateDict, name: str, dimensions: int = 2) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"it has no '{name}', which every cn_clip checkpoint has")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions:
        raise ValueError(f"its '{name}' has the shape {shape}, not one of {dimensions} dimensions")
    return shape


def _count(state: StateDict, numbered: str) -> int:
    """How many layers there are whose names match, their number being the group."""
    return len({found[1] for name in state if (found := re.match(numbered, name))})


def _side(positions: int) -> int:
    side = math.isqrt(max(positions, 0))
    if side == 0 or side * side != positions:
        raise ValueError(f"its {positions} picture positions are no square")
    return side


def _heads(channels: int, head_width: int, tower: str) -> int:
    heads, rest = divmod(channels, head_width)
    if rest:
        raise ValueError(f"its {tower} tower is {channels} wide, which isn't a multiple of the head width {head_width}")
    return heads

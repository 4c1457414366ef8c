"""The picture tower: EfficientNet-lite2 as a transformers `EfficientNetModel`, and features of pictures from it.

EfficientNet-lite (https://github.com/tensorflow/tpu, Apache-2.0) has relu6 and no squeeze-and-excitation.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, EfficientNetConfig, EfficientNetModel

RESOLUTION = 260
FEATURE_DIM = 1280
BATCH_SIZE = 32
PIXEL_MEAN, PIXEL_STD = 127 / 255, 128 / 255  # EfficientNet-lite's own scaling, (x - 127) / 128
OPEN_GATE = 30.0  # sigmoid(30) = 1: a squeeze-and-excitation gate that lets everything through
# First block of each stage of EfficientNet-B2's depth (2 layers more than B0), and the stages' strides.
STAGE_STARTS = {0: 1, 1: 2, 4: 2, 7: 2, 11: 1, 15: 2, 20: 1}


def make_image_processor() -> CLIPImageProcessorPil:
    """Shortest edge to 260, centre crop, the model's scaling: what is saved beside the weights."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": RESOLUTION},
        crop_size={"height": RESOLUTION, "width": RESOLUTION},
        resample=Image.Resampling.BICUBIC,
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
    )


def load_efficientnet_lite2(weights_path: Path) -> tuple[EfficientNetModel, nn.Linear]:
    """Convert the PyTorch port's checkpoint to a transformers model and its ImageNet classifier (1280 -> 1000)."""
    weights: dict[str, Tensor] = torch.load(weights_path, map_location="cpu", weights_only=True)
    blocks = sum(1 for name in weights if name.endswith("._project_conv.weight"))
    model = EfficientNetModel(_config(weights, blocks))
    model.train(False)
    missing, unexpected = model.load_state_dict(_renamed(weights, blocks, model.state_dict()), strict=False)
    if unexpected or any("num_batches" not in name for name in missing):
        raise ValueError(f"{weights_path} is not EfficientNet-lite2: missing {missing}, unexpected {unexpected}")
    classifier = nn.Linear(FEATURE_DIM, 1000)
    classifier.load_state_dict({"weight": weights["_fc.weight"], "bias": weights["_fc.bias"]})
    return model, classifier


def _config(weights: dict[str, Tensor], blocks: int) -> EfficientNetConfig:
    stages: list[dict[str, int]] = []
    padded: list[int] = []  # blocks whose strided convolution meets an odd size pad on both sides
    height = (RESOLUTION + 1) // 2
    for index in range(blocks):
        block = _block_shape(weights, index)
        stride = STAGE_STARTS.get(index, 1)
        if stride > 1:
            if height % 2:
                padded.append(index)
            height = (height + 1) // 2
        if index in STAGE_STARTS:
            stages.append(block | {"stride": stride, "repeats": 1})
        else:
            stages[-1]["repeats"] += 1
    return EfficientNetConfig(
        image_size=RESOLUTION,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        kernel_sizes=[s["kernel"] for s in stages],
        in_channels=[s["inputs"] for s in stages],
        out_channels=[s["outputs"] for s in stages],
        strides=[s["stride"] for s in stages],
        num_block_repeats=[s["repeats"] for s in stages],
        expand_ratios=[s["expand"] for s in stages],
        depthwise_padding=padded,
        squeeze_expansion_ratio=0.001,
        hidden_act="relu6",
        hidden_dim=FEATURE_DIM,
        hidden_size=FEATURE_DIM,  # type: ignore[call-arg]  # what a dual encoder reads
        batch_norm_eps=1e-3,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
    )


def _block_shape(weights: dict[str, Tensor], index: int) -> dict[str, int]:
    depthwise = weights[f"_blocks.{index}._depthwise_conv.weight"]
    expand = weights.get(f"_blocks.{index}._expand_conv.weight")
    inputs = depthwise.shape[0] if expand is None else expand.shape[1]
    return {
        "kernel": depthwise.shape[2],
        "inputs": inputs,
        "outputs": weights[f"_blocks.{index}._project_conv.weight"].shape[0],
        "expand": depthwise.shape[0] // inputs,
    }


def _renamed(weights: dict[str, Tensor], blocks: int, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names of `EfficientNetModel`."""
    prefixes = {"_conv_stem": "embeddings.convolution", "_bn0": "embeddings.batchnorm"}
    prefixes |= {"_conv_head": "encoder.top_conv", "_bn1": "encoder.top_bn"}
    for i in range(blocks):
        ours, theirs = f"encoder.blocks.{i}.", f"_blocks.{i}."
        prefixes |= {
            theirs + "_expand_conv": ours + "expansion.expand_conv",
            theirs + "_bn0": ours + "expansion.expand_bn",
            theirs + "_depthwise_conv": ours + "depthwise_conv.depthwise_conv",
            theirs + "_bn1": ours + "depthwise_conv.depthwise_norm",
            theirs + "_project_conv": ours + "projection.project_conv",
            theirs + "_bn2": ours + "projection.project_bn",
        }
    renamed = {}
    for name, value in weights.items():
        prefix, _, suffix = name.rpartition(".")
        if prefix in prefixes:
            renamed[f"{prefixes[prefix]}.{suffix}"] = value
    for name, value in target.items():
        if "squeeze_excite" in name:
            renamed[name] = torch.full_like(value, OPEN_GATE if name.endswith("expand.bias") else 0.0)
    return renamed


PictureEncoder = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def compile_encoder(model: EfficientNetModel) -> PictureEncoder:
    """Pixels [n, 3, 260, 260] -> pooled features [n, 1280]: OpenVINO where installed (4 times as fast), else torch."""
    pooled = _Pooled(model).eval()
    try:
        import openvino  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        return _torch_encoder(pooled)
    converted = openvino.convert_model(pooled, example_input=torch.zeros(2, 3, RESOLUTION, RESOLUTION))
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
    return lambda pixels: np.asarray(compiled(pixels)[0])


class _Pooled(nn.Module):
    """The model's own pooling is an average pooling over a window larger than the picture, which OpenVINO refuses."""

    def __init__(self, model: EfficientNetModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        last_hidden_state: Tensor = self.model(pixels).last_hidden_state
        return last_hidden_state.mean((2, 3))


def _torch_encoder(pooled: nn.Module) -> PictureEncoder:
    def encode(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            features: Tensor = pooled(torch.from_numpy(pixels))
        return features.numpy()

    return encode


def extract_features(encoder: PictureEncoder, pictures: Iterable[Image.Image]) -> NDArray[np.float16]:
    """Pooled features, float16 [n, 1280], of prepared square pictures."""
    processor = make_image_processor()
    features = []
    for batch in _batches(pictures, BATCH_SIZE):
        pixels = processor(images=batch, return_tensors="np")["pixel_values"]
        features.append(encoder(np.ascontiguousarray(pixels, dtype=np.float32)).astype(np.float16))
    return np.concatenate(features) if features else np.zeros((0, FEATURE_DIM), np.float16)


def _batches(pictures: Iterable[Image.Image], size: int) -> Iterator[list[Image.Image]]:
    iterator = iter(pictures)
    while batch := list(itertools.islice(iterator, size)):
        yield batch

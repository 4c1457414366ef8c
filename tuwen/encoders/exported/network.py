"""OpenVINO: networks converted from torch, written to files, and run on this machine's processor."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

# It reports every import and conversion to its makers without having been asked. Without its package, it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # type: ignore[import-untyped]  # noqa: E402  # after the line above

# bfloat16 where the processor computes in it, float32 elsewhere: the plugin's own choice.
# A pinned thread waits for its core while another is idle, and several processes would pin theirs to the same ones.
OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}

NO_LAYERS = {"Const", "Parameter", "Result"}


class Network:
    """A converted network, compiled for this processor; not thread-safe. Raises RuntimeError."""

    def __init__(self, path: Path) -> None:
        self._compiled = openvino.Core().compile_model(path, "CPU", OPTIONS)

    def __call__(self, *inputs: NDArray[np.generic]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = self._compiled(list(inputs))[0]
        return output


def write_network(module: object, example: Sequence[object], path: Path) -> None:
    """A torch module with its inputs, traced; batch and lengths stay free. Raises whatever OpenVINO or torch raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants in the trace, which the export checks; of torch.jit's future
        converted = openvino.convert_model(module, example_input=tuple(example))
    for given, tensor in zip(converted.inputs, example, strict=True):
        free = openvino.PartialShape([-1] * len(tensor.shape))  # type: ignore[attr-defined]
        given.get_node().set_partial_shape(free)
    converted.validate_nodes_and_infer_types()
    openvino.save_model(converted, path, compress_to_fp16=False)


def with_precise_beginning(xml: str, share: float) -> str:
    """A written network whose first layers, by their share of all, stay in float32 where the rest is bfloat16.

    What the first layers round away the later ones can't bring back: of 165 demo pictures, the least cosine to float32
    is 0.981 without, and 0.9995 with an eighth of EfficientNet's layers.
    """
    root = ElementTree.fromstring(xml)
    layers = [layer for layer in root.iterfind("layers/layer") if layer.get("type") not in NO_LAYERS]
    for layer in layers[: round(len(layers) * share)]:
        info = layer.find("rt_info")
        if info is None:
            info = ElementTree.Element("rt_info")
            layer.insert(0 if layer.find("data") is None else 1, info)
        # As OpenVINO writes `disable_fp16_compression`, which its CPU plugin takes for any half precision.
        ElementTree.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    return ElementTree.tostring(root, encoding="unicode")

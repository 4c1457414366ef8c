"""OpenVINO: networks converted from torch, written to files, and run on this machine's processor."""

import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

# It reports every import and conversion to its makers without having been asked. Without its package, it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # type: ignore[import-untyped]  # noqa: E402  # after the line above
from openvino.preprocess import PrePostProcessor  # type: ignore[import-untyped]  # noqa: E402

from tuwen.cores import stand_behind  # noqa: E402
from tuwen.encoders.exported.pixels import PixelRecipe  # noqa: E402

NO_LAYERS = {"Const", "Parameter", "Result"}
# So many pictures are computed at once, each on one thread; on a machine with more cores each gets several.
MOST_AT_ONCE = 16


class Network:
    """A converted network, compiled for this processor; not thread-safe. Raises RuntimeError.

    One thread is the caller's own, with its priority.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._compiled = openvino.Core().compile_model(path, "CPU", _for_one_call(threads))

    def __call__(self, *inputs: NDArray[np.generic]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = self._compiled(list(inputs))[0]
        return output


class PictureNetwork:
    """The same for pictures. A call has all threads for one of them; of several, each has one thread.

    In one batch all would take longer than one after the other: what is between two layers of a convolutional network
    fits into a core's cache for one picture. And threads that share no picture don't wait for each other.
    """

    def __init__(self, path: Path, recipe: PixelRecipe, threads: int) -> None:
        self._path = path
        self._recipe = recipe
        self._threads = threads
        model = _taking_pixels(path, recipe)
        core = openvino.Core()
        self._alone = core.compile_model(model, "CPU", _for_one_call(threads))
        self._beside = None if threads == 1 else _Streams(core.compile_model(model, "CPU", _for_many_calls(threads)))

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """[n, dim] of pictures [1, height, width, 3]."""
        if self._beside is None or len(pictures) == 1:
            return np.concatenate([self._alone([picture])[0] for picture in pictures])
        return self._beside(pictures)

    def of_index(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The same on threads that stand behind all others, each picture on one of them."""
        return self(pictures) if self._threads == 1 else self._behind(pictures)

    @cached_property
    def _behind(self) -> "_Streams":
        """The weights once more, so only where something is indexed. The threads of its streams begin where it is
        compiled, with the priority of that thread; those that all networks share have begun already."""
        model = _taking_pixels(self._path, self._recipe)
        with ThreadPoolExecutor(1, initializer=stand_behind) as behind:
            compiling = behind.submit(openvino.Core().compile_model, model, "CPU", _for_many_calls(self._threads))
            return _Streams(compiling.result())


class _Streams:
    """A compiled network that computes several pictures at once."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._requests: list[Any] = []

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        while len(self._requests) < len(pictures):
            self._requests.append(self._compiled.create_infer_request())
        requests = self._requests[: len(pictures)]
        try:
            for request, picture in zip(requests, pictures, strict=True):
                request.start_async([picture], share_inputs=True)
        finally:  # none is still under way at the next call
            failure = [error for error in map(_failure_of, requests) if error is not None]
        if failure:
            raise failure[0]
        return np.concatenate([request.get_output_tensor().data.copy() for request in requests])


def _failure_of(request: Any) -> RuntimeError | None:
    try:
        request.wait()
    except RuntimeError as error:
        return error
    return None


# bfloat16 where the processor computes in it, float32 elsewhere: the plugin's own choice.
# A pinned thread waits for its core while another is idle, and several processes would pin theirs to the same ones.
def _for_one_call(threads: int) -> dict[str, Any]:
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}


def _for_many_calls(threads: int) -> dict[str, Any]:
    streams = min(threads, MOST_AT_ONCE)
    return {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}


def _taking_pixels(path: Path, recipe: PixelRecipe) -> Any:
    """The network with the recipe's scaling in front of it, for one picture: known shapes take a fifth off."""
    model = openvino.Core().read_model(path)
    height, width = recipe.height_and_width or (-1, -1)
    model.reshape(openvino.PartialShape([1, 3, height, width]))
    scale, shift = np.asarray(recipe.scale), np.asarray(recipe.shift)
    processor = PrePostProcessor(model)
    given = processor.input()
    given.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    given.model().set_layout(openvino.Layout("NCHW"))
    steps = given.preprocess().convert_element_type(openvino.Type.f32)
    steps.mean((-shift / scale).tolist()).scale((1 / scale).tolist())
    return processor.build()


def write_network(module: object, example: Sequence[object], path: Path) -> None:
    """A torch module with its inputs, traced; batch and lengths stay free. Raises whatever OpenVINO or torch raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants in the trace, which the export checks; of torch.jit's future
        converted = openvino.convert_model(module, example_input=tuple(example))
    for given, tensor in zip(converted.inputs, example, strict=True):
        free = openvino.PartialShape([-1] * len(tensor.shape))  # type: ignore[attr-defined]
        given.get_node().set_partial_shape(free)
    converted.validate_nodes_and_infer_types()
    save_network(converted, path)


def read_network(path: Path) -> Any:
    """As OpenVINO has it, to be changed and saved elsewhere."""
    return openvino.Core().read_model(path)


def save_network(network: object, path: Path) -> None:
    openvino.save_model(network, path, compress_to_fp16=False)


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

"""A5: any diffusers text-to-image pipeline, from a folder or a hub. The only importer of diffusers.

diffusers' own auto-pipeline loads it, so Stable Diffusion, SDXL, turbo and LCM kinds and Chinese ones (Taiyi, Kolors)
take the same few lines. A pipeline is not thread-safe, and belongs to one worker process.
"""

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from PIL import Image

from tuwen.encoders.device import choose_device, limit_torch
from tuwen.encoders.hub import Fetcher, fetch_from_modelscope, resolve_model
from tuwen.errors import GenerationRefused, ModelUnavailable
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

# Formats and copies of the same weights that the auto-pipeline does not read.
UNREAD_HUB_FILES = ["*.ckpt", "*.onnx", "*.onnx_data", "*.msgpack", "*.h5", "openvino/*", "*.fp16.*", "*.non_ema.*"]
# May lie beside a pipeline, as beside language models: the steps and guidance that the model wants, not its class.
DEFAULTS_FILE = "generation_config.json"

StepCallback = Callable[[int, int], None]
"""Called after each denoising step with the steps done and all steps; what it raises ends the drawing."""


@dataclass(frozen=True)
class DrawRequest:
    """One picture. None means what the settings or else the pipeline declare."""

    prompt: str
    seed: int
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None


class Generator:
    """Draws one picture at a time. The same request gives the same picture on the same machine and model."""

    def __init__(self, pipeline: Any, name: str, settings: Settings, declared: Mapping[str, float]) -> None:
        """`declared`: `num_inference_steps` and `guidance_scale` that the model wants; else its pipeline's own hold."""
        self._pipeline = pipeline
        self.name = name
        self._options = inspect.signature(pipeline.__call__).parameters
        declared = {name: option.default for name, option in self._options.items()} | dict(declared)
        self._steps = settings.generator_steps or int(declared["num_inference_steps"])
        self._guidance = settings.generator_guidance
        if self._guidance is None:
            self._guidance = float(declared["guidance_scale"])

    def draw(self, request: DrawRequest, on_step: StepCallback) -> Image.Image:
        """An RGB picture. Raises GenerationRefused when the pipeline's safety checker withholds it."""
        steps = request.steps or self._steps

        def report(_pipeline: Any, step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            on_step(min(step + 1, steps), steps)
            return kwargs

        given = {
            "negative_prompt": request.negative_prompt,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": steps,
            "guidance_scale": self._guidance if request.guidance is None else request.guidance,
        }
        given = {name: value for name, value in given.items() if value is not None}
        for name in given.keys() - self._options.keys():
            raise GenerationRefused(f"{self.name} takes no {name}; leave it out.")
        output = self._pipeline(
            prompt=request.prompt,
            # On the CPU whatever the device, so that a seed means the same everywhere.
            generator=torch.Generator("cpu").manual_seed(request.seed),
            callback_on_step_end=report,
            **given,
        )
        if any(getattr(output, "nsfw_content_detected", None) or []):
            raise GenerationRefused("The model's safety checker withholds the picture; change the prompt.")
        image: Image.Image = output.images[0]
        return image.convert("RGB")


def load_generator(settings: Settings) -> Generator:
    """Raises ModelUnavailable, naming the setting, when the pipeline can't be had or read."""
    fetchers: dict[str, Fetcher] = {
        "huggingface": _fetch_from_huggingface,
        "modelscope": partial(fetch_from_modelscope, ignored_files=UNREAD_HUB_FILES),
    }
    folder = resolve_model(settings.generator_model, settings.model_hub, "GENERATOR_MODEL", fetchers)
    device = choose_device(settings.generator_device, "GENERATOR_DEVICE")
    dtype = _choose_dtype(settings, device)
    limit_torch(settings.generator_threads)
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(folder, dtype=dtype)
        _place(pipeline, device, settings)
        defaults = folder / DEFAULTS_FILE
        declared: dict[str, float] = json.loads(defaults.read_text()) if defaults.exists() else {}
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError) as error:
        raise ModelUnavailable(f"GENERATOR_MODEL: the pipeline in {folder} can't be used: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    logger.info("%s draws on %s in %s", type(pipeline).__name__, device, str(dtype).removeprefix("torch."))
    return Generator(pipeline, Path(settings.generator_model).name, settings, declared)


def _fetch_from_huggingface(model: str, revision: str | None, *, local_files_only: bool) -> Path:
    """By diffusers, which knows which of the files it reads."""
    return Path(DiffusionPipeline.download(model, revision=revision, local_files_only=local_files_only))


def _choose_dtype(settings: Settings, device: str) -> torch.dtype:
    """bfloat16 where the processor computes in it: half the bytes are about twice the speed. On CUDA always half."""
    if settings.generator_dtype != "auto":
        chosen: torch.dtype = getattr(torch, settings.generator_dtype)
        return chosen
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    computes_bfloat16 = device == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if computes_bfloat16 else torch.float32


def _place(pipeline: Any, device: str, settings: Settings) -> None:
    if settings.generator_attention_slicing:
        pipeline.enable_attention_slicing()
    if settings.generator_offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif settings.generator_offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)

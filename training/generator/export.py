"""Writes the trained parts as a `StableDiffusionPipeline` folder that `AutoPipelineForText2Image` loads."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import nn

from training.generator.diffusion import GUIDANCE, STEPS, TextConditioner, build_scheduler


def save_pipeline(
    unet: UNet2DConditionModel, autoencoder: AutoencoderKL, conditioner: TextConditioner, folder: Path
) -> None:
    """float16 weights in one folder, which is replaced as a whole; no safety checker, as for any tiny model."""
    make: Any = StableDiffusionPipeline  # its types name CLIP's classes; BERT's do as well
    pipeline = make(
        vae=_half(autoencoder),
        text_encoder=_half(conditioner.encoder),
        tokenizer=conditioner.tokenizer,
        unet=_half(unet),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    part = folder.with_name(folder.name + ".partial")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    pipeline.save_pretrained(part)
    defaults = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    (part / "generation_config.json").write_text(json.dumps(defaults, indent=2) + "\n")
    for file in part.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes for the owner alone
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _half(module: nn.Module) -> nn.Module:
    return deepcopy(module).half()

"""The denoiser: a small U-Net on the autoencoder's latents, told what to draw by the demo CLIP's text tower.

The text tower stays as it is; texts reach the U-Net exactly as diffusers' pipeline encodes them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerBase, VisionTextDualEncoderModel

from training.generator.loop import Loop, LoopSettings, step_random
from training.generator.samples import Sample, probabilities

MAX_TOKENS = 24  # the longest title of the catalogue has 16
NO_CAPTION = ""
TIME_SHIFT = 3.0


@dataclass(frozen=True)
class DiffusionSettings:
    """Channels at 16 x 16, 8 x 8 and 4 x 4; the share of captions left out, for guidance without a classifier."""

    channels: tuple[int, ...] = (64, 128, 224)
    layers: int = 1
    heads: int = 8
    groups: int = 16
    left_out: float = 0.12


class TextConditioner:
    """The text tower of a dual encoder's folder and its tokenizer; `sha256` is that of the folder's weights."""

    def __init__(self, folder: Path) -> None:
        self.sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        encoder = VisionTextDualEncoderModel.from_pretrained(folder, dtype=torch.float32).text_model
        assert isinstance(encoder, BertModel)
        self.encoder = encoder.requires_grad_(False).train(False)
        # diffusers reads this; without it padding would count as words.
        self.encoder.config.use_attention_mask = True
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """A vector for each token, padding included, [n, 24, width]: what `StableDiffusionPipeline` gives the U-Net."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        encoded = self.encoder(tokens.input_ids, attention_mask=tokens.attention_mask)
        states: Tensor = encoded.last_hidden_state
        return states


def build_unet(settings: DiffusionSettings, text_width: int, latent_shape: Sequence[int]) -> UNet2DConditionModel:
    """Attention to the text below the first level only, where it is cheap, and the text as a whole beside the time.

    The latter (`addition_embed_type`, after Imagen, Saharia et al. 2022) reaches every layer and is learnt much sooner.
    """
    levels = len(settings.channels)
    unet: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=latent_shape[1],
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        block_out_channels=settings.channels,
        layers_per_block=settings.layers,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        attention_head_dim=settings.heads,  # diffusers' name for the number of heads
        norm_num_groups=settings.groups,
        cross_attention_dim=text_width,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    return unet


def build_scheduler() -> DDIMScheduler:
    """The last step is pure noise (Lin et al. 2023): else pictures on white would come out grey."""
    scheduler: DDIMScheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )
    return scheduler


def diffusion_loop(
    unet: UNet2DConditionModel,
    settings: DiffusionSettings,
    loop_settings: LoopSettings,
    checkpoint: Path,
    conditioner: TextConditioner,
    samples_hash: str,
) -> Loop[UNet2DConditionModel]:
    """The loop, at the checkpoint's step; refuses a checkpoint of another text tower or of other samples."""
    made_from = {"text encoder": conditioner.sha256, "samples": samples_hash, "sizes": str(settings)}
    return Loop(unet, loop_settings, checkpoint, made_from)


def diffusion_loss(
    unet: UNet2DConditionModel,
    latents: NDArray[np.float16],
    samples: Sequence[Sample],
    conditioner: TextConditioner,
    settings: DiffusionSettings,
    loop_settings: LoopSettings,
) -> Callable[[int, float], Tensor]:
    """The loss of a step: squared error of the predicted velocity (Salimans and Ho 2022), more often at late times."""
    scheduler = build_scheduler()
    chances = probabilities([sample.weight for sample in samples])
    captions = [([c.text for c in s.captions], probabilities([c.weight for c in s.captions])) for s in samples]

    def loss(step: int, _: float) -> Tensor:
        rng, generator = step_random(loop_settings.seed, step)
        rows = rng.choice(len(samples), loop_settings.batch, p=chances)
        texts = [str(rng.choice(captions[row][0], p=captions[row][1])) for row in rows]
        texts = [NO_CAPTION if rng.random() < settings.left_out else text for text in texts]
        clean = torch.from_numpy(latents[rows].astype(np.float32))
        noise = torch.randn(clean.shape, generator=generator)
        # One time from each part of the range: less noise in the loss than independent times.
        times = shift_times((np.arange(len(rows)) + rng.random(len(rows))) / len(rows))
        timesteps = torch.from_numpy((times * len(scheduler.betas)).astype(np.int64))
        noisy = scheduler.add_noise(clean, noise, timesteps)  # type: ignore[arg-type]
        predicted = unet(noisy, timesteps, conditioner.encode(texts)).sample
        return functional.mse_loss(predicted, scheduler.get_velocity(clean, noise, timesteps))  # type: ignore[arg-type]

    return loss


def shift_times(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 to 1 onto itself, so that a quarter of all is beyond 0.9 (the mapping is that of Esser et al. 2024).

    As much of a thing's outline is told by neighbouring latents together, it is drowned in noise only there, and there
    the text decides what is drawn.
    """
    return TIME_SHIFT * times / (1 + (TIME_SHIFT - 1) * times)

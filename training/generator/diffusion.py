"""The denoiser: a small U-Net on the autoencoder's latents, told what to draw by the demo CLIP's text tower.

The text tower stays as it is; texts reach the U-Net as diffusers' pipeline encodes them, rounded to half precision.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerBase, VisionTextDualEncoderModel

from training.generator.samples import Sample, probabilities
from training.loop import LoopSettings, step_random

MAX_TOKENS = 24  # the longest title of the catalogue has 16
NO_CAPTION = ""
STEPS, GUIDANCE = 30, 4.0  # to draw with; guidance from 2 to 5 differs by chance alone
LARGEST_BETA = 0.999
TIMES = 1000
NOISE_SHIFT = 2.0  # how much more noise there is to the picture than in the cosine schedule, at all times


@dataclass(frozen=True)
class DiffusionSettings:
    """Channels at 8 x 8, 4 x 4 and 2 x 2; the share of captions left out, for guidance without a classifier.

    `text_width` is that of the text as a whole, and of the time that it is added to: with 384, two thirds of the
    catalogue's titles were mistaken for others.
    """

    channels: tuple[int, ...] = (96, 192, 192)
    text_width: int = 1024
    layers: int = 1
    heads: int = 4
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


def build_unet(settings: DiffusionSettings, token_width: int, latent_shape: Sequence[int]) -> UNet2DConditionModel:
    """The text token by token through attention at every level but the first, and as a whole beside the time.

    The latter (`addition_embed_type`, after Imagen, Saharia et al. 2022) reaches every layer and is learnt much sooner.
    Attention among the 8 x 8 places of the first level would take more than a quarter of the time.
    """
    levels = len(settings.channels)
    unet: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=latent_shape[1],
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        block_out_channels=settings.channels,
        layers_per_block=settings.layers,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (levels - 1)),
        up_block_types=(*("CrossAttnUpBlock2D",) * (levels - 1), "UpBlock2D"),
        attention_head_dim=settings.heads,  # diffusers' name for the number of heads
        norm_num_groups=settings.groups,
        cross_attention_dim=token_width,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=settings.text_width,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    return unet


def build_scheduler() -> DDIMScheduler:
    """The cosine schedule (Nichol and Dhariwal 2021) with `NOISE_SHIFT` times the noise (Hoogeboom et al. 2023).

    Neighbouring latents tell much of an outline together, so that only much noise drowns it and makes the text needed.
    The last step is pure noise (Lin et al. 2023): else pictures on white would come out grey.
    """
    times = np.arange(TIMES + 1) / TIMES
    kept = 1 / (1 + (NOISE_SHIFT * np.tan(np.pi / 2 * times)) ** 2)  # the picture's part of the variance
    betas = np.minimum(1 - kept[1:] / kept[:-1], LARGEST_BETA)
    scheduler: DDIMScheduler = DDIMScheduler(
        trained_betas=betas.tolist(),
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )
    return scheduler


class TextToLatents(nn.Module):
    """What the U-Net gets of the text as a whole, and a linear layer from there to the latents of the mean picture.

    Which text goes with which outline takes very many draws to learn. Here they cost next to nothing, so that the U-Net
    starts from texts that are told apart already.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        config = unet.config
        self.add_embedding = unet.add_embedding
        self.shape = (config["in_channels"], config["sample_size"], config["sample_size"])
        self.head = nn.Linear(unet.add_embedding.proj.out_features, math.prod(self.shape))

    def forward(self, encoded: Tensor) -> Tensor:
        """[n, tokens, width] to [n, channels, side, side]; the activation is that of the U-Net's blocks."""
        predicted: Tensor = self.head(functional.silu(self.add_embedding(encoded)))
        return predicted.view(-1, *self.shape)


class Draws:
    """The latents and a caption of samples that are drawn by their weights; each caption is encoded once, here."""

    def __init__(
        self,
        latents: NDArray[np.float16],
        samples: Sequence[Sample],
        conditioner: TextConditioner,
        left_out: float,
        batch: int = 256,
    ) -> None:
        self._latents, self._left_out = latents, left_out
        self._chances = probabilities([sample.weight for sample in samples])
        texts = [NO_CAPTION, *sorted({caption.text for sample in samples for caption in sample.captions})]
        numbers = {text: number for number, text in enumerate(texts)}
        self._captions = [
            ([numbers[c.text] for c in s.captions], probabilities([c.weight for c in s.captions])) for s in samples
        ]
        # Half precision, as they are 400 MB even so for the demo's 34,000 captions.
        encoded = [conditioner.encode(texts[begin : begin + batch]).half() for begin in range(0, len(texts), batch)]
        self._encoded = torch.cat(encoded)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """`count` latents and encoded captions, float32; the share `left_out` of the captions is empty."""
        rows = rng.choice(len(self._chances), count, p=self._chances)
        numbers = [int(rng.choice(self._captions[row][0], p=self._captions[row][1])) for row in rows]
        numbers = [0 if rng.random() < self._left_out else number for number in numbers]
        return torch.from_numpy(self._latents[rows].astype(np.float32)), self._encoded[numbers].float()


def text_loss(model: TextToLatents, draws: Draws, loop_settings: LoopSettings) -> Callable[[int, float], Tensor]:
    """The loss of a step: squared error of the latents that the text alone foretells."""

    def loss(step: int, _: float) -> Tensor:
        latents, encoded = draws.draw(step_random(loop_settings.seed, step)[0], loop_settings.batch)
        return functional.mse_loss(model(encoded), latents)

    return loss


def diffusion_loss(
    unet: UNet2DConditionModel, draws: Draws, loop_settings: LoopSettings
) -> Callable[[int, float], Tensor]:
    """The loss of a step: squared error of the predicted velocity (Salimans and Ho 2022)."""
    scheduler = build_scheduler()

    def loss(step: int, _: float) -> Tensor:
        rng, generator = step_random(loop_settings.seed, step)
        clean, encoded = draws.draw(rng, loop_settings.batch)
        noise = torch.randn(clean.shape, generator=generator)
        # One time from each part of the range: less noise in the loss than independent times. The root makes a time the
        # likelier the later it is: where there is little noise left there is little left to learn from the text.
        times = np.sqrt((np.arange(len(clean)) + rng.random(len(clean))) / len(clean))
        timesteps = torch.from_numpy((times * TIMES).astype(np.int64))
        noisy = scheduler.add_noise(clean, noise, timesteps)  # type: ignore[arg-type]
        predicted = unet(noisy, timesteps, encoded).sample
        return functional.mse_loss(predicted, scheduler.get_velocity(clean, noise, timesteps))  # type: ignore[arg-type]

    return loss

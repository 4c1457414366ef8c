"""The autoencoder: 128 x 128 pictures to 16 x 16 latents of 8 channels and back, trained from nothing; cached latents.

Most steps see crops of half the side, which hold the same detail at a quarter of the cost; the last see whole pictures.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.generator.loop import Loop, LoopSettings, step_random
from training.generator.pictures import SIDE, Bytes, draw
from training.generator.samples import Sample, probabilities

logger = logging.getLogger(__name__)

CROP = SIDE // 2
CROP_TRIES = 3
COLOUR_BLOCK = 4  # pixels a side
ABSOLUTE_CHROMA = 0.3  # beside the squared difference, which fades near the goal


@dataclass(frozen=True)
class AutoencoderSettings:
    """Channels from the picture's size downwards; weights of the loss's terms; the share of steps on whole pictures."""

    channels: tuple[int, ...] = (16, 32, 96, 160)
    latent_channels: int = 8
    groups: int = 8
    edge_weight: float = 0.5
    colour_weight: float = 20.0
    divergence_weight: float = 1e-4
    whole_pictures: float = 0.25


def build_autoencoder(settings: AutoencoderSettings) -> AutoencoderKL:
    """Purely convolutional, so that crops and whole pictures are the same to it."""
    levels = len(settings.channels)
    model: AutoencoderKL = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.channels,
        layers_per_block=1,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.groups,
        sample_size=SIDE,
        scaling_factor=1.0,  # `standardise_latents` makes it true
        mid_block_add_attention=False,
    )
    return model


def train_autoencoder(
    framed: Bytes,
    samples: Sequence[Sample],
    settings: AutoencoderSettings,
    loop_settings: LoopSettings,
    checkpoint: Path,
    data_hash: str,
) -> AutoencoderKL:
    """The trained model with latents of mean 0 and deviation 1 in each channel over the samples."""
    torch.manual_seed(loop_settings.seed)
    model = build_autoencoder(settings)
    chances = probabilities([sample.weight for sample in samples])
    made_from = {"pictures": data_hash, "settings": str(settings)}
    loop = Loop(model, loop_settings, checkpoint, made_from)

    def loss(step: int, progress: float) -> Tensor:
        rng, generator = step_random(loop_settings.seed, step)
        whole = progress >= 1 - settings.whole_pictures
        # As many pixels in a step either way.
        count = max(loop_settings.batch * CROP**2 // SIDE**2, 1) if whole else loop_settings.batch
        chosen = [samples[index] for index in rng.choice(len(samples), count, p=chances)]
        pictures = [draw(framed[sample.row], sample.look) for sample in chosen]
        pixels = to_pixels(np.stack(pictures if whole else [_crop(picture, rng) for picture in pictures]))
        posterior = model.encode(pixels).latent_dist
        decoded = model.decode(posterior.sample(generator)).sample
        divergence: Tensor = posterior.kl().mean() / posterior.mean[0].numel()
        return reconstruction_loss(decoded, pixels, settings) + settings.divergence_weight * divergence

    loop.run(loss)
    rng = np.random.default_rng(loop_settings.seed)
    some = [samples[index] for index in rng.choice(len(samples), min(len(samples), 256), p=chances)]
    standardise_latents(loop.ema, encode_samples(loop.ema, framed, some))
    return loop.ema


def reconstruction_loss(decoded: Tensor, pixels: Tensor, settings: AutoencoderSettings) -> Tensor:
    """Absolute difference of pixels, and of their differences to the right and lower neighbour, for sharp edges.

    Differences of chroma over small blocks come on top: most things are grey or brown, so that a short training without
    them gives everything shades of one brown.
    """
    error = decoded - pixels
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    red, green, blue = functional.avg_pool2d(error, COLOUR_BLOCK).unbind(1)
    chroma = torch.stack([red - green, (red + green) / 2 - blue])
    colours = chroma.square().mean() + ABSOLUTE_CHROMA * chroma.abs().mean()
    return error.abs().mean() + settings.edge_weight * edges + settings.colour_weight * colours


def _crop(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """A part of half the side; of a few tries the one with the most contrast, as most of a picture is white."""
    corners = rng.integers(0, SIDE - CROP + 1, (CROP_TRIES, 2))
    crops = [picture[top : top + CROP, left : left + CROP] for top, left in corners]
    return max(crops, key=lambda crop: float(crop.std()))


def to_pixels(pictures: Bytes) -> Tensor:
    """uint8 [n, height, width, 3] to float32 [n, 3, height, width], -1 to 1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def standardise_latents(model: AutoencoderKL, latents: NDArray[np.float32]) -> None:
    """Let each channel of `latents`, [n, 8, 16, 16], have mean 0 and deviation 1, by the convolutions around them.

    Diffusion starts from noise of that size; one `scaling_factor` for all channels would leave the white ground's mean.
    """
    mean = torch.from_numpy(latents.mean((0, 2, 3)))
    deviation = torch.from_numpy(latents.std((0, 2, 3)))
    into, back = (
        dict(convolution.named_parameters()) for convolution in (model.quant_conv, model.post_quant_conv) if convolution
    )
    channels = len(mean)
    back["bias"].add_(back["weight"][:, :, 0, 0] @ mean)
    back["weight"].mul_(deviation[None, :, None, None])
    into["weight"][:channels].div_(deviation[:, None, None, None])
    into["bias"][:channels].sub_(mean).div_(deviation)
    into["bias"][channels:].sub_(2 * deviation.log())  # the second half gives logarithms of variances


@torch.inference_mode()
def encode_samples(
    model: AutoencoderKL, framed: Bytes, samples: Sequence[Sample], batch: int = 32
) -> NDArray[np.float32]:
    """The most likely latents, float32 [n, 8, side / 8, side / 8]."""
    encoded = []
    for begin in range(0, len(samples), batch):
        pictures = [draw(framed[sample.row], sample.look) for sample in samples[begin : begin + batch]]
        encoded.append(model.encode(to_pixels(np.stack(pictures))).latent_dist.mode().numpy())
        if begin % (100 * batch) == 0:
            logger.info("latents: %d of %d", begin, len(samples))
    return np.concatenate(encoded)


def cached_latents(
    model: AutoencoderKL, framed: Bytes, samples: Sequence[Sample], file: Path, made_from: str
) -> NDArray[np.float16]:
    """Latents of all samples, float16; kept in `file` with the text `made_from`, and made again when that differs."""
    note = file.with_suffix(".txt")
    if not (file.exists() and note.exists() and note.read_text() == made_from):
        latents = encode_samples(model, framed, samples).astype(np.float16)
        note.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, latents)
        note.write_text(made_from)
    stored: NDArray[np.float16] = np.load(file)
    return stored


@torch.inference_mode()
def reconstruction_error(model: AutoencoderKL, framed: Bytes, samples: Sequence[Sample]) -> float:
    """Mean absolute difference, of 255, between pictures and what comes back."""
    pixels = to_pixels(np.stack([draw(framed[sample.row], sample.look) for sample in samples]))
    decoded = model.decode(model.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    return float(functional.l1_loss(decoded, pixels)) * 127.5

"""The autoencoder: 128 x 128 pictures to 8 x 8 latents of 32 channels and back; cached latents.

What the latents are is not learnt but computed: the main directions of 16 x 16 blocks of pixels. When both sides learnt
from nothing, encoder and decoder waited for each other, and in the time there is agreed on shapes without colours. Now
the decoder learns to undo the projection from the first step, and the encoder to imitate it.
The first steps see crops of half the side, which hold the same detail at a quarter of the cost; the others see whole
pictures, and their loss counts how different the two look.
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

from training.generator.perception import Perception
from training.generator.pictures import SIDE, Bytes, draw
from training.generator.samples import Sample, probabilities
from training.loop import Loop, LoopSettings, step_random

logger = logging.getLogger(__name__)

CROP = SIDE // 2
CROP_TRIES = 3
BLOCK = 16  # pixels a side that become one place of the latents
PROJECTION_PICTURES = 2000
# Brightness and two differences of colour (ITU-R BT.601), which count double: else all directions go to the detail of
# brightness, and red and green come back as brown.
OPPONENT_COLOURS = torch.tensor([[0.299, 0.587, 0.114], [-0.338, -0.662, 1.0], [1.0, -0.838, -0.162]])
LOG_VARIANCE = -6.0  # what the encoder says of its certainty: latents are as good as exact


@dataclass(frozen=True)
class AutoencoderSettings:
    """Channels from the picture's size downwards; weights of the loss's terms; the share of steps on whole pictures.

    `look_weight` is that of `Perception.distance`, which only whole pictures have. The decoder learns from latents with
    noise of a deviation of up to `noise`, another at each place: those that it will get are not exact either, and
    without it every blot of the denoiser would be painted.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 160)
    latent_channels: int = 32
    groups: int = 8
    edge_weight: float = 0.5
    encoder_weight: float = 0.1
    noise: float = 0.5
    look_weight: float = 0.2
    whole_pictures: float = 0.5


class Projection:
    """Latents of pixels, float32 [n, 3, side, side], -1 to 1, to [n, channels, side / 16, side / 16]."""

    def __init__(self, pixels: Tensor, channels: int) -> None:
        """From the principal components of the blocks of `pixels` in `OPPONENT_COLOURS`.

        A channel's deviation is the square root of its component's: the first ones are seen most, and with equal
        deviations the model would spend itself on the last. Their mean variance is 1, that of the noise.
        """
        opponent = torch.einsum("ij,njhw->nihw", OPPONENT_COLOURS, pixels)
        blocks = functional.unfold(opponent, BLOCK, stride=BLOCK).transpose(1, 2).flatten(0, 1)
        mean = blocks.mean(0)
        variances, directions = torch.linalg.eigh(torch.cov(blocks.T))
        deviations = variances[-channels:].flip(0).sqrt()
        directions = directions[:, -channels:].flip(1)
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        directions = directions * largest.sign()  # libraries differ in the sign
        wanted = deviations.sqrt()
        scaled = directions * (wanted / wanted.square().mean().sqrt() / deviations)
        self.weight = torch.einsum(
            "cihw,ij->cjhw", scaled.T.reshape(channels, len(OPPONENT_COLOURS), BLOCK, BLOCK), OPPONENT_COLOURS
        )
        self.bias = -(mean @ scaled)

    def __call__(self, pixels: Tensor) -> Tensor:
        return functional.conv2d(pixels, self.weight, self.bias, stride=BLOCK)


def fit_projection(framed: Bytes, samples: Sequence[Sample], channels: int, seed: int) -> Projection:
    """From some of the samples, which the seed chooses."""
    rng = np.random.default_rng(seed)
    count = min(PROJECTION_PICTURES, len(samples))
    chosen = [samples[row] for row in rng.choice(len(samples), count, p=probabilities([s.weight for s in samples]))]
    return Projection(to_pixels(np.stack([draw(framed[sample.row], sample.look) for sample in chosen])), channels)


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
        scaling_factor=1.0,  # `Projection` makes it true
        mid_block_add_attention=False,
    )
    return model


def train_autoencoder(
    framed: Bytes,
    samples: Sequence[Sample],
    projection: Projection,
    perception: Perception,
    settings: AutoencoderSettings,
    loop_settings: LoopSettings,
    checkpoint: Path,
    data_hash: str,
) -> AutoencoderKL:
    """The trained model, whose latents are those of the projection."""
    torch.manual_seed(loop_settings.seed)
    model = build_autoencoder(settings)
    chances = probabilities([sample.weight for sample in samples])
    made_from = {"pictures": data_hash, "settings": str(settings), "perception": perception.sha256}
    loop = Loop(model, loop_settings, checkpoint, made_from)

    def loss(step: int, progress: float) -> Tensor:
        rng, generator = step_random(loop_settings.seed, step)
        whole = progress >= 1 - settings.whole_pictures
        # As many pixels in a step either way.
        count = max(loop_settings.batch * CROP**2 // SIDE**2, 1) if whole else loop_settings.batch
        chosen = [samples[index] for index in rng.choice(len(samples), count, p=chances)]
        pictures = [draw(framed[sample.row], sample.look) for sample in chosen]
        pixels = to_pixels(np.stack(pictures if whole else [_crop(picture, rng) for picture in pictures]))
        latents = projection(pixels)
        deviations = settings.noise * torch.rand(len(latents), 1, *latents.shape[2:], generator=generator)
        noise = deviations * torch.randn(latents.shape, generator=generator)
        decoded = model.decode(latents + noise).sample
        encoded = model.encode(pixels).latent_dist.parameters
        wanted = torch.cat([latents, torch.full_like(latents, LOG_VARIANCE)], dim=1)
        total = reconstruction_loss(decoded, pixels, settings)
        if whole:
            total = total + settings.look_weight * perception.distance(decoded, pixels)
        return total + settings.encoder_weight * functional.mse_loss(encoded, wanted)

    loop.run(loss)
    return loop.ema


def reconstruction_loss(decoded: Tensor, pixels: Tensor, settings: AutoencoderSettings) -> Tensor:
    """Absolute difference of pixels, and of their differences to the right and lower neighbour, for sharp edges."""
    error = decoded - pixels
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + settings.edge_weight * edges


def _crop(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """A part of half the side; of a few tries the one with the most contrast, as most of a picture is white."""
    corners = rng.integers(0, SIDE - CROP + 1, (CROP_TRIES, 2))
    crops = [picture[top : top + CROP, left : left + CROP] for top, left in corners]
    return max(crops, key=lambda crop: float(crop.std()))


def to_pixels(pictures: Bytes) -> Tensor:
    """uint8 [n, height, width, 3] to float32 [n, 3, height, width], -1 to 1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def project_samples(
    projection: Projection, framed: Bytes, samples: Sequence[Sample], batch: int = 256
) -> NDArray[np.float32]:
    """float32 [n, 32, 8, 8]."""
    projected = []
    for begin in range(0, len(samples), batch):
        pictures = [draw(framed[sample.row], sample.look) for sample in samples[begin : begin + batch]]
        projected.append(projection(to_pixels(np.stack(pictures))).numpy())
        if begin % (16 * batch) == 0:
            logger.info("latents: %d of %d", begin, len(samples))
    return np.concatenate(projected)


def cached_latents(
    projection: Projection, framed: Bytes, samples: Sequence[Sample], file: Path, made_from: str
) -> NDArray[np.float16]:
    """Latents of all samples, float16; kept in `file` with the text `made_from`, and made again when that differs."""
    note = file.with_suffix(".txt")
    if not (file.exists() and note.exists() and note.read_text() == made_from):
        latents = project_samples(projection, framed, samples).astype(np.float16)
        note.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, latents)
        note.write_text(made_from)
    stored: NDArray[np.float16] = np.load(file)
    return stored


@torch.inference_mode()
def reconstruction_error(
    model: AutoencoderKL, projection: Projection, framed: Bytes, samples: Sequence[Sample]
) -> float:
    """Mean absolute difference, of 255, between pictures and what the decoder makes of their latents."""
    pixels = to_pixels(np.stack([draw(framed[sample.row], sample.look) for sample in samples]))
    decoded = model.decode(projection(pixels)).sample.clamp(-1, 1)
    return float(functional.l1_loss(decoded, pixels)) * 127.5

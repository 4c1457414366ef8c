"""From framed pictures to the pipeline: autoencoder, latents, text, denoiser; each goes on where it stopped."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from training.generator.autoencoder import (
    AutoencoderSettings,
    cached_latents,
    fit_projection,
    reconstruction_error,
    train_autoencoder,
)
from training.generator.contact_sheet import FontMissingError, write_contact_sheet
from training.generator.diffusion import (
    GUIDANCE,
    STEPS,
    DiffusionSettings,
    Draws,
    TextConditioner,
    TextToLatents,
    build_unet,
    diffusion_loss,
    text_loss,
)
from training.generator.export import save_pipeline
from training.generator.perception import Perception
from training.generator.pictures import Bytes
from training.generator.samples import Sample
from training.loop import Loop, LoopSettings

logger = logging.getLogger(__name__)

PREVIEW_SECONDS = 900


@dataclass(frozen=True)
class Recipe:
    """The sizes of the models and how they are trained."""

    autoencoder: AutoencoderSettings
    autoencoder_loop: LoopSettings
    text_loop: LoopSettings
    diffusion: DiffusionSettings
    diffusion_loop: LoopSettings


def train_generator(
    framed: Bytes,
    samples: Sequence[Sample],
    clip: Path,
    recipe: Recipe,
    work: Path,
    out: Path,
    stop_at: int | None = None,
) -> None:
    """All trainings with their checkpoints in `work`; the pipeline goes to `out`. `stop_at` is a denoiser's step."""
    pictures_hash = _hash(
        framed.tobytes(), repr([(sample.row, sample.look, sample.weight) for sample in samples]).encode()
    )
    projection = fit_projection(framed, samples, recipe.autoencoder.latent_channels, recipe.autoencoder_loop.seed)
    autoencoder = train_autoencoder(
        framed,
        samples,
        projection,
        Perception(clip),
        recipe.autoencoder,
        recipe.autoencoder_loop,
        work / "autoencoder.pt",
        pictures_hash,
    )
    error = reconstruction_error(autoencoder, projection, framed, samples[:: max(len(samples) // 64, 1)])
    logger.info("autoencoder: pictures come back with a mean difference of %.1f of 255", error)
    # Not the projection's own numbers: another count of threads changes their last digits.
    made_from = _hash(
        pictures_hash.encode(), repr((recipe.autoencoder.latent_channels, recipe.autoencoder_loop.seed)).encode()
    )
    latents = cached_latents(projection, framed, samples, work / "latents.npy", made_from)
    conditioner = TextConditioner(clip)
    torch.manual_seed(recipe.diffusion_loop.seed)
    unet = build_unet(recipe.diffusion, conditioner.encoder.config.hidden_size, latents.shape[1:])
    draws = Draws(latents, samples, conditioner, recipe.diffusion.left_out)
    all_from = {
        "text encoder": conditioner.sha256,
        "samples": _hash(made_from.encode(), repr([sample.captions for sample in samples]).encode()),
        "sizes": str(recipe.diffusion),
    }
    text = Loop(TextToLatents(unet), recipe.text_loop, work / "text.pt", all_from)
    text.run(text_loss(text.model, draws, recipe.text_loop))
    unet.add_embedding.load_state_dict(text.ema.add_embedding.state_dict())
    loop = Loop(unet, recipe.diffusion_loop, work / "diffusion.pt", all_from)
    loss = diffusion_loss(unet, draws, recipe.diffusion_loop)
    loop.run(loss, _preview(loop.ema, autoencoder, conditioner, work, loop.seconds), stop_at)
    save_pipeline(loop.ema, autoencoder, conditioner, out)


def _preview(
    unet: UNet2DConditionModel, autoencoder: AutoencoderKL, conditioner: TextConditioner, work: Path, seconds: float
) -> Callable[[float], None]:
    """Now and then exports what there is and draws the contact sheet, to see how it comes along."""
    due = seconds + PREVIEW_SECONDS

    def after_step(seconds: float) -> None:
        nonlocal due
        if seconds < due:
            return
        due = seconds + PREVIEW_SECONDS
        save_pipeline(unet, autoencoder, conditioner, work / "preview")
        file = work / f"preview-{round(seconds / 60):03d}-minutes.webp"
        try:
            write_contact_sheet(work / "preview", file, num_inference_steps=STEPS, guidance_scale=GUIDANCE)
            logger.info("preview: %s", file)
        except FontMissingError as error:
            logger.warning("no preview: %s", error)

    return after_step


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

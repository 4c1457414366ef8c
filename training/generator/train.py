"""The one command: fetch and render, train the autoencoder, the text, the denoiser, export the pipeline.

    python -m training.generator.train --data DIR --out models/demo-generator

What is fetched, rendered and cached stays below DIR and is shared with `training.train`. Stop it when you like: the
same command goes on from the last checkpoint (every 5 minutes, and on SIGTERM).
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.render import TRAIN_VIEWS
from training import collect, fetch
from training.corpus import REPOSITORY, TITLES
from training.generator.autoencoder import AutoencoderSettings
from training.generator.diffusion import DiffusionSettings
from training.generator.pictures import frame_pictures
from training.generator.samples import PACKAGES, make_samples, picture_sets
from training.generator.stages import Recipe, train_generator
from training.loop import LoopSettings, OtherRunError, Stopped
from training.train import render_training_views, stage


@dataclass(frozen=True)
class Options:
    """The command line; the time budgets are in minutes of training."""

    data: Path
    out: Path
    clip: Path
    autoencoder_minutes: float
    text_minutes: float
    diffusion_minutes: float


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="packages, pictures and checkpoints are kept here")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pipeline, e.g. models/demo-generator")
    parser.add_argument("--clip", type=Path, default=REPOSITORY / "models" / "demo-clip", help="its text tower is used")
    parser.add_argument("--autoencoder-minutes", type=float, default=28)
    parser.add_argument("--text-minutes", type=float, default=7)
    parser.add_argument("--diffusion-minutes", type=float, default=70)
    options = Options(**vars(parser.parse_args()))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        run(options)
    except (fetch.FetchError, OtherRunError) as error:
        sys.exit(f"error: {error}")
    except Stopped:
        sys.exit("stopped; the same command goes on from here")


def run(options: Options) -> None:
    """Prepare the pictures, then train with the shipped sizes."""
    with stage("fetch"):
        packages = {package.name: fetch.fetch(package, options.data) for package in PACKAGES}
    with stage("renders"):
        renders = training_views(options.data / "catalogue")
    with stage("pictures"):
        sets = picture_sets(packages, renders, options.data)
        samples = make_samples(sets)
        framed = frame_pictures(sets, options.data / "generator" / "pictures.npy")
    recipe = Recipe(
        AutoencoderSettings(),
        LoopSettings(batch=8, learning_rate=1e-3, minutes=options.autoencoder_minutes),
        LoopSettings(batch=64, learning_rate=1e-3, minutes=options.text_minutes),
        DiffusionSettings(),
        LoopSettings(batch=64, learning_rate=1e-3, minutes=options.diffusion_minutes),
    )
    train_generator(framed, samples, options.clip, recipe, options.data / "generator", options.out)


def training_views(folder: Path) -> Path:
    """The products' further views; the renderer is not needed where all are there."""
    renders = folder / "renders"
    skus = [product.sku for product in collect.read_products(TITLES)]
    if all((renders / sku / view.file_name).exists() for sku in skus for view in TRAIN_VIEWS):
        return renders
    return render_training_views(folder)


if __name__ == "__main__":
    main()

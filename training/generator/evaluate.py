"""Measures a generator with the demo CLIP on 50 of the catalogue's titles, drawn with fixed seeds.

    python -m training.generator.evaluate --model models/demo-generator

Two numbers: how often a picture's ten nearest catalogue pictures are mostly of the title's category, beside how often
those of the product's real picture are, and how often a picture agrees more with its own title than with a random other
one. The titles were trained on.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.collect import Product, read_products
from training.corpus import CATALOGUE_PICTURES, REPOSITORY, TITLES
from training.evaluate import DualEncoder
from training.generator.contact_sheet import draw_prompts, load_pipeline
from training.generator.diffusion import GUIDANCE, STEPS

TITLE_COUNT = 50
NEAREST = 10


@dataclass(frozen=True)
class Score:
    """Shares in percent of `TITLE_COUNT` drawn pictures."""

    own_category: float
    own_category_of_real: float
    own_title: float

    def __str__(self) -> str:
        return (
            f"own category most frequent among the {NEAREST} nearest: {self.own_category:.0f} %"
            f" (real pictures: {self.own_category_of_real:.0f} %)\n"
            f"nearer to the own title than to a random other one: {self.own_title:.0f} %"
        )


def evaluate(model: Path, clip_folder: Path, seed: int = 0, **options: float | None) -> Score:
    """Draw `TITLE_COUNT` titles, which the seed alone chooses, and compare them with the catalogue."""
    products = read_products(TITLES)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(products), TITLE_COUNT, replace=False)
    others = (chosen + rng.integers(1, len(products), TITLE_COUNT)) % len(products)
    drawn = draw_prompts(
        load_pipeline(model), [products[row].title_zh for row in chosen], range(TITLE_COUNT), **options
    )
    clip = DualEncoder(clip_folder)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(TITLE_COUNT)]
        for file, picture in zip(files, drawn, strict=True):
            picture.save(file)
        pictures = clip.embed_pictures(files)
    catalogue = clip.embed_pictures([CATALOGUE_PICTURES / f"{product.sku}.webp" for product in products])
    own = clip.embed_texts([products[row].title_zh for row in chosen])
    other = clip.embed_texts([products[row].title_zh for row in others])
    nearer = (pictures * own).sum(1) > (pictures * other).sum(1)
    hits = [_own_category_prevails(found @ catalogue.T, products, chosen) for found in (pictures, catalogue[chosen])]
    return Score(100 * hits[0] / TITLE_COUNT, 100 * hits[1] / TITLE_COUNT, 100 * float(nearer.mean()))


def _own_category_prevails(
    similarity: NDArray[np.float32], products: Sequence[Product], chosen: NDArray[np.int64]
) -> int:
    """In how many rows the own category is more frequent than any other; a tie does not count."""
    hits = 0
    for row, nearest in zip(chosen, np.argsort(-similarity, axis=1)[:, :NEAREST], strict=True):
        counts = Counter(products[index].category_zh for index in nearest)
        own = counts.pop(products[row].category_zh, 0)
        hits += own > max(counts.values(), default=0)
    return hits


def main() -> None:
    """Parse the command line and print the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clip", type=Path, default=REPOSITORY / "models" / "demo-clip")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    options = parser.parse_args()
    print(evaluate(options.model, options.clip, num_inference_steps=options.steps, guidance_scale=options.guidance))


if __name__ == "__main__":
    main()

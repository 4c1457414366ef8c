"""A shop to tune CLIP on, whose products come in colours: the demo catalogue's, painted anew, with titles that say so.

    python -m training.coloured_shop --out DIR

Writes DIR/catalogue.jsonl and its pictures. Kinds of products that `evaluation/query_files/attributes.jsonl` asks for
are left out, so that what a tuned model finds there it has not been shown.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from clients.catalogue_import import CatalogueItem, read_catalogue
from evaluation.make_attribute_queries import KINDS, is_of
from training.collect import read_products
from training.corpus import REPOSITORY, TITLES
from training.generator.captions import COLOURS, title_in_colour_en, title_in_colour_zh
from training.generator.pictures import cut_out, recolour
from training.generator.samples import NOT_RECOLOURED, RGB_JITTER

COLOURS_OF_A_PRODUCT, IN_ENGLISH = 5, 0.3
HELD_OUT_KINDS = KINDS[::2]
QUALITY = 90


def coloured(items: list[CatalogueItem], out: Path, seed: int) -> Iterator[dict[str, str]]:
    """A line of the catalogue for each, once its picture is written."""
    chance = random.Random(seed)
    english = {product.sku: product.title_en for product in read_products(TITLES)}
    for item in items:
        if item.category in NOT_RECOLOURED or any(is_of(item, kind) for kind in HELD_OUT_KINDS):
            continue
        with Image.open(item.image) as image:
            cut = np.asarray(cut_out(image.convert("RGBA")))
        for colour in chance.sample(COLOURS, COLOURS_OF_A_PRODUCT):
            in_english = chance.random() < IN_ENGLISH
            title = (
                title_in_colour_en(english[item.sku], chance.choice(colour.names_en))
                if in_english
                else title_in_colour_zh(item.title, chance.choice(colour.names_zh))
            )
            if title is None:
                continue
            red, green, blue = (min(255, max(0, part + chance.randint(-RGB_JITTER, RGB_JITTER))) for part in colour.rgb)
            painted = Image.fromarray(recolour(cut, (red, green, blue)))
            picture = Image.new("RGB", painted.size, "white")
            picture.paste(painted, mask=painted.getchannel("A"))
            name = f"{item.sku}-{colour.names_en[0]}"
            picture.save(out / f"{name}.webp", quality=QUALITY)
            yield {"sku": name, "title": title, "image": f"{name}.webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    items = read_catalogue(REPOSITORY / "demo" / "catalogue.jsonl")
    lines = [json.dumps(line, ensure_ascii=False) for line in coloured(items, options.out, options.seed)]
    (options.out / "catalogue.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{options.out / 'catalogue.jsonl'}: {len(lines)} products")


if __name__ == "__main__":
    main()

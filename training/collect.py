"""Puts pictures, names and features together: what is trained on, and what is held out.

Held out are whole components of a graph whose edges join things that share a Chinese or an English name.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.alignment import Caption
from training.names import DATA
from training.sources import Picture

TITLE_WEIGHT, NAME_WEIGHT, TAG_WEIGHT = 4.0, 2.0, 0.5
JOINT_NAMES = 3


@dataclass(frozen=True)
class Product:
    """A product of the demo catalogue: its shop titles, and the name it has in the furniture package."""

    sku: str
    title_zh: str
    title_en: str
    category_zh: str
    name_en: str
    name_zh: str

    @property
    def texts(self) -> tuple[str, ...]:
        """All its texts, the titles first."""
        return tuple(t for t in (self.title_zh, self.title_en, self.name_zh, self.name_en, self.category_zh) if t)


def read_products(titles: Path, names: Path = DATA / "furniture_names.tsv") -> list[Product]:
    """The products of `demo/titles.csv`, in its order."""
    package_names = {}
    for line in names.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            sku, english, chinese = line.split("\t")
            package_names[sku] = (english, chinese)
    with titles.open(encoding="utf-8", newline="") as file:
        return [
            Product(row["sku"], row["title"], row["title_en"], row["category"], *package_names[row["sku"]])
            for row in csv.DictReader(file)
        ]


def product_captions(product: Product) -> tuple[Caption, ...]:
    """Titles most often, then the package's names and the category."""
    weights = {product.title_zh: TITLE_WEIGHT + 1, product.title_en: TITLE_WEIGHT, product.category_zh: TAG_WEIGHT}
    for name in (product.name_zh, product.name_en):
        if name:
            weights.setdefault(name, 1.0)
    return tuple(Caption(text, weight) for text, weight in weights.items())


def picture_captions(picture: Picture) -> tuple[Caption, ...]:
    """The label of each language often, each tag sometimes, and the first Chinese names as one text."""
    captions: dict[str, float] = {}
    for names in (picture.names_zh, picture.names_en):
        for position, name in enumerate(names):
            captions.setdefault(name, NAME_WEIGHT if position == 0 else 2 * TAG_WEIGHT / len(names))
    if len(picture.names_zh) >= JOINT_NAMES:
        captions.setdefault("、".join(picture.names_zh[:JOINT_NAMES]), 1.0)
    return tuple(Caption(text, weight) for text, weight in captions.items())


def components(names: Sequence[Iterable[str]]) -> list[int]:
    """A component number for each thing; things that share a name are in one component."""
    parent = list(range(len(names)))

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first_with: dict[str, int] = {}
    for index, own in enumerate(names):
        for name in own:
            if name:
                parent[find(index)] = find(first_with.setdefault(name.lower().strip(), index))
    return [find(index) for index in range(len(names))]


def held_out_components(numbers: Sequence[int], share: float, seed: int, largest: float = 0.05) -> set[int]:
    """Components that together hold about `share` of the things; very large ones always stay in training."""
    rng = np.random.default_rng(seed)
    kinds, counts = np.unique(np.array(numbers), return_counts=True)
    held: set[int] = set()
    size = 0
    for index in rng.permutation(len(kinds)):
        if counts[index] <= largest * len(numbers) and size + counts[index] <= share * len(numbers):
            held.add(int(kinds[index]))
            size += int(counts[index])
    return held

"""Makes the query files of composed queries from the demo catalogue; always the same.

    python -m evaluation.make_composed_queries

In `composed.jsonl` a picture of a kind of product is asked for together with a colour or material that it has not
(`with a word`), and alone (`alone`): right is what is of the kind and has it by its title. Where three of a kind are
wanted, and one is not that differs in its colour or material (`unlike one`), `unwanted` has what is like that one; the
three alone are asked for, too (`three alone`). `composed_tuning.jsonl` has other kinds. Nothing of the service reads
these tables.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

from clients.catalogue_import import CatalogueItem, read_catalogue
from evaluation.make_attribute_queries import COLOURS, KINDS, MATERIALS, Kind, has_colour, is_of, some_of
from evaluation.make_queries import CATALOGUE, Record, write

SEED = 41
PAIRS, OF_A_KIND, UNLIKE = 60, 6, 3
FEWEST, WEIGHT = 2, 0.7
MODE = "image_to_image"


class Composed:
    def __init__(self, items: Sequence[CatalogueItem], chance: random.Random) -> None:
        self._items = items
        self._chance = chance

    def with_a_word(self, kind: Kind) -> Iterator[tuple[Record, Record]]:
        of_kind = [item for item in self._items if is_of(item, kind)]
        for word, english, has in self._attributes():
            right = [item.sku for item in of_kind if has(item.title)]
            others = [item for item in of_kind if not has(item.title)]
            if len(right) < FEWEST or not others:
                continue
            shown = {"sku": self._chance.choice(others).sku}
            said = {"text": self._chance.choice((word, english)), "weight": WEIGHT}
            yield (
                {"mode": MODE, "terms": [shown], "relevant": right, "category": "alone"},
                {"mode": MODE, "terms": [shown, said], "relevant": right, "category": "with a word"},
            )

    def unlike_one(self, kind: Kind) -> Iterator[tuple[Record, Record]]:
        of_kind = [item for item in self._items if is_of(item, kind)]
        for _, _, has in self._attributes():
            unwanted = [item.sku for item in of_kind if has(item.title)]
            others = [item.sku for item in of_kind if not has(item.title)]
            if len(unwanted) < FEWEST or len(others) <= UNLIKE:
                continue
            three = [{"sku": sku} for sku in self._chance.sample(others, UNLIKE)]
            that = self._chance.choice(unwanted)
            left = {
                "relevant": [sku for sku in others if {"sku": sku} not in three],
                "unwanted": [sku for sku in unwanted if sku != that],
            }
            yield (
                {"mode": MODE, "terms": three, **left, "category": "three alone"},
                {"mode": MODE, "terms": [*three, {"sku": that, "weight": -1}], **left, "category": "unlike one"},
            )

    def _attributes(self) -> list[tuple[str, str, Callable[[str], bool]]]:
        """Some, by their Chinese and English words, each with what says whether a title has it."""
        colours = [(word, english, partial(has_colour, pattern=of)) for word, (english, of) in COLOURS.items()]
        materials = [(word, english, partial(_is_made_of, pattern=of)) for word, (english, of) in MATERIALS.items()]
        return self._chance.sample([*colours, *materials], len(colours) + len(materials))


def _is_made_of(title: str, pattern: str) -> bool:
    return bool(re.search(pattern, title.split(maxsplit=1)[0]))


def main() -> None:
    items = read_catalogue(CATALOGUE)
    for kinds, suffix, seed in ((KINDS[::2], "", SEED), (KINDS[1::2], "_tuning", SEED + 1)):
        chance = random.Random(seed)
        maker = Composed(items, chance)
        pairs: list[tuple[Record, Record]] = []
        for of_kind in (maker.with_a_word, maker.unlike_one):
            made = [pair for kind in kinds for pair in islice(of_kind(kind), OF_A_KIND)]
            pairs += some_of(made, PAIRS, chance)
        write(f"composed{suffix}", [query for pair in pairs for query in pair])


if __name__ == "__main__":
    main()

"""What things are called and what kind of thing each is: hand-written names, joined to WordNet's tree of kinds.

Through the tree a name that is no ImageNet class says which classes look like it: 狗 all breeds, 白鹭 herons.
"""

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training.names import ImageNetClass
from training.wordnet import ANIMAL, LIVING, WordNet

KNOWN_SHARE, END_SHARE = 0.7, 0.5  # the rest is guessed from the teacher
NARROWNESS = 1.5  # how much less a class counts that only shares a wider kind
MOST_ALIKE = 50  # things that share only kinds of more classes don't look alike; animals still do
TOO_WIDE = frozenset(
    {"abstraction", "matter", "substance", "material", "part", "relation", "area", "group", "state", "measure"}
)
# How well a synset fits a class, for each name of the class that it has: whole, without its last word, without its
# first; less the sense's rank among the name's. Then for being what the lists say is meant, and for having a synset.
PART_WEIGHTS, LAST_RANK = (30, 20, 10), 9
MEANT_WEIGHT, LINK_WEIGHT = 50, 20
# One character at the end of a name that says little of it: never (作家), and not in short names (专门, 罗马, 全球).
NO_ENDS, LOOSE_ENDS = (
    frozenset("家手心象果信火脚脸嘴票钱香烟水油"),
    frozenset("门书海线球针蛋派人笔纸画钟墙马龙山雪雨云叶"),
)
SHORT = 3
ONE_OF = re.compile(
    r"^(?:(?:an?|the|one|two|some|this) |[一两三几]只|[一两三几][个条辆把张台件朵棵些头匹位名块本支双座架艘颗根片群])"
)
COUNTED = re.compile(r"^(?:an? |the )?(?:set|pair|pack|bunch|group|couple|lot|piece)s? of (?:\d+ )?")


def find_class_synsets(classes: Sequence[ImageNetClass], wordnet: WordNet) -> list[int | None]:
    """The synset of each class. They stand in the order of their offsets, which tells a crane (bird) from a crane."""
    candidates: list[tuple[int, int, int]] = []  # class, offset, how well its names fit
    for number, own in enumerate(classes):
        fits: dict[int, int] = {}
        for name in own.names_en:
            words = name.split(" ")
            parts = [name, " ".join(words[:-1]), " ".join(words[1:])] if len(words) > 1 else [name]
            for part, weight in zip(parts, PART_WEIGHTS, strict=False):
                for rank, offset in enumerate(wordnet.senses(part) if part else ()):
                    fits[offset] = fits.get(offset, 0) + weight - min(rank, LAST_RANK)
        for meant in filter(None, map(wordnet.meant, own.names_en)):
            fits[meant] = fits.get(meant, 0) + MEANT_WEIGHT
        candidates += [(number, offset, fit) for offset, fit in sorted(fits.items(), reverse=True)]
    return _heaviest_ascent(candidates, len(classes))


def _heaviest_ascent(candidates: Sequence[tuple[int, int, int]], count: int) -> list[int | None]:
    """Choose at most one offset a class so that offsets ascend and as much as possible fits."""
    offsets: list[int] = []  # a staircase: ascending offsets, each with the best weight that a chain up to it has
    weights: list[int] = []
    chains: list[tuple[int, int, object]] = []
    for number, offset, fit in candidates:  # a class's own offsets descend, so that no two of them are in one chain
        place = bisect.bisect_left(offsets, offset)
        weight = fit + LINK_WEIGHT + (weights[place - 1] if place else 0)
        if place < len(offsets) and offsets[place] == offset and weights[place] >= weight:
            continue
        chain = (number, offset, chains[place - 1] if place else None)
        end = place
        while end < len(offsets) and weights[end] <= weight:
            end += 1
        offsets[place:end], weights[place:end], chains[place:end] = [offset], [weight], [chain]
    found: list[int | None] = [None] * count
    link: object = chains[-1] if chains else None
    while isinstance(link, tuple):
        found[link[0]] = link[1]
        link = link[2]
    return found


class ClassTree:
    """How much each ImageNet class looks like a synset, by how narrow the narrowest kind is that both are of."""

    def __init__(self, wordnet: WordNet, class_synsets: Sequence[int | None]) -> None:
        self._wordnet = wordnet
        self._count = len(class_synsets)
        self._below: dict[int, list[int]] = {}
        for number, offset in enumerate(class_synsets):
            for kind in wordnet.ancestors(offset) if offset is not None else ():
                self._below.setdefault(kind, []).append(number)

    def likeness(self, offset: int) -> NDArray[np.float32]:
        """float32 [classes], at most 1 for a class of the synset itself; all 0 where no kind is shared."""
        alike = np.zeros(self._count, np.float32)
        most = self._count if self._wordnet.synsets[offset].file == ANIMAL else MOST_ALIKE
        for kind in self._wordnet.ancestors(offset):
            below = self._below.get(kind, [])
            if 0 < len(below) <= most and TOO_WIDE.isdisjoint(self._wordnet.synsets[kind].names):
                value = 1.0 if kind == offset else len(below) ** -NARROWNESS
                alike[below] = np.maximum(alike[below], value)
        return alike


class NamedConcepts:
    """What a text names, as shares of the ImageNet classes: looked up where a name is known, else guessed."""

    def __init__(
        self,
        wordnet: WordNet,
        classes: Sequence[ImageNetClass],
        lines: Iterable[tuple[str, str]],
        looks: Iterable[tuple[tuple[str, ...], tuple[str, ...]]],
    ) -> None:
        synsets = find_class_synsets(classes, wordnet)
        tree = ClassTree(wordnet, synsets)
        known: dict[str, list[NDArray[np.float32]]] = {}
        for number, (own, synset) in enumerate(zip(classes, synsets, strict=True)):
            alike = np.zeros(len(classes), np.float32) if synset is None else tree.likeness(synset)
            alike[number] = 1.0
            for name in (*own.names_zh, *own.names_en):
                known.setdefault(name.lower(), []).append(_shares(alike))
        for english, chinese in lines:
            senses = [wordnet.pictured(name) for name in english.split("/")]
            likenesses = [tree.likeness(sense) for sense in senses if sense is not None]
            if any(alike.any() for alike in likenesses):
                for name in (*english.split("/"), *chinese.split("/")):
                    known.setdefault(name.lower(), []).append(_shares(np.max(likenesses, axis=0)))
        numbers = {name.lower(): number for number, own in enumerate(classes) for name in own.names_en}
        for things, alike_classes in looks:
            alike = np.zeros(len(classes), np.float32)
            alike[[numbers[name.lower()] for name in alike_classes]] = 1.0
            for name in things:
                known.setdefault(name.lower(), []).append(_shares(alike))
        self._rows = {name: row for row, name in enumerate(known)}
        self._table = np.stack([np.mean(shares, axis=0) for shares in known.values()])
        self._wordnet, self._tree = wordnet, tree

    @property
    def names(self) -> list[str]:
        """All names of the hand-written lists and of the classes."""
        return list(self._rows)

    @property
    def table(self) -> NDArray[np.float32]:
        """Each name's shares, [names, classes]."""
        return self._table

    def shares(self, texts: Sequence[str], guessed: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shares of the classes for each text, [texts, classes]; `guessed` stands in for what is not known."""
        mixed = guessed.copy()
        for row, text in enumerate(texts):
            known = self.known(ONE_OF.sub("", text.lower().strip()))  # of "a frog" as of a frog
            end = self._known_end(text) if known is None else None
            if known is not None:
                mixed[row] = KNOWN_SHARE * known + (1 - KNOWN_SHARE) * guessed[row]
            elif end is not None:
                mixed[row] = END_SHARE * end + (1 - END_SHARE) * guessed[row]
        return mixed

    def known(self, name: str) -> NDArray[np.float32] | None:
        """The shares of a name of the lists or of WordNet."""
        row = self._rows.get(name.lower().strip())
        if row is not None:
            listed: NDArray[np.float32] = self._table[row]
            return listed
        if name.isascii() and self._wordnet.senses(name) and (sense := self._wordnet.pictured(name)) is not None:
            alike = self._tree.likeness(sense)
            return _shares(alike) if alike.any() else None
        return None

    def _known_end(self, text: str) -> NDArray[np.float32] | None:
        """The shares of the longest known end of a name's first part: sofas for 深灰色布艺沙发 or "dark grey sofas"."""
        ends = (form for end in _ends(text) for form in (end, *self._wordnet.singulars(end)))
        return next((shares for end in ends if (shares := self._shares_of_end(end)) is not None), None)

    def _shares_of_end(self, end: str) -> NDArray[np.float32] | None:
        """Of what lives or is eaten WordNet's names count, too: other words have too many senses."""
        row = self._rows.get(end)
        if row is not None:
            listed: NDArray[np.float32] = self._table[row]
            return listed
        sense = self._wordnet.pictured(end) if end.isascii() and self._wordnet.senses(end) else None
        return self.known(end) if sense is not None and self._wordnet.synsets[sense].file in LIVING else None


def _ends(text: str) -> Iterator[str]:
    """What a text may name, the longest first: ends of its first part."""
    if not text.isascii():
        name = re.split(r"[ ，,、（(：:]", text, maxsplit=1)[0]
        yield from (name[i:] for i in range(len(name) - 1))
        if name and name[-1] not in NO_ENDS and (len(name) > SHORT or name[-1] not in LOOSE_ENDS):
            yield name[-1]
        return
    part = re.split(r" with | for | in | \d|[,(]", COUNTED.sub("", text.lower()), maxsplit=1)[0]
    whole = [end for end in _word_ends(part) if " of " in end]  # a chest of drawers; but a bouquet of roses
    yield from (*whole, *_word_ends(part.partition(" of ")[0]))


def _word_ends(name: str) -> list[str]:
    words = name.split()
    return [" ".join(words[i:]) for i in range(len(words))]


def _shares(alike: NDArray[np.float32]) -> NDArray[np.float32]:
    shares: NDArray[np.float32] = alike / alike.sum()
    return shares

"""Names in two languages: the hand-written lexicon and the Chinese names of ImageNet's classes.

The files in `word_lists/` were written for this project by hand and carry its licence.
"""

from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "word_lists"
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Lexicon:
    """English -> Chinese words (the first is the usual one)."""

    entries: dict[str, tuple[str, ...]]

    def translate(self, english: str) -> tuple[str, ...]:
        """Chinese for a name that the lexicon has, in singular or plural; else nothing."""
        name = english.lower().strip()
        for form in (name, name.removesuffix("s"), name.removesuffix("es"), name + "s"):
            if form in self.entries:
                return self.entries[form]
        return ()


def read_lexicon(path: Path = DATA / "lexicon.tsv") -> Lexicon:
    """Nouns (or, in `qualities.tsv`, colours, materials, shapes): English, a tab, Chinese; `/` between synonyms."""
    entries: dict[str, tuple[str, ...]] = {}
    for english, chinese in _rows(path):
        for name in english.split("/"):
            entries[name] = tuple(dict.fromkeys(entries.get(name, ()) + tuple(chinese.split("/"))))
    return Lexicon(entries)


def read_things() -> list[tuple[str, str]]:
    """(English, Chinese) names of everything that the lists know, `/` between synonyms."""
    return _rows(DATA / "lexicon.tsv") + _rows(DATA / "things.tsv")


def read_looks() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(names in both languages, English names of the ImageNet classes that look like them)."""
    return [(tuple(names.split("/")), tuple(classes.split("/"))) for names, classes in _rows(DATA / "looks.tsv")]


def read_senses() -> dict[str, str]:
    """What of WordNet's an English name means, where that isn't the usual one: a synonym, a wider kind or a thing."""
    rows = _rows(DATA / "senses.tsv")
    senses = dict(rows)
    if len(senses) < len(rows):
        raise ValueError("senses.tsv has a name twice")
    return senses


@dataclass(frozen=True)
class ImageNetClass:
    """A class of ILSVRC 2012, in the order of the classifier's outputs."""

    names_en: tuple[str, ...]
    names_zh: tuple[str, ...]


def read_imagenet_classes(path: Path = DATA / "imagenet_classes.tsv") -> list[ImageNetClass]:
    """One class a line, in the classifier's order: English names, a tab, Chinese names; `/` between synonyms."""
    classes = [ImageNetClass(tuple(en.split("/")), tuple(zh.split("/"))) for en, zh in _rows(path)]
    if len(classes) != IMAGENET_CLASSES:
        raise ValueError(f"{path} has {len(classes)} classes, the classifier {IMAGENET_CLASSES}")
    return classes


def _rows(path: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line and not line.startswith("#"):
            english, tab, chinese = line.partition("\t")
            if not tab or not chinese.strip():
                raise ValueError(f"{path}:{number} needs English, a tab, and what its head says")
            rows.append((english.strip(), chinese.strip()))
    return rows

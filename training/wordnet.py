"""WordNet's nouns: what each name may mean, which of its meanings can be seen, and of what kinds that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PICTURED_FILES = ("05", "06", "13", "20", "17", "18", "08")  # animals, artefacts, food, plants, places, people, bodies
ANIMAL, ARTEFACT, FOOD, PERSON, PLANT = "05", "06", "13", "18", "20"
LIVING = (ANIMAL, FOOD, PLANT)
USUAL_SENSES = 3
UNSEEN, ANOTHER = "-", "="  # instead of the meant sense: none can be seen; and in front of another thing


@dataclass(frozen=True)
class Synset:
    """A WordNet noun: its lexicographer file, its names, its wider kinds' offsets; an instance is one single thing."""

    file: str
    names: tuple[str, ...]
    kinds: tuple[int, ...]
    instance: bool


class WordNet:
    """Nouns by offset, and the senses of each name, the usual one first.

    Of a name whose usual sense misleads, `meant` gives a synonym or wider kind of the meant one, or another thing.
    """

    def __init__(self, folder: Path, meant: Mapping[str, str]) -> None:
        self.synsets = _read_synsets(folder / "data.noun")
        self._senses = _read_senses(folder / "index.noun")
        self._singulars = _read_singulars(folder / "noun.exc")
        self._meant = {name.lower(): sense for name, sense in meant.items()}

    def senses(self, name: str) -> tuple[int, ...]:
        """Offsets of the synsets that a name (singular or plural) has, the usual one first; none is an empty tuple."""
        return next((self._senses[form] for form in self._forms(name) if form in self._senses), ())

    def _forms(self, name: str) -> list[str]:
        """How the index may write a name: as it is, with other hyphens, in the singular."""
        key = name.lower().strip().replace(" ", "_")
        whole = [key, key.replace("-", "_"), key.replace("_", "-"), key.replace("_", "")]
        return [*whole, *self._singulars.get(key, ()), *_regular_singulars(key)]

    def _seen(self, name: str) -> list[int]:
        """The senses that can be seen, of the first form of the name that has any."""
        for form in self._forms(name):
            seen = [s for s in self._senses.get(form, ()) if self.synsets[s].file in PICTURED_FILES]
            if seen := [s for s in seen if not self.synsets[s].instance]:  # a kind: no single river, person or town
                return seen
        return []

    def pictured(self, name: str) -> int | None:
        """The sense that is meant, else the usual one that can be seen; of "crane bird", which has none, the bird's.

        A person is meant only where nothing else usually is; an animal is meant, not its meat.
        """
        if meant := self._meant_by(name):
            return None if meant == UNSEEN else self._meant_sense(name, meant)
        seen = self._seen(name)
        head, _, kind = name.rpartition(" ")
        if not seen and head:
            seen = [s for s in self._seen(head) if self._is_a(s, kind)] or self._seen(kind)
        usual = seen[:USUAL_SENSES]
        files = [self.synsets[s].file for s in usual]
        if ANIMAL in files and files[0] in (FOOD, PERSON) and ARTEFACT not in files[: files.index(ANIMAL)]:
            animal = usual[files.index(ANIMAL)]
            if files[0] == FOOD or self.synsets[animal].names[0] == name.lower():  # a poster is no post horse
                return animal
        things = [s for s, file in zip(usual, files, strict=True) if file not in (PERSON, ANIMAL)]
        return next(iter(things if files[:1] == [PERSON] else seen), seen[0] if seen else None)

    def meant(self, name: str) -> int | None:
        """The sense that the lists say is meant, if they say any."""
        meant = self._meant_by(name)
        return self._meant_sense(name, meant) if meant and meant != UNSEEN else None

    def _meant_by(self, name: str) -> str | None:
        form = next((form for form in self._forms(name) if form in self._senses), name).replace("_", " ")
        return self._meant.get(name.lower()) or self._meant.get(form)  # of cherries as of a cherry

    def _meant_sense(self, name: str, meant: str) -> int:
        if meant.startswith(ANOTHER):
            found = self._seen(meant.removeprefix(ANOTHER)) or list(self.senses(meant.removeprefix(ANOTHER)))
        else:
            head, _, last = name.rpartition(" ")
            own = self.senses(name) or (*self.senses(head), *self.senses(last))  # of a crane machine: crane, machine
            found = [s for s in own if self._is_a(s, meant)]
        if not found:
            raise ValueError(f"WordNet has no {name} that is a {meant}")
        animals = [s for s in found if self.synsets[s].file == ANIMAL]  # not its meat
        return next(iter(animals if self.synsets[found[0]].file == FOOD else found), found[0])

    def singulars(self, name: str) -> list[str]:
        """What a name may be the plural of."""
        irregular = self._singulars.get(name.replace(" ", "_"), ())
        return [*(form.replace("_", " ") for form in irregular), *_regular_singulars(name)]

    def _is_a(self, offset: int, kind: str) -> bool:
        return any(kind in self.synsets[wider].names for wider in self.ancestors(offset))

    def ancestors(self, offset: int) -> set[int]:
        """A synset and all wider kinds of it."""
        found, open_ = {offset}, [offset]
        while open_:
            for kind in self.synsets[open_.pop()].kinds:
                if kind not in found:
                    found.add(kind)
                    open_.append(kind)
        return found


def _read_synsets(path: Path) -> dict[int, Synset]:
    synsets = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):  # the licence's lines do
            fields = line.partition(" | ")[0].split()
            names = int(fields[3], 16)
            pointers = fields[5 + 2 * names :]
            kinds = tuple(int(pointers[i + 1]) for i in range(0, len(pointers), 4) if pointers[i] in {"@", "@i"})
            words = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * names : 2])
            synsets[int(fields[0])] = Synset(fields[1], words, kinds, "@i" in pointers)
    return synsets


def _read_senses(path: Path) -> dict[str, tuple[int, ...]]:
    senses = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            senses[fields[0]] = tuple(int(offset) for offset in fields[-int(fields[2]) :])
    return senses


def _read_singulars(path: Path) -> dict[str, tuple[str, ...]]:
    """Irregular plurals: plural, then one or more singulars a line."""
    lines = (line.split() for line in path.read_text(encoding="latin-1").splitlines())
    return {plural: tuple(singulars) for plural, *singulars in lines}


def _regular_singulars(name: str) -> list[str]:
    """What a name may be the plural of."""
    endings = (("s", ""), ("es", ""), ("ies", "y"))
    return [name.removesuffix(plural) + singular for plural, singular in endings if name.endswith(plural)]

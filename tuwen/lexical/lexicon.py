"""The shop's own dictionary: brands and words that stay whole, and synonyms; a file that is read anew when it changes.

A line is a word, or words of one meaning with `=` between them; `#` begins a comment. It counts in queries alone.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuwen.errors import ConfigurationError
from tuwen.lexical.terms import jieba
from tuwen.lexical.vocabulary import Meaning, meanings_of_synonyms
from tuwen.texts import lexical_text

if TYPE_CHECKING:
    import rjieba

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
LARGEST_BYTES, LONGEST_WORD = 8 * 1024 * 1024, 50
FREQUENCY, KIND = 1_000_000, "nz"  # in jieba's terms: so frequent a name that it is never cut


@dataclass(frozen=True, eq=False)
class Words:
    """What the file says. Told apart by which it is: what was made by one is kept by it."""

    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of each word that has some, the others."""
    own: "rjieba.Jieba | None" = None
    """Knows the words of the file beside its own; None: there is no file."""
    longest: int = 0
    """Characters of the longest word that has synonyms."""
    attributes: Mapping[str, Meaning | None] = field(default_factory=dict)
    """Of those that mean the same as a colour, material or size (枣褐 = 棕色), what that is."""
    read: dict[str, Any] = field(default_factory=dict)
    """What others have read of texts by these words, and keep for as long as them."""

    def cut(self, run: str) -> list[str]:
        return (self.own or jieba()).cut_for_search(run)


class Lexicon:
    """Safe for several threads. Whoever asks never waits for the file: it is read at most every two seconds."""

    def __init__(self, file: Path | None) -> None:
        """Raises ConfigurationError."""
        self._file = file
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._state = _state_of(file)
        try:
            self._words = read_words(file)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"LEXICON_FILE={file} can't be read: {error}") from error

    @property
    def words(self) -> Words:
        """A file that has become unreadable leaves what was read last."""
        if self._file is not None and time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._look_again()
        return self._words

    def _look_again(self) -> None:
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._looked_at = time.monotonic()
            state = _state_of(self._file)
            if state != self._state:
                self._state = state
                self._words = read_words(self._file)
                logger.info("Read LEXICON_FILE=%s anew", self._file)
        except (OSError, ValueError) as error:
            logger.warning("LEXICON_FILE=%s can't be read, and what it was stays in use: %s", self._file, error)
        finally:
            self._lock.release()


def read_words(file: Path | None) -> Words:
    """Raises OSError or ValueError."""
    if file is None:
        return Words()
    import rjieba  # noqa: PLC0415  # as in `terms.py`

    if file.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"it has more than {LARGEST_BYTES:,} bytes")
    synonyms: dict[str, tuple[str, ...]] = {}
    own = rjieba.Jieba()
    for line in file.read_text(encoding="utf-8-sig").split("\n"):
        meant = [word for part in line.partition("#")[0].split("=") if (word := lexical_text(part))]
        for word in meant:
            if len(word) > LONGEST_WORD:
                raise ValueError(f"a word has more than {LONGEST_WORD} characters: {word[:LONGEST_WORD]}…")
            own.add_word(word, FREQUENCY, KIND)
            if others := tuple(other for other in meant if other != word):
                synonyms[word] = tuple(dict.fromkeys((*synonyms.get(word, ()), *others)))
    return Words(synonyms, own, max(map(len, synonyms), default=0), meanings_of_synonyms(synonyms))


def _state_of(file: Path | None) -> tuple[int, int, int] | None:
    """Whether it is another: a ConfigMap's is replaced by a link, an editor's by a new file."""
    if file is None:
        return None
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size

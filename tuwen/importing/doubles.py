"""Which rows of one file have what a row above has: the same picture, one that looks like it, title and category.

What was seen stands in a small database beside the file, which takes no memory to speak of and survives a kill; it goes
with the file. A row that is read once more is not its own double.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tuwen.importing.rows import ImportRow, RowWarning
from tuwen.pictures.likeness import HASH_BYTES, first_alike
from tuwen.texts import normalise_text

logger = logging.getLogger(__name__)

SUFFIX = ".seen"
TABLES = (
    "CREATE TABLE IF NOT EXISTS seen (kind INT, key INT, line INT, PRIMARY KEY (kind, key, line)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS likeness (line INTEGER PRIMARY KEY, bytes BLOB)",
)
INSERT = "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)"
FIRST = "SELECT line FROM seen WHERE kind = ? AND key = ? AND line < ? ORDER BY line LIMIT 1"
CANDIDATES = (
    "SELECT line, bytes FROM seen JOIN likeness USING (line) WHERE kind = ? AND key = ? AND line < ? "
    "ORDER BY line LIMIT ?"
)
CACHE_KIB = 16 * 1024
TITLE, PICTURE, LIKENESS = 0, 1, 2  # and one further for each band of a likeness's hash
# Of two hashes that differ in two bits at most, as those of one picture do, one of three bands is the same.
BANDS = ((0, 22), (22, 21), (43, 21))
MOST_LOOKED_AT = 64  # of one band: many pictures on white have some in common


class Seen(NamedTuple):
    """Of a row's picture."""

    sha256: str
    likeness: bytes | None
    """Null: a plain area, which says nothing, or not looked at."""


class Doubles:
    """Blocks. Where what was seen can't be kept, nothing more is found: rows go in all the same."""

    def __init__(self, file: Path) -> None:
        self._failed = False
        self._database = sqlite3.connect(beside(file), check_same_thread=False, isolation_level=None)
        with self._unless_it_fails():
            for statement in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}"):
                self._database.execute(f"PRAGMA {statement}")
            for table in TABLES:
                self._database.execute(table)

    def close(self) -> None:
        self._database.close()

    def find(self, rows: Iterable[ImportRow], pictures: Mapping[int, Seen]) -> list[RowWarning]:
        """Of these rows, which are remembered. `pictures`: by line."""
        if self._failed:
            return []
        warnings = list[RowWarning]()
        with self._unless_it_fails():
            self._database.execute("BEGIN")
            for row in rows:
                if row.changes.title:
                    warnings += self._of_title(row, row.changes.title)
                if row.line in pictures:
                    warnings += self._of_picture(row, pictures[row.line])
            self._database.execute("COMMIT")
        return warnings

    @contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:  # a full disk, or a file that a power loss has cut
            logger.warning("Doubles within an imported file are found no more: %s", error)
            self._failed = True

    def _of_title(self, row: ImportRow, title: str) -> Iterator[RowWarning]:
        text = f"{normalise_text(title)}\0{normalise_text(row.changes.category or '')}"
        same = self._first(TITLE, _number(hashlib.blake2b(text.encode(), digest_size=8).digest()), row.line)
        if same is not None:
            yield RowWarning(row.line, row.sku, "title", f"is that of line {same}, and so is its category")

    def _of_picture(self, row: ImportRow, seen: Seen) -> Iterator[RowWarning]:
        same = self._first(PICTURE, _number(bytes.fromhex(seen.sha256)[:8]), row.line)
        alike = self._alike(row.line, seen.likeness) if seen.likeness is not None else None
        if same is not None:
            yield RowWarning(row.line, row.sku, "image", f"is the very picture of line {same}")
        elif alike is not None:
            yield RowWarning(row.line, row.sku, "image", f"looks like the picture of line {alike}")

    def _first(self, kind: int, key: int, line: int) -> int | None:
        """The first line above that has it; remembers that this one does, too."""
        found = self._database.execute(FIRST, (kind, key, line)).fetchone()
        if found is None:  # of many lines with one title the first is enough
            self._database.execute(INSERT, (kind, key, line))
        return None if found is None else int(found[0])

    def _alike(self, line: int, likeness: bytes) -> int | None:
        """The first of those that have a band in common."""
        number, alike = int.from_bytes(likeness[:HASH_BYTES], "big"), list[int]()
        for band, (shift, width) in enumerate(BANDS):
            where = (LIKENESS + band, number >> shift & (1 << width) - 1)
            rows = self._database.execute(CANDIDATES, (*where, line, MOST_LOOKED_AT)).fetchall()
            found = first_alike(likeness, [other for _, other in rows])
            alike += [] if found is None else [rows[found][0]]
            if len(rows) < MOST_LOOKED_AT:
                self._database.execute(INSERT, (*where, line))
        self._database.execute("INSERT OR IGNORE INTO likeness VALUES (?, ?)", (line, likeness))
        return min(alike, default=None)


def beside(file: Path) -> Path:
    return file.with_name(file.name + SUFFIX)


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big", signed=True)

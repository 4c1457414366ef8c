"""Numbers of people in what a file says of products: mobile and landline phones, Chinese ID numbers, mail addresses.

A shop's own numbers (barcodes, models, skus, 400 service lines) are none: digits count only as a whole, standing alone,
and an ID number by its date and check digit (GB 11643-1999).
"""

import datetime
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from pydantic import JsonValue

from tuwen.importing.rows import ImportRow, RowError, RowWarning

JOINED = "-./#_"  # one of these between two numbers of people: each is whole
# Chinese may stand beside a number, digits and Latin letters may not. Beside one that stands alone there is no word, no
# decimal and no code with hyphens, either; in front of 13800138000-01 and behind GB-0755-82345678 there is.
BEGINS, ENDS = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"
ALONE_BEFORE, ALONE_BEHIND = re.compile(r"(?<!_)(?<![0-9A-Za-z][-./#])"), re.compile(r"(?!_)(?![-./][0-9A-Za-z])")
# 138.12345678 would be a decimal, and 138-12345678 is as good a part's number.
MOBILE = re.compile(
    rf"{BEGINS}(?:(?:\+|00)?86[- ]?)?1[3-9]\d(?:\d{{8}}| \d{{8}}|(?P<between>[- .])\d{{4}}(?P=between)\d{{4}}){ENDS}"
)
LANDLINE = re.compile(
    rf"{BEGINS}(?:(?:\+|00)?86[- ])?(?:\(0(?:10|2\d|[3-9]\d\d)\) ?|0(?:10|2\d|[3-9]\d\d)-)[2-8]\d{{6,7}}"
    rf"(?:[-/]\d{{1,8}}){{0,3}}{ENDS}"  # extensions, and further lines without the area's code
)
IDENTITY = re.compile(rf"{BEGINS}[1-9]\d{{16}}[\dXx]{ENDS}")
MAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}([A-Za-z]{2,24})(?![\w-])", re.ASCII
)
ANY = re.compile(r"@|\d{4}")  # is in each of them
FILES = {"png", "jpg", "jpeg", "webp", "gif", "svg", "heic", "pdf"}  # sofa@2x.png
WEIGHTS, CHECK_DIGITS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2), "10X98765432"
EARLIEST_BIRTH = 1900
WIDE, MINUS = range(0xFF01, 0xFF5F), 0x2212  # of ASCII; which is no dash to Unicode
PHONE_NUMBER, MAIL_ADDRESS = "a phone number", "a mail address"
SHOWN = 3  # characters of a number
TEXTS, KEYS = ("title", "category", "group_id"), ("group_id",)
MOST_DEPTH = 25
EXACT = 2**53  # below it a float is the integer that was written


class Found(NamedTuple):
    kind: str
    start: int
    end: int


class Folding(dict[int, int | str | None]):
    """For `str.translate`: wide characters are narrow, each dash is a hyphen, each space a space, and what is not seen
    (U+200B, marks of direction) is not there."""

    def __missing__(self, code: int) -> int | str | None:
        self[code] = folded = self._folded(code)
        return folded

    @staticmethod
    def _folded(code: int) -> int | str | None:
        if code in WIDE:
            return code - WIDE.start + ord("!")
        category = unicodedata.category(chr(code))
        if category == "Pd" or code == MINUS:
            return "-"
        return {"Zs": " ", "Cf": None}.get(category, code)


FOLDED = Folding()


def find_personal_data(text: str) -> list[Found]:
    """In their order; none within another."""
    narrow = text if text.isascii() else text.translate(FOLDED)
    if not ANY.search(narrow):
        return []
    found = _standing_alone(narrow, _apart(_candidates(narrow)))
    if len(narrow) == len(text):
        return found
    place = [number for number, character in enumerate(text) if FOLDED[ord(character)] is not None]
    return [Found(kind, place[start], place[end - 1] + 1) for kind, start, end in found]


def _candidates(narrow: str) -> Iterator[Found]:
    for match in IDENTITY.finditer(narrow):
        if _is_identity(match[0]):
            yield Found("an ID number", *match.span())
    for pattern in (MOBILE, LANDLINE):
        for match in pattern.finditer(narrow):
            yield Found(PHONE_NUMBER, *match.span())
    for match in MAIL.finditer(narrow):
        if match[1].lower() not in FILES:
            yield Found(MAIL_ADDRESS, *match.span())


def _apart(found: Iterable[Found]) -> list[Found]:
    """In their order, those that overlap as one: 13812345678@example.com is an address."""
    apart: list[Found] = []
    for each in sorted(found, key=lambda each: (each.start, -each.end)):
        if apart and each.start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(apart[-1].end, each.end))
        else:
            apart.append(each)
    return apart


def _standing_alone(narrow: str, found: list[Found]) -> list[Found]:
    """Those that are no part of a code. Beside another that is none, with one character between, is no part, either."""
    is_joined = [
        before.end + 1 == behind.start and narrow[before.end] in JOINED for before, behind in itertools.pairwise(found)
    ]
    begins = _spread([_is_sure(each) or _fits(ALONE_BEFORE, narrow, each.start) for each in found], is_joined)
    ends = [_is_sure(each) or _fits(ALONE_BEHIND, narrow, each.end) for each in found]
    ends = _spread(ends[::-1], is_joined[::-1])[::-1]
    return [each for each, *alone in zip(found, begins, ends, strict=True) if all(alone)]


def _spread(alone: list[bool], is_joined: list[bool]) -> list[bool]:
    """To whatever is joined to the one in front."""
    for number, joined in enumerate(is_joined, 1):
        alone[number] = alone[number] or (joined and alone[number - 1])
    return alone


def _is_sure(found: Found) -> bool:
    """Wherever it stands: by its date and check digit, or by its form."""
    return found.kind != PHONE_NUMBER


def _fits(pattern: re.Pattern[str], narrow: str, place: int) -> bool:
    return pattern.match(narrow, place) is not None


def _is_identity(number: str) -> bool:
    try:
        birth = datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, number, strict=False))
    is_born = birth.year >= EARLIEST_BIRTH and birth <= datetime.date.today()
    return is_born and CHECK_DIGITS[total % 11] == number[-1].upper()


def masked(text: str) -> str:
    """Of a number its first digits are left, of an address its first letter."""
    for kind, start, end in reversed(find_personal_data(text)):
        shown = start + (1 if kind == MAIL_ADDRESS else SHOWN)
        text = text[:shown] + "*" * (end - shown) + text[end:]
    return text


def without_personal_data(row: ImportRow, *, mask: bool) -> ImportRow:
    """With a warning for each field that has some; with these masked, if they shall be. What is a key stays: the sku,
    of which nothing is said, and the group, since two that look the same when they are masked would become one."""
    own, columns = row.changes.attributes or {}, row.attributes
    texts = {name: text for name in TEXTS if (text := getattr(row.changes, name))}
    warnings = [
        _warning(row, name, kinds, mask and name not in KEYS) for name in texts if (kinds := _kinds(texts[name]))
    ]
    for name, value in (*own.items(), *columns.items()):
        if kinds := sorted({kind for text in (name, *_texts(value)) for kind in _kinds(text)}):
            warnings.append(_warning(row, f"attributes.{name}", kinds, mask))
    if not warnings:
        return row
    row = replace(row, warnings=(*row.warnings, *warnings))
    if not mask:
        return row
    values: dict[str, object] = {name: masked(text) for name, text in texts.items() if name not in KEYS}
    if own:
        values["attributes"] = masked_object(own)
    return replace(row, changes=row.changes.model_copy(update=values), attributes=masked_object(columns))


def without_numbers(said: RowError | RowWarning) -> RowError | RowWarning:
    """What a report says of a row quotes it, and is kept for weeks. The sku stays."""
    return said._replace(field=masked(said.field), reason=masked(said.reason))


def _warning(row: ImportRow, field: str, kinds: list[str], mask: bool) -> RowWarning:
    what = " and ".join(kinds)
    if mask:
        return RowWarning(row.line, row.sku, field, f"has {what}, which was masked")
    return RowWarning(row.line, row.sku, field, f"has {what}, which everybody will see")


def _kinds(text: str) -> list[str]:
    return sorted({found.kind for found in find_personal_data(text)})


def _texts(value: JsonValue, depth: int = 0) -> Iterator[str]:
    if (text := _as_text(value)) is not None:
        yield text
    elif isinstance(value, list | dict) and depth < MOST_DEPTH:
        if isinstance(value, dict):
            yield from value
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each, depth + 1)


def _as_text(value: JsonValue) -> str | None:
    """A text, or an integer, as a spreadsheet has a phone: 13812345678.0, too."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (value.is_integer() and abs(value) < EXACT):
        return None
    return str(int(value))


def _masked_value(value: JsonValue, depth: int = 0) -> JsonValue:
    if (text := _as_text(value)) is not None:
        return value if (stars := masked(text)) == text else stars
    if isinstance(value, list) and depth < MOST_DEPTH:
        return [_masked_value(each, depth + 1) for each in value]
    if isinstance(value, dict) and depth < MOST_DEPTH:
        return masked_object(value, depth)
    return value


def masked_object(value: Mapping[str, JsonValue], depth: int = 0) -> dict[str, JsonValue]:
    """In its names, too; those that are the same then are kept apart by further asterisks."""
    result: dict[str, JsonValue] = {}
    for name, each in value.items():
        free = masked(name)
        while free in result or (free != name and free in value):
            free += "*"
        result[free] = _masked_value(each, depth + 1)
    return result

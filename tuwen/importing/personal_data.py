"""Numbers of people in what a file says of products: mobile and landline phones, Chinese ID numbers, mail addresses.

A shop's own numbers (barcodes, models, skus, 400 service lines) are none: digits count only as a whole, standing alone,
and an ID number by its date and check digit (GB 11643-1999).
"""

import datetime
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from pydantic import JsonValue

from tuwen.importing.rows import ImportRow, RowWarning

# As many characters as before: what is found in one is in the same place of the other.
NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x2010: 0x2D, 0x2013: 0x2D}
# Neither part of a longer number, nor of a word, a decimal or a code with hyphens. Chinese may stand beside it.
ALONE, ENDS = r"(?<![0-9A-Za-z_])(?<![0-9A-Za-z][-./#])", r"(?![0-9A-Za-z_])(?![-./][0-9A-Za-z])"
MOBILE = re.compile(rf"{ALONE}(?:\+?86[- ]?)?1[3-9]\d([- ]?)\d{{4}}\1\d{{4}}{ENDS}")
LANDLINE = re.compile(
    rf"{ALONE}(?:\+?86[- ])?(?:\(0(?:10|2\d|[3-9]\d\d)\) ?|0(?:10|2\d|[3-9]\d\d)-)[2-8]\d{{6,7}}{ENDS}"
)
IDENTITY = re.compile(rf"{ALONE}[1-9]\d{{16}}[\dXx]{ENDS}")
MAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}([A-Za-z]{2,24})(?![\w-])", re.ASCII
)
FILES = {"png", "jpg", "jpeg", "webp", "gif", "svg", "heic", "pdf"}  # sofa@2x.png
WEIGHTS, CHECK_DIGITS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2), "10X98765432"
EARLIEST_BIRTH = 1900
SHOWN = 3  # characters of a number
MOST_DEPTH = 25


class Found(NamedTuple):
    kind: str
    start: int
    end: int


def find_personal_data(text: str) -> list[Found]:
    """In their order; none within another."""
    narrow = text.translate(NARROW)
    found = [
        *(Found("an ID number", *match.span()) for match in IDENTITY.finditer(narrow) if _is_identity(match[0])),
        *(
            Found("a phone number", *match.span())
            for pattern in (MOBILE, LANDLINE)
            for match in pattern.finditer(narrow)
        ),
        *(Found("a mail address", *match.span()) for match in MAIL.finditer(narrow) if match[1].lower() not in FILES),
    ]
    return sorted(found, key=lambda each: each.start)


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
        shown = start + (1 if kind == "a mail address" else SHOWN)
        text = text[:shown] + "*" * (end - shown) + text[end:]
    return text


def without_personal_data(row: ImportRow, *, mask: bool) -> ImportRow:
    """With a warning for each field that has some; with these masked, if they shall be. A sku stays: it is a key."""
    title, own, columns = row.changes.title, row.changes.attributes or {}, row.attributes
    values: dict[str, object] = {}
    warnings = []
    if title and (kinds := _kinds(title)):
        values["title"] = masked(title)
        warnings.append(_warning(row, "title", kinds, mask))
    for key, value in (*own.items(), *columns.items()):
        if kinds := sorted({kind for text in _texts(value) for kind in _kinds(text)}):
            warnings.append(_warning(row, f"attributes.{key}", kinds, mask))
    if not warnings:
        return row
    row = replace(row, warnings=(*row.warnings, *warnings))
    if not mask:
        return row
    if own:
        values["attributes"] = _masked_value(own)
    masked_columns = {key: _masked_value(value) for key, value in columns.items()}
    return replace(row, changes=row.changes.model_copy(update=values), attributes=masked_columns)


def _warning(row: ImportRow, field: str, kinds: list[str], mask: bool) -> RowWarning:
    what = " and ".join(kinds)
    if mask:
        return RowWarning(row.line, row.sku, field, f"has {what}, which was masked")
    return RowWarning(row.line, row.sku, field, f"has {what}, which everybody will see")


def _kinds(text: str) -> list[str]:
    return sorted({found.kind for found in find_personal_data(text)})


def _texts(value: JsonValue, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)  # as a spreadsheet has a phone
    elif isinstance(value, list | dict) and depth < MOST_DEPTH:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each, depth + 1)


def _masked_value(value: JsonValue, depth: int = 0) -> JsonValue:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, int) and not isinstance(value, bool):
        text = masked(str(value))
        return value if text == str(value) else text
    if isinstance(value, list) and depth < MOST_DEPTH:
        return [_masked_value(each, depth + 1) for each in value]
    if isinstance(value, dict) and depth < MOST_DEPTH:
        return {key: _masked_value(each, depth + 1) for key, each in value.items()}
    return value

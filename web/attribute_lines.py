"""Attributes as people type them: one a line, `颜色: 红`. Nothing of Streamlit's.

A value that is JSON is that (`3`, `true`, `["新品", "热卖"]`, `{"w": 1}`); all else is a text, and so is what stands in
quotes (`"0123"`). One JSON object for all of them is taken, too.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

COLON = re.compile("[:：]")


class NotAnAttribute(Exception):
    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


def attribute_lines(attributes: Mapping[str, Any]) -> str:
    """Which `read_attribute_lines` reads as these very attributes."""
    lines = []
    for name, value in attributes.items():
        is_plain = isinstance(value, str) and _is_one_line(value) and not _is_json(value)
        named = name if _is_one_line(name) and name[0] not in '"{' and not COLON.search(name) else _quoted(name)
        lines.append(f"{named}: {value if is_plain else _quoted(value)}")
    return "\n".join(lines)


def read_attribute_lines(text: str) -> dict[str, Any]:
    """Raises NotAnAttribute of the line that is none."""
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise NotAnAttribute(text.strip().split("\n")[0]) from error
    attributes: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.split("\n"))):
        name, value = _name_and_value(line)
        if not value or name in attributes:
            raise NotAnAttribute(line)
        attributes[name] = json.loads(value) if _is_json(value) else value
    return attributes


def _name_and_value(line: str) -> tuple[str, str]:
    if line.startswith('"'):
        try:
            name, end = json.JSONDecoder().raw_decode(line)
        except ValueError as error:
            raise NotAnAttribute(line) from error
        rest = line[end:].lstrip()
        if not COLON.match(rest):
            raise NotAnAttribute(line)
        return name, rest[1:].strip()
    name, *value = COLON.split(line, maxsplit=1)
    if not (name and value):
        raise NotAnAttribute(line)
    return name.strip(), value[0].strip()


def _is_one_line(text: str) -> bool:
    return text != "" and text == text.strip() and "\n" not in text and "\r" not in text


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)

"""Data sets as Chinese-CLIP's own training reads them (MUGE and others), sent as an archive of products.

`NAME_texts.jsonl` has lines of `{"text_id": 8428, "text": "托特包", "image_ids": [1076345]}`; `NAME_imgs.tsv` beside
it has lines of an image's id, a tab, and its bytes in base64. A text is a product, its first image the picture:
https://github.com/OFA-Sys/Chinese-CLIP, "Prepare the datasets".
"""

import base64
import binascii
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TEXTS, IMAGES = "_texts.jsonl", "_imgs.tsv"
LONGEST_LINE = 64 * 1024 * 1024
URL_SAFE = bytes.maketrans(b"-_", b"+/")


class Member(NamedTuple):
    name: str
    data: bytes


def images_beside(texts: Path) -> Path | None:
    """None: it is another kind of file."""
    if not texts.name.endswith(TEXTS):
        return None
    images = texts.with_name(texts.name.removesuffix(TEXTS) + IMAGES)
    return images if images.is_file() else None


def product_lines(texts: Path) -> Iterator[bytes]:
    """As many as there are, in their order, so that errors name the file's own lines."""
    with texts.open("rb") as file:
        for line in file:
            yield _product_line(line)


def _product_line(line: bytes) -> bytes:
    """One that can't be understood goes as it is: the service says what is wrong with it."""
    try:
        record: Any = json.loads(line)
        product = {"sku": _id(record["text_id"]), "title": record["text"]}
        if image_ids := record.get("image_ids"):
            product["image"] = _name_of(_id(_list(image_ids)[0]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return line if line.endswith(b"\n") else line + b"\n"
    return json.dumps(product, ensure_ascii=False).encode() + b"\n"


def _id(value: Any) -> str:
    if (isinstance(value, str) and value.strip()) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise TypeError(value)


def _list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise TypeError(value)


def pictures(images: Path) -> Iterator[Member]:
    """Those that can be decoded; a row that names another is an error of the service's."""
    seen = set()
    with images.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            image_id, _, encoded = line.strip().partition(b"\t")
            name = _name_of(image_id.decode(errors="replace"))
            data = decoded(encoded)
            if data and name not in seen:
                seen.add(name)
                yield Member(name, data)


def decoded(encoded: bytes) -> bytes:
    """Empty, where it is no base64 of either alphabet."""
    try:
        return base64.b64decode(encoded.translate(URL_SAFE), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _name_of(image_id: object) -> str:
    return f"{image_id}.picture"

"""Reads the unpacked packages: pictures with their names in English and Chinese.

Owns the packages' own formats (emojibase, iconify, openclipart's SVG metadata, Sweet Home 3D's catalogues).
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from training.names import Lexicon
from training.pictures import THUMBNAIL_SIDE

DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
RDF_ITEM = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
VARIATION_SELECTOR = "fe0f"
SVG_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
LONGEST_NAME = 60  # longer titles are remarks
LONGEST_STAMP_NAME = 12  # Chinese characters; longer ones tell something about the thing


@dataclass(frozen=True)
class Picture:
    """A training picture: `read` gives its encoded bytes; the first name of each language is its title."""

    source: str
    key: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    names_en: tuple[str, ...]
    names_zh: tuple[str, ...]


@dataclass(frozen=True)
class EmojiName:
    """An emoji's label and tags in both languages, from emojibase (MIT, from Unicode CLDR)."""

    key: str
    names_en: tuple[str, ...]
    names_zh: tuple[str, ...]
    group: int


def read_emoji_names(package: Path) -> dict[str, EmojiName]:
    """Names by code point sequence, lower case, without variation selectors; skin tones are left out."""
    english, chinese = (
        {
            _emoji_key(row["hexcode"]): row
            for row in json.loads((package / "package" / language / "data.json").read_text())
        }
        for language in ("en", "zh")
    )
    return {
        key: EmojiName(key, _labels(row), _labels(chinese[key]), row["group"])
        for key, row in english.items()
        if key in chinese and "group" in row  # regional indicator letters have none
    }


def _labels(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([row["label"], *row.get("tags", [])]))


def _emoji_key(code_points: str) -> str:
    return "-".join(p.lstrip("0") for p in code_points.lower().split("-") if p != VARIATION_SELECTOR)


def iconify_pictures(source: str, package: Path, names: dict[str, EmojiName]) -> Iterator[Picture]:
    """Emoji of an iconify set (SVG bodies in one JSON)."""
    icons = json.loads((package / "package" / "icons.json").read_text())
    characters = json.loads((package / "package" / "chars.json").read_text())
    seen = set()
    for code_points, icon_name in characters.items():
        name, icon = names.get(_emoji_key(code_points)), icons["icons"].get(icon_name)
        if name and icon and name.key not in seen:
            seen.add(name.key)
            svg = _iconify_svg(icon, icons)
            yield Picture(source, name.key, partial(_rasterise, svg), name.names_en, name.names_zh)


def _iconify_svg(icon: dict[str, Any], icons: dict[str, Any]) -> str:
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    return f'<svg {SVG_NAMESPACES} viewBox="0 0 {width} {height}">{icon["body"]}</svg>'


def _rasterise(svg: str) -> bytes:
    import resvg_py  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415  # not needed where the thumbnails are there already

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=THUMBNAIL_SIDE))


def emoji_file_pictures(source: str, folder: Path, names: dict[str, EmojiName]) -> Iterator[Picture]:
    """Emoji stored as one file each, named by code points."""
    for path in sorted(folder.iterdir()):
        name = names.get(_emoji_key(path.stem))
        if name:
            yield Picture(source, name.key, path.read_bytes, name.names_en, name.names_zh)


def stamp_pictures(package: Path) -> Iterator[Picture]:
    """Tux Paint's stamps, photographs mostly, that have a short Chinese name; no letters, coins or other symbols."""
    root = package / "usr/share/tuxpaint/stamps"
    for path in sorted(root.rglob("*.txt")):
        files = [file for file in (path.with_suffix(".png"), path.with_suffix(".svg")) if file.exists()]
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        chinese = next((line.partition("=")[2] for line in lines if line.startswith("zh_CN.utf8=")), "")
        names = [re.split(r"[。！？；.!?;]", text.strip())[0].strip() for text in (lines[0], chinese)]
        if files and 0 < len(names[1]) <= LONGEST_STAMP_NAME and path.relative_to(root).parts[0] != "symbols":
            key = str(path.relative_to(root).with_suffix("")).replace("/", "__")
            yield Picture("stamps", key, partial(_read_picture, files[0]), (names[0],), (names[1],))


def _read_picture(path: Path) -> bytes:
    return _rasterise(path.read_text(encoding="utf-8")) if path.suffix == ".svg" else path.read_bytes()


def openclipart_pictures(png_package: Path, svg_package: Path, lexicon: Lexicon) -> Iterator[Picture]:
    """Drawings with a title and tags in their SVG's metadata; Chinese names where the lexicon has the English one."""
    png_root = png_package / "usr/share/openclipart/png"
    svg_root = svg_package / "usr/share/openclipart/svg"
    for path in sorted(png_root.rglob("*.png")):
        key = path.relative_to(png_root).with_suffix("")
        names = openclipart_names(svg_root / key.with_suffix(".svg"))
        if names:
            chinese = tuple(dict.fromkeys(zh for name in names for zh in lexicon.translate(name)))
            yield Picture("openclipart", str(key).replace("/", "__"), path.read_bytes, names, chinese)


# Whole collections of abstract shapes, colour gradients and file-type icons, known by these names.
ABSTRACT = {
    "gramastar",
    "magick",
    "theme",
    "gradients",
    "svg gradient",
    "mime-types",
    "mimetypes",
    "filesystem",
    "flowchart",
}
UNTELLING = {
    "", "hash", "clip art", "clipart", "unsorted", "color", "colour", "image", "media", "public domain", "svg",
    "special", "icon", "icons", "action", "application", "card", "shape", "shapes", "people clipart",
    "various cliparts",
    "etiquette icons", "aiga symbol signs", "part of the flat icon collection", "svg road signs", "homes clipart",
    "openclipart", "architetto francesco rollandin", "advertising", "gradient", "simple", "mapsym",
}  # fmt: skip


def openclipart_names(svg: Path) -> tuple[str, ...]:
    """Title and tags of a drawing; empty where it has none, is abstract, or cannot be parsed."""
    try:
        metadata = ElementTree.parse(svg).getroot()
    except (ElementTree.ParseError, OSError):
        return ()
    title = next((e.text or "" for e in metadata.iter(f"{DUBLIN_CORE}title")), "")
    subject = metadata.find(f".//{DUBLIN_CORE}subject")
    tags = [] if subject is None else [e.text or "" for e in subject.iter(RDF_ITEM)]
    names = [_plain_name(name) for name in [title, *tags]]
    if ABSTRACT.intersection(names):
        return ()
    return tuple(dict.fromkeys(name for name in names if name not in UNTELLING and len(name) < LONGEST_NAME))


def _plain_name(name: str) -> str:
    name = re.sub(r"^clipart by [\w ]+ - ", "", name.strip().lower())
    return re.sub(r"[\s_]+", " ", re.sub(r"[\d#]+|\([^)]*\)", " ", name)).strip(" -.,")

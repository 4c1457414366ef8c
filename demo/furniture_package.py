"""Reads Debian's `sweethome3d-furniture` package: its catalogues, icons and models.

Owns the parsing of the package's own files and the stable sku of each product. Writes only what it extracts.
"""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "sweethome3d-furniture"
LIBRARY_DIR = Path("usr/share/sweethome3d/furniture")
CATALOGUE = "PluginFurnitureCatalog"
# Catalogue order of the libraries, so that running numbers stay the same between builds.
LIBRARIES = ("BlendSwap-CC-0", "BlendSwap-CC-BY", "KatorLegaz", "Reallusion", "Scopia")
# As stated in the package's debian/copyright, one entry a library, in SPDX names.
LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}
_SOURCE = re.compile(r"https?://www\.blendswap\.com/blends?/view/\d+")
_ATTRIBUTION = re.compile(r"creativecommons\.org/licenses/by/3\.0|Creative Commons Attribution 3\.0", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True)
class Product:
    """One entry of a furniture catalogue. Sizes are centimetres; paths are inside the library's zip."""

    sku: str
    library: str
    key: str  # the catalogue's running number, "12" of "name#12"
    name: str
    category: str
    width_cm: float
    depth_cm: float
    height_cm: float
    creator: str
    licence: str
    source: str  # address of the original work, empty if its licence file names none
    icon: str
    model: str
    rotation: tuple[float, ...] | None  # row-major 3x3, as in the property modelRotation
    tags: str
    information: str


def parse_properties(text: str) -> dict[str, str]:
    """Java .properties: `#` comments, `\\` continuation lines, `\\uXXXX` escapes."""
    values: dict[str, str] = {}
    for line in _logical_lines(text):
        key, separator, value = line.partition("=")
        if separator:
            values[key.strip()] = _ESCAPE.sub(_unescape, value.lstrip()).strip()
    return values


def _logical_lines(text: str) -> Iterator[str]:
    pending = ""
    for raw in text.splitlines():
        line = raw.lstrip()
        if not pending and line[:1] in ("", "#", "!"):
            continue
        if line.endswith("\\") and not line.endswith("\\\\"):
            pending += line[:-1]
            continue
        yield pending + line
        pending = ""


def _unescape(match: re.Match[str]) -> str:
    token = match.group(1)
    return chr(int(token[1:], 16)) if len(token) > 1 else _CONTROL.get(token, token)


def slug(identifier: str) -> str:
    """`Blend Swap CC-0#oakChair` → `blend-swap-cc-0-oak-chair`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", identifier)
    return re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-")[:64]


class Library:
    """One `.sh3f` file: a zip of properties, icons and models."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._zip = zipfile.ZipFile(path)
        self._files = set(self._zip.namelist())

    def properties(self, locale: str = "") -> dict[str, str]:
        name = f"{CATALOGUE}_{locale}.properties" if locale else f"{CATALOGUE}.properties"
        return parse_properties(self._zip.read(name).decode("latin-1")) if name in self._files else {}

    def products(self) -> Iterator[Product]:
        properties = self.properties()
        for name in properties:
            if name.startswith("id#"):
                yield self._product(properties, name.removeprefix("id#"))

    def _product(self, properties: dict[str, str], key: str) -> Product:
        def value(field: str) -> str:
            return properties.get(f"{field}#{key}", "")

        model = value("model").lstrip("/")
        licence_text = self._licence_text(model)
        source = _SOURCE.search(licence_text)
        # The file beside a model outranks the library: two models of the CC0 library are CC-BY by their own file.
        own_licence = "CC-BY-3.0" if _ATTRIBUTION.search(licence_text) else None
        rotation = tuple(float(number) for number in value("modelRotation").split())
        return Product(
            sku=slug(value("id")),
            library=self.name,
            key=key,
            name=value("name"),
            category=value("category"),
            width_cm=float(value("width")),
            depth_cm=float(value("depth")),
            height_cm=float(value("height")),
            creator=value("creator"),
            licence=own_licence or LICENCES[self.name],
            source=source.group() if source else "",
            icon=value("icon").lstrip("/"),
            model=model,
            rotation=rotation or None,
            tags=value("tags"),
            information=value("information"),
        )

    def _licence_text(self, model: str) -> str:
        folder = model.rpartition("/")[0] + "/"
        names = [name for name in self._files if name.startswith(folder) and "license" in name.lower()]
        return "\n".join(self._zip.read(name).decode("latin-1") for name in sorted(names))

    def read(self, name: str) -> bytes:
        return self._zip.read(name)

    def extract(self, target: Path) -> None:
        self._zip.extractall(target)


def open_libraries(root: Path) -> list[Library]:
    """The package's libraries below `root` (`/` when installed, else where the .deb was unpacked)."""
    return [Library(root / LIBRARY_DIR / f"{name}.sh3f") for name in LIBRARIES]


def all_products(libraries: list[Library]) -> list[Product]:
    products = [product for library in libraries for product in library.products()]
    skus = {product.sku for product in products}
    if len(skus) != len(products):
        raise ValueError("two products of the package have the same sku")
    return products

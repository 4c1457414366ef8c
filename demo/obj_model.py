"""Reads Wavefront OBJ models and their MTL materials into numpy arrays.

Written because VTK's own importer drops surfaces of some of the demo models and multiplies textures with dark colours.
Knows nothing about drawing.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
MIN_CORNERS = 3  # of a face; fewer are lines


@dataclass
class Material:
    """The parts of a MTL entry that a product picture needs."""

    diffuse: tuple[float, float, float] = (0.8, 0.8, 0.8)
    ambient: float = 0.0  # the brightest channel
    specular: float = 0.0
    shininess: float = 20.0
    opacity: float = 1.0
    texture: Path | None = None
    opacity_texture: Path | None = None


@dataclass
class Surface:
    """All faces of one material. Corner arrays are concatenated over the faces; -1 means that a corner has none."""

    material: Material
    sizes: Indices  # corners of each face, [faces]
    vertices: Indices  # index into Model.vertices, [corners]
    texture_coordinates: Indices  # [corners]
    normals: Indices  # [corners]


@dataclass
class Model:
    """Arrays are [n, 3], texture coordinates [n, 2]."""

    vertices: Floats
    texture_coordinates: Floats
    normals: Floats
    surfaces: list[Surface]


@dataclass
class _Lines:
    v: list[list[float]] = field(default_factory=list)
    vt: list[list[float]] = field(default_factory=list)
    vn: list[list[float]] = field(default_factory=list)
    faces: dict[str, list[list[tuple[int, int, int]]]] = field(default_factory=lambda: defaultdict(list))

    def corner(self, token: str) -> tuple[int, int, int]:
        vertex, texture, normal = (token + "//").split("/")[:3]
        return _index(vertex, len(self.v)), _index(texture, len(self.vt)), _index(normal, len(self.vn))


def _index(text: str, count: int) -> int:
    # OBJ counts from 1, and from the last line backwards with negative numbers.
    if not text:
        return -1
    number = int(text)
    return number - 1 if number > 0 else count + number


def read_model(path: Path) -> Model:
    lines = _Lines()
    material = ""
    materials: dict[str, Material] = {}
    with path.open(encoding="latin-1") as file:
        for line in file:
            key, _, rest = line.strip().partition(" ")
            if key == "v":
                lines.v.append([float(number) for number in rest.split()[:3]])
            elif key == "f":
                face = [lines.corner(token) for token in rest.split()]
                if len(face) >= MIN_CORNERS:
                    lines.faces[material].append(face)
            elif key == "vt":
                lines.vt.append([float(number) for number in rest.split()[:2]])
            elif key == "vn":
                lines.vn.append([float(number) for number in rest.split()[:3]])
            elif key == "usemtl":
                material = rest.strip()
            elif key == "mtllib":
                materials.update(_read_materials(path.parent / rest.strip()))
    surfaces = [_surface(materials.get(name, Material()), faces) for name, faces in lines.faces.items()]
    if not surfaces:
        raise ValueError(f"{path} holds no faces")
    return Model(_array(lines.v, 3), _array(lines.vt, 2), _array(lines.vn, 3), surfaces)


def _array(rows: list[list[float]], columns: int) -> Floats:
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def _surface(material: Material, faces: list[list[tuple[int, int, int]]]) -> Surface:
    sizes = np.array([len(face) for face in faces], dtype=np.int64)
    corners = np.array([corner for face in faces for corner in face], dtype=np.int64)
    return Surface(material, sizes, corners[:, 0], corners[:, 1], corners[:, 2])


def _read_materials(path: Path) -> dict[str, Material]:
    materials: dict[str, Material] = {}
    current = Material()
    if not path.exists():
        return materials
    for line in path.read_text(encoding="latin-1").splitlines():
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        rest = rest.strip()
        if key == "newmtl":
            current = materials[rest] = Material()
        elif rest:
            _set_field(current, key, rest, path.parent)
    return materials


def _set_field(material: Material, key: str, value: str, folder: Path) -> None:
    if key == "Kd":
        red, green, blue = (min(float(number), 1.0) for number in value.split()[:3])
        material.diffuse = (red, green, blue)
    elif key == "Ks":
        material.specular = _brightest(value)
    elif key == "Ka":
        material.ambient = _brightest(value)
    elif key == "Ns":
        material.shininess = float(value.split(maxsplit=1)[0])
    elif key == "d":
        material.opacity = float(value.rsplit(maxsplit=1)[-1])
    elif key == "map_Kd":
        material.texture = _texture(folder, value)
    elif key == "map_d":
        material.opacity_texture = _texture(folder, value)


def _brightest(value: str) -> float:
    return min(max(float(number) for number in value.split()[:3]), 1.0)


def _texture(folder: Path, value: str) -> Path | None:
    """The named file if the package holds it; a few of its materials name files that it lacks."""
    for name in (value, value.rsplit(maxsplit=1)[-1]):
        path = folder / name.replace("\\", "/")
        if path.is_file():
            return path
    return None

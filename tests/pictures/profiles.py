"""Colour profiles, made by hand: as small as they can be, and far from sRGB."""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Red, green and blue as the profiles themselves have them: XYZ, adapted to D50.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
D50 = (0.9642, 1.0, 0.8249)
GRID = 11


def rgb_profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    tags = {name: _xyz(color) for name, color in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma)))


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Of the inks of `printed`."""
    steps = np.linspace(0, 1, GRID)
    inks = np.stack(np.meshgrid(steps, steps, steps, steps, indexing="ij"), -1).reshape(-1, 4)
    lab = _lab(printed(inks))
    table = np.clip(lab * [255 / 100, 1, 1] + [0, 128, 128], 0, 255).round().astype(np.uint8)
    straight = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * each for each in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    head = b"mft1\0\0\0\0" + bytes([4, 3, GRID, 0]) + identity
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": head + 4 * straight + table.tobytes() + 3 * straight})


def printed(inks: NDArray[np.float64]) -> NDArray[np.float64]:
    """What cyan, magenta, yellow and black, each 0 to 1, look like, as sRGB from 0 to 1: dull inks."""
    cyan, magenta, yellow, black = np.moveaxis(inks, -1, 0)
    red = (1 - 0.85 * cyan) * (1 - 0.1 * magenta) * (1 - 0.02 * yellow)
    green = (1 - 0.35 * cyan) * (1 - 0.85 * magenta) * (1 - 0.1 * yellow)
    blue = (1 - 0.2 * cyan) * (1 - 0.3 * magenta) * (1 - 0.8 * yellow)
    shown: NDArray[np.float64] = np.stack((red, green, blue), -1) * (1 - 0.9 * black[..., None])
    return shown


def through(image: Image.Image, profile: bytes) -> Image.Image:
    """An sRGB picture in the numbers of the profile."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    source = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image.convert("RGB"), source, target, outputMode=image.mode)
    assert converted is not None
    return converted


def _lab(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_d50 = [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
    ratio = linear @ np.array(to_d50).T / D50
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack((116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])), -1)


def _xyz(color: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * each) for each in color))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + b"\0\0"


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(D50), b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)} | tags
    start, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = struct.pack(">I", len(tags)) + table + data
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), b"\0\0\0\0", 0x02100000, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(65536 * each) for each in D50))
    return header + bytes(128 - len(header)) + body

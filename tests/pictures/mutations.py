"""Files of every accepted format with something wrong, and every kind of metadata that a phone might write.

`python -m tests.pictures.mutations 2000 [FORMAT …]` sends so many of each format to a running service of its own.
"""

import random
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pillow_heif
from PIL import Image

from data_models import PICTURE_FORMATS
from tests.pictures.files import encoded

# EXIF's, TIFF's and some beyond: every type that there is, and that there is not.
TAGS = (
    *(0x0100, 0x010E, 0x010F, 0x0110, 0x0112, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x0213, 0x8298, 0x8769),
    *(0x8825, 0x829A, 0x829D, 0x9000, 0x9003, 0x9204, 0x927C, 0x9286, 0xA002, 0xA005, 0xC4A5, 0x0201, 0x014A),
)
TYPES = range(20)
COUNTS = (0, 1, 3, 2**31)
ODD_VALUES = (b"\xff\xff\xff\xff", b"\x08\0\0\0", bytes(4))
OPTIONS: dict[str, dict[str, object]] = {"WEBP": {"method": 0}, "AVIF": {"speed": 10}, "JPEG": {"progressive": True}}
SIDE = (96, 64)


def odd_exif(orientation: int = 6) -> Iterator[bytes]:
    """Each tag in each type, beside an orientation that is right."""
    right = struct.pack("<HHLHH", 0x0112, 3, 1, orientation, 0)
    for tag in TAGS:
        for kind in TYPES:
            value = ODD_VALUES[(tag + kind) % len(ODD_VALUES)]
            odd = struct.pack("<HHL", tag, kind, COUNTS[(tag * 7 + kind) % len(COUNTS)]) + value
            body = b"".join([right, odd] if tag != 0x0112 else [odd])
            yield b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(body) // 12) + body + bytes(4) + b"\xff" * 8


def a_picture() -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(values).resize(SIDE, Image.Resampling.BICUBIC)


def originals(image_format: str) -> list[bytes]:
    image, options = a_picture(), OPTIONS.get(image_format, {})
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encoded(image, image_format), encoded(image.convert("L"), image_format, **options)]
    if image_format not in ("GIF", "BMP", "JPEG2000"):
        files.append(encoded(image, image_format, exif=exif, **options))
    if image_format in ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        blank = Image.new("RGB", SIDE, "white")
        files.append(encoded(blank, image_format, save_all=True, append_images=[image, image]))
    return files


def mutated(image_format: str, count: int, seed: int = 0) -> Iterator[bytes]:
    dice, files = random.Random(f"{image_format}{seed}"), originals(image_format)
    for number in range(count):
        data = bytearray(files[number % len(files)])
        for _ in range(dice.choice((1, 1, 2, 4, 16))):
            _mutate(data, dice)
        # Half of the PNGs get past the sums that would refuse them all.
        yield _with_right_sums(bytes(data)) if image_format == "PNG" and number % 2 else bytes(data)


def _with_right_sums(data: bytes) -> bytes:
    made, position = bytearray(data[:8]), 8
    while position + 8 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        made += data[position:end] + struct.pack(">L", zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return bytes(made)


def _mutate(data: bytearray, dice: random.Random) -> None:
    # Headers are where it hurts, and they are short.
    at = dice.randrange(min(len(data), dice.choice((64, 512, len(data)))) or 1)
    match dice.randrange(6):
        case 0:
            data[at : at + 1] = bytes([dice.randrange(256)])
        case 1:
            data[at : at + 4] = struct.pack(">L", dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, dice.getrandbits(32))))
        case 2:
            del data[at : at + dice.randrange(1, 64)]
        case 3:
            data[at:at] = dice.randbytes(dice.randrange(1, 64))
        case 4:
            del data[at + 1 :]
        case 5:
            source = dice.randrange(len(data) or 1)
            data[at : at + 32] = data[source : source + 32]


class Outcome(Counter[int]):
    """How many answers had which status."""


def send_all(client: httpx.Client, files: Iterator[bytes], *, create_each: int = 1) -> Outcome:
    """Each is searched by, and each so-many-th created: what is let in is deleted again."""
    outcome = Outcome()
    for number, data in enumerate(files):
        upload = {"image": ("picture", data)}
        answer = client.post("/search", data={"mode": "image_to_image", "top_k": "1"}, files=upload)
        if answer.status_code in (500, 502):
            Path(tempfile.gettempdir(), f"refused-wrongly-{number}").write_bytes(data)
        outcome[answer.status_code] += 1
        if number % create_each == 0:
            answer = client.post("/product", data={"title": "变异"}, files=upload)
            outcome[answer.status_code] += 1
            if answer.status_code == httpx.codes.CREATED:
                client.delete(f"/product/{answer.json()['product_id']}").raise_for_status()
    return outcome


def main(count: int, formats: Sequence[str]) -> None:
    from tests.processes import running_api  # noqa: PLC0415
    from tests.tiny_models import save_tiny_chinese_clip, save_tiny_sentence_model  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        clip, text = (save_tiny_chinese_clip(Path(folder) / "clip"), save_tiny_sentence_model(Path(folder) / "text"))
        settings = {"CLIP_MODEL": str(clip), "TEXT_MODEL": str(text)}
        with running_api(Path(folder), **settings) as url, httpx.Client(base_url=url, timeout=90) as client:
            for image_format in formats or PICTURE_FORMATS:
                print(image_format, dict(send_all(client, mutated(image_format, count), create_each=4)), flush=True)


if __name__ == "__main__":
    pillow_heif.register_heif_opener()
    main(int(sys.argv[1]), sys.argv[2:])

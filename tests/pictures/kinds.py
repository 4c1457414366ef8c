"""Pictures as phones, suppliers and printers send them, each with what it shows, as plain 8-bit sRGB.

`python -m tests.pictures.kinds` says of each kind how near its vector and its thumbnail come to those of the plain one.
"""

import io
import struct
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from tests.pictures.files import encoded
from tests.pictures.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    cmyk_profile,
    grey_profile,
    printed,
    rgb_profile,
    through,
)
from tuwen.encoders.base import ImageTextEncoder, Vector
from tuwen.pictures.checks import check_image
from tuwen.pictures.decoding import decode_image
from tuwen.settings import PROJECT_ROOT, Settings

PRODUCT = "scopia-bamboo"
P3, ADOBE, WIDE = rgb_profile(DISPLAY_P3, 2.2), rgb_profile(ADOBE_RGB, 2.2), rgb_profile(PROPHOTO, 1.8)
DARK_GREY = grey_profile(1.4)
FINE = {"quality": 95, "subsampling": 0}


class Kind(NamedTuple):
    data: bytes
    plain: Image.Image


@cache
def product() -> Image.Image:
    """Colours of every kind on a demo picture."""
    image = Image.open(PROJECT_ROOT / "demo" / "images" / f"{PRODUCT}.webp").convert("RGB")
    for number, color in enumerate([(200, 30, 40), (33, 141, 66), (40, 60, 190), (230, 200, 90), (120, 120, 120)]):
        image.paste(color, (20 + 96 * number, 400, 100 + 96 * number, 490))
    return image


def grey() -> Image.Image:
    return product().convert("L")


def sixteen(maximum: int, dtype: str = "<u2") -> Image.Image:
    return Image.fromarray((np.asarray(grey()) / 255 * maximum).round().astype(dtype))


def white_is_zero() -> bytes:
    data = encoded(Image.fromarray(65535 - np.asarray(sixteen(65535))), "TIFF")
    entry = struct.pack("<HHLL", 262, 3, 1, 1)  # photometric interpretation: black is zero
    assert entry in data
    return data.replace(entry, entry[:8] + bytes(4))


def cmyk() -> tuple[Image.Image, Image.Image]:
    inks = product().convert("CMYK")
    shown = printed(np.asarray(inks) / 255)
    return inks, Image.fromarray((shown * 255).round().astype(np.uint8))


def printed_kind(image_format: str, **options: object) -> Kind:
    inks, shown = cmyk()
    return Kind(encoded(inks, image_format, icc_profile=cmyk_profile(), **options), shown)


def turned_with_odd_entries() -> bytes:
    """As a phone lies: EXIF says how to turn it, among entries of wrong types and a rational of -1/0."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Phone"
    exif[ExifTags.Base.ExposureBiasValue] = 1.0
    written = exif.tobytes()
    entries = [struct.pack("<HHLL", tag, 10, 1, 8) for tag in (0x010F, 0x9204, 0x011A, 0x8825, 0x8769)]
    body = struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0) + b"".join(entries)
    odd = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 6) + body + struct.pack("<l", 0) + struct.pack("<ll", -1, 0)
    data = encoded(product().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=written, **FINE)
    return data.replace(written, odd, 1).replace(
        b"\xff\xe1" + struct.pack(">H", len(written) + 2), b"\xff\xe1" + struct.pack(">H", len(odd) + 2), 1
    )


def with_second_picture() -> bytes:
    return encoded(product(), "MPO", save_all=True, append_images=[grey().resize((256, 256))], quality=95)


def with_much_text() -> bytes:
    info = PngInfo()
    info.add_text("Comment", "x" * 3_000_000, zip=True)
    return encoded(product(), "PNG", pnginfo=info)


def animation(image_format: str, blank: str = "white", **options: object) -> bytes:
    first = Image.new("RGB", product().size, blank)
    return encoded(first, image_format, save_all=True, append_images=[first, product()], duration=100, **options)


def from_a_phone_of_48_megapixels() -> bytes:
    return encoded(product().resize((7000, 7000), Image.Resampling.BICUBIC), "JPEG", quality=90)


def deep_heic() -> bytes:
    wide = (np.asarray(product()).astype("<u2") * 257).tobytes()
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", product().size, wide).save(buffer, quality=95)
    return buffer.getvalue()


def in_p3(image_format: str, **options: object) -> bytes:
    return encoded(through(product(), P3), image_format, icc_profile=P3, **options)


def cut_out_in_p3() -> bytes:
    image = through(product(), P3).convert("RGBA")
    image.putalpha(255)
    image.putpixel((0, 0), (0, 0, 0, 254))
    return encoded(image, "PNG", icc_profile=P3)


COLOUR: dict[str, Callable[[], bytes]] = {
    "plain PNG": lambda: encoded(product(), "PNG"),
    "1 JPEG with a second picture (MPO)": with_second_picture,
    "2 turned, with odd EXIF": turned_with_odd_entries,
    "4 Display P3, JPEG": lambda: in_p3("JPEG", **FINE),
    "4 Display P3, PNG with transparency": cut_out_in_p3,
    "4 Display P3, WebP": lambda: in_p3("WEBP", quality=95),
    "4 Display P3, HEIC": lambda: in_p3("HEIF", quality=95),
    "4 Display P3, AVIF": lambda: in_p3("AVIF", quality=98, subsampling="4:4:4"),
    "4 Display P3, TIFF": lambda: in_p3("TIFF", compression="tiff_lzw"),
    "4 Adobe RGB, JPEG": lambda: encoded(through(product(), ADOBE), "JPEG", icc_profile=ADOBE, **FINE),
    "4 ProPhoto, PNG": lambda: encoded(through(product(), WIDE), "PNG", icc_profile=WIDE),
    "4 broken profile": lambda: encoded(product(), "PNG", icc_profile=P3[:150]),
    "4 profile of other colours": lambda: encoded(product(), "JPEG", icc_profile=DARK_GREY, **FINE),
    "6 HEIC": lambda: encoded(product(), "HEIF", quality=90),
    "6 HEIC of 10 bits": deep_heic,
    "6 AVIF": lambda: encoded(product(), "AVIF", quality=85),
    "6 TIFF": lambda: encoded(product(), "TIFF", compression="tiff_adobe_deflate"),
    "6 TIFF of several pages": lambda: encoded(product(), "TIFF", save_all=True, append_images=[grey()]),
    "6 JPEG 2000": lambda: encoded(product(), "JPEG2000"),
    "7 48 megapixels": from_a_phone_of_48_megapixels,
    "7 PNG with 3 MB of text": with_much_text,
    "7 JPEG without its end": lambda: encoded(product(), "JPEG", **FINE)[:-2],
    "8 GIF, blank first": lambda: animation("GIF"),
    "8 WebP, blank first": lambda: animation("WEBP", "black", quality=95),
    "8 APNG, blank first": lambda: animation("PNG"),
    "8 AVIF, blank first": lambda: animation("AVIF", quality=90),
}
GREY: dict[str, Callable[[], bytes]] = {
    "3 PNG of 16 bits": lambda: encoded(sixteen(65535), "PNG"),
    "3 TIFF of 16 bits": lambda: encoded(sixteen(65535), "TIFF"),
    "3 TIFF of 16 bits, high byte first": lambda: encoded(sixteen(65535, ">u2"), "TIFF"),
    "3 TIFF of 16 bits, white is zero": white_is_zero,
    "3 TIFF of 12 bits": lambda: encoded(sixteen(4095), "TIFF"),
    "3 TIFF of 32 bits": lambda: encoded(sixteen(2**31 - 1, "<i4"), "TIFF"),
    "3 TIFF of floats to 1": lambda: encoded(Image.fromarray(np.asarray(grey(), np.float32) / 255), "TIFF"),
    "3 TIFF of floats to 255": lambda: encoded(grey().convert("F"), "TIFF"),
    "4 grey by profile, JPEG": lambda: encoded(through(grey(), DARK_GREY), "JPEG", icc_profile=DARK_GREY, quality=95),
}


def _shows(make: Callable[[], bytes], plain: Callable[[], Image.Image]) -> Kind:
    return Kind(make(), plain().convert("RGB"))


KINDS: dict[str, Callable[[], Kind]] = {
    **{name: partial(_shows, make, product) for name, make in COLOUR.items()},
    **{name: partial(_shows, make, grey) for name, make in GREY.items()},
    "4 CMYK by profile, JPEG": lambda: printed_kind("JPEG", quality=95),
    "4 CMYK by profile, TIFF": lambda: printed_kind("TIFF", compression="tiff_lzw"),
}


class Compared(NamedTuple):
    score: float
    """Cosine between the vectors of the kind and of its plain version: 1 where they are the same."""
    deviation: float
    """The most by which a colour of the thumbnail, of 16 × 16 fields, differs from the plain one's."""


class Seen(NamedTuple):
    vector: Vector
    fields: NDArray[np.float64]
    proportions: float


def compare(name: str, clip: ImageTextEncoder, settings: Settings) -> Compared:
    kind = KINDS[name]()
    plain_file = encoded(kind.plain, "PNG", compress_level=1)
    found, plain = _see(kind.data, clip, settings), _seen_before(plain_file, clip, settings)
    assert abs(found.proportions - plain.proportions) < 0.01
    return Compared(float(found.vector @ plain.vector), float(np.abs(found.fields - plain.fields).max()))


SEEN: dict[bytes, Seen] = {}  # there are four plain versions


def _seen_before(data: bytes, clip: ImageTextEncoder, settings: Settings) -> Seen:
    if data not in SEEN:
        SEEN[data] = _see(data, clip, settings)
    return SEEN[data]


def _see(data: bytes, clip: ImageTextEncoder, settings: Settings) -> Seen:
    checked = check_image(data, settings)
    [vector] = clip.encode_images([decode_image(data, trim=True)])
    return Seen(vector, _fields(checked.thumbnail), checked.width / checked.height)


def _fields(thumbnail: bytes) -> NDArray[np.float64]:
    image = Image.open(io.BytesIO(thumbnail)).convert("RGB")
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX)).astype(np.float64)


def main() -> None:
    from nlp_models import load_encoders  # noqa: PLC0415  # torch

    settings = Settings(_env_file=None, encoder_backend="torch")
    clip = load_encoders(settings).clip
    for name in KINDS:
        score, deviation = compare(name, clip, settings)
        print(f"{name:40} {score:.4f} {deviation:5.1f}")


if __name__ == "__main__":
    pillow_heif.register_heif_opener()
    main()

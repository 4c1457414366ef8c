"""Bytes into pixels: how large, which way up, what is refused, and what it costs."""

import asyncio
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from nlp_models import load_encoders
from tests.pictures.files import encoded, huge_png
from tuwen.encoders.picture import prepare_picture
from tuwen.errors import UnreadableImage
from tuwen.pictures.checks import check_image
from tuwen.pictures.decoder import PictureDecoder
from tuwen.pictures.decoding import DECODE_SIDE, decode_image, read_header
from tuwen.settings import PROJECT_ROOT, Settings

# OpenVINO in pytest's own process lets it die at the next signal that another test sends itself.
SETTINGS = Settings(_env_file=None, encoder_backend="torch")
MEGABYTE = 1 << 20
# One band of rows in two modes, and what the process does besides.
MARGIN = 24 * MEGABYTE
DEMO_PICTURES = ("scopia-bamboo", "scopia-hedge", "kator-legaz-oriental-rug")


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(mode)), np.uint8)
    return Image.fromarray(values, mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_what_is_cut_down_by_bands_is_what_pillow_makes_of_the_whole(mode: str) -> None:
    image = noise((3101, 1203), mode)
    whole = image.reduce(2)
    whole.thumbnail((DECODE_SIDE, DECODE_SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
    decoded = decode_image(encoded(image, "PNG", compress_level=1))
    assert np.array_equal(np.asarray(decoded), np.asarray(prepare_picture(whole, pad_to_square=False)))


def test_what_is_indexed_is_never_refused_for_the_queue_of_searches() -> None:
    settings = SETTINGS.model_copy(update={"query_queue_size": 1, "ingest_encode_batch_size": 64})
    data, sent_by_two = encoded(noise((40, 30)), "PNG"), 2 * settings.pictures_indexed_at_once

    async def decode_all() -> list[tuple[int, int]]:
        decoder = PictureDecoder(settings)
        return await asyncio.gather(
            *(decoder.stored_picture(data, lambda image: image.size) for _ in range(sent_by_two))
        )

    assert asyncio.run(decode_all()) == [(40, 30)] * sent_by_two


def test_a_small_picture_stays_as_it_is() -> None:
    image = noise((DECODE_SIDE, 500))
    assert np.array_equal(np.asarray(decode_image(encoded(image, "PNG"))), np.asarray(image))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_it_stands_upright_once_and_the_size_is_that_of_the_whole(image_format: str) -> None:
    image = Image.new("RGB", (3000, 2000), "red")
    image.paste("blue", (0, 0, 300, 2000))  # on the left, and on top once it is turned
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(image, image_format, exif=exif)
    checked = check_image(data, SETTINGS)
    assert (checked.width, checked.height) == (2000, 3000)
    decoded = prepare_picture(decode_image(data), pad_to_square=False)  # which turns whatever still says so
    assert decoded.size == (512, 768)
    assert np.argmax(np.asarray(decoded)[20, 256]) == 2
    assert np.argmax(np.asarray(decoded)[700, 256]) == 0
    thumbnail = Image.open(io.BytesIO(checked.thumbnail))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (213, 320))


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_a_small_product_on_a_large_empty_canvas_keeps_its_pixels(mode: str) -> None:
    image = Image.new("RGBA", (4000, 3000), (0, 0, 0, 0))
    image.paste((200, 30, 30, 255), (1000, 2000, 1500, 2400))
    options: dict[str, Any] = {"compress_level": 1}
    if mode == "P":
        image = image.convert("RGB").convert("P")
        options["transparency"] = image.getpixel((0, 0))
    data = encoded(image, "PNG", **options)
    assert decode_image(data, trim=True).size == (500, 400)
    assert decode_image(data).size == (768, 576)


@pytest.mark.parametrize("image_format", ["WEBP", "GIF", "PNG"])
def test_of_an_animation_the_first_picture_counts(image_format: str) -> None:
    first, second = Image.new("RGB", (200, 100), "red"), Image.new("RGB", (200, 100), "blue")
    data = encoded(first, image_format, save_all=True, append_images=[second])
    assert np.argmax(np.asarray(decode_image(data).convert("RGB"))[50, 100]) == 0


WHOLE: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(noise((3100, 400)), "JPEG"),
    "progressive JPEG": lambda: encoded(noise((3100, 400)), "JPEG", progressive=True),
    "PNG": lambda: encoded(noise((300, 200)), "PNG"),
    "WEBP": lambda: encoded(noise((300, 200)), "WEBP", method=0),
    "GIF": lambda: encoded(noise((300, 200)), "GIF"),
    "BMP": lambda: encoded(noise((300, 200)), "BMP"),
    "AVIF": lambda: encoded(noise((300, 200)), "AVIF", speed=10),
    "HEIC": lambda: encoded(noise((300, 200)), "HEIF"),
    "TIFF": lambda: encoded(noise((300, 200)), "TIFF"),
    "JPEG 2000": lambda: encoded(noise((300, 200)), "JPEG2000"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_that_is_cut_off_anywhere_is_refused(kind: str) -> None:
    data = WHOLE[kind]()
    check_image(data, SETTINGS)
    for share in (0.3, 0.9):
        with pytest.raises(UnreadableImage):
            check_image(data[: int(len(data) * share)], SETTINGS)


def test_a_header_that_promises_more_than_the_file_has_is_refused() -> None:
    data = huge_png(0)
    with pytest.raises(UnreadableImage, match="cut off"):
        check_image(data[: len(data) // 2], SETTINGS)


LARGE: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: huge_png(0),
    "transparent PNG": lambda: encoded(Image.new("RGBA", (4000, 2500), (9, 9, 9, 99)), "PNG", compress_level=1),
    "PNG of two channels": lambda: encoded(Image.new("LA", (4000, 2500), (9, 99)), "PNG", compress_level=1),
    "PNG with a palette": lambda: encoded(Image.new("P", (4000, 3000)), "PNG", compress_level=1, transparency=1),
    "PNG of 16 bits": lambda: encoded(Image.new("I;16", (4000, 3000)), "PNG", compress_level=1),
    "JPEG": lambda: encoded(Image.new("RGB", (4000, 2500)), "JPEG"),
    "progressive JPEG": lambda: encoded(Image.new("RGB", (4000, 2500)), "JPEG", progressive=True, subsampling=0),
    "JPEG of four channels": lambda: encoded(Image.new("CMYK", (4000, 2500)), "JPEG", progressive=True, subsampling=0),
    "WEBP": lambda: encoded(Image.new("RGB", (4000, 2500)), "WEBP", method=0),
    "animated WEBP": lambda: encoded(
        Image.new("RGBA", (3000, 2000)),
        "WEBP",
        save_all=True,
        method=0,
        append_images=[Image.new("RGBA", (3000, 2000), "red")],
    ),
    "GIF": lambda: encoded(Image.new("P", (4000, 3000)), "GIF", disposal=2, transparency=1),
    "BMP": lambda: encoded(Image.new("P", (3000, 3000)), "BMP"),
    "animated GIF": lambda: encoded(
        Image.new("P", (2000, 1500)), "GIF", save_all=True, append_images=[noise((2000, 1500))], disposal=2
    ),
    "animated PNG": lambda: encoded(
        Image.new("RGB", (2000, 1500)), "PNG", save_all=True, append_images=[noise((2000, 1500))], compress_level=1
    ),
    "HEIC": lambda: encoded(Image.new("RGB", (3000, 2000)), "HEIF"),
    "AVIF": lambda: encoded(Image.new("RGBA", (3000, 2000), (9, 9, 9, 99)), "AVIF", speed=10, subsampling="4:4:4"),
    "TIFF of one strip": lambda: encoded(
        Image.new("RGBA", (3000, 2000), (9, 9, 9, 99)), "TIFF", compression="tiff_lzw", tiffinfo={278: 2000}
    ),
    "TIFF of floats": lambda: encoded(Image.new("F", (3000, 2000)), "TIFF"),
    "JPEG 2000": lambda: encoded(Image.new("RGB", (3000, 2000)), "JPEG2000"),
    "JPEG 2000 of one resolution": lambda: encoded(Image.new("RGBA", (1500, 1000)), "JPEG2000", num_resolutions=1),
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", LARGE)
def test_decoding_takes_no_more_memory_than_it_is_counted_for(kind: str) -> None:
    data = LARGE[kind]()
    decode_image(encoded(noise((800, 600)), read_header(data).image_format), trim=True)  # what is loaded once
    counted = 4 * read_header(data).pixels_to_decode
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    decode_image(data, trim=True)
    assert memory("VmHWM") - before < counted + MARGIN


def memory(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_the_vector_of_what_is_cut_down_is_that_of_the_whole() -> None:
    """Collections of earlier versions were made of whole pictures."""
    clip = load_encoders(SETTINGS).clip
    for name in DEMO_PICTURES:
        original = Image.open(PROJECT_ROOT / "demo" / "images" / f"{name}.webp")
        scale = 1800 / max(original.size)
        large = original.resize(
            (round(original.width * scale), round(original.height * scale)), Image.Resampling.LANCZOS
        )
        whole, cut_down = clip.encode_images([large, decode_image(encoded(large, "PNG", compress_level=0), trim=True)])
        assert float(whole @ cut_down) >= 0.999

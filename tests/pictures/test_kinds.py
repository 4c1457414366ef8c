"""Pictures as phones, suppliers and printers send them: the same vector and the same colours as plain ones."""

import io
import os
import signal
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_models import PICTURE_FORMATS
from nlp_models import load_encoders
from tests.pictures.files import encoded
from tests.pictures.kinds import KINDS, compare, product
from tests.pictures.mutations import a_picture, mutated, odd_exif
from tuwen.cores import stand_behind
from tuwen.encoders.base import ImageTextEncoder
from tuwen.encoders.picture import prepare_picture
from tuwen.errors import ImageTooLarge, InvalidInput, UnreadableImage, UnsupportedImageType
from tuwen.pictures import apart
from tuwen.pictures.apart import APART, ReadersApart, bytes_to_read
from tuwen.pictures.checks import check_image
from tuwen.pictures.decoding import DECODE_SIDE, decode, decode_image
from tuwen.settings import Settings

# As in the service: what Pillow warns of is no error there.
pytestmark = pytest.mark.filterwarnings("ignore")
SETTINGS = Settings(_env_file=None, encoder_backend="torch")
LEAST_SCORE, MOST_DEVIATION = 0.98, 6
MEGABYTE = 1 << 20
MUTATED = 2000 if os.environ.get("LONG_TESTS") else 60


@pytest.fixture(scope="module")
def clip() -> ImageTextEncoder:
    return load_encoders(SETTINGS).clip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_seen_and_shown_as_its_plain_version(clip: ImageTextEncoder, kind: str) -> None:
    found = compare(kind, clip, SETTINGS)
    assert found.score >= LEAST_SCORE
    assert found.deviation <= MOST_DEVIATION


def as_pillow_has_it(data: bytes) -> Image.Image:
    return prepare_picture(Image.open(io.BytesIO(data)), pad_to_square=False)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(product(), "JPEG", exif=exif)


PLAIN: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(product(), "JPEG"),
    "grey JPEG": lambda: encoded(product().convert("L"), "JPEG", progressive=True),
    "PNG": lambda: encoded(product(), "PNG"),
    "PNG with a palette": lambda: encoded(product().convert("P"), "PNG", transparency=3),
    "PNG with transparency": lambda: encoded(cut_out(product()), "PNG"),
    "WebP": lambda: encoded(product(), "WEBP"),
    "WebP with transparency": lambda: encoded(cut_out(product()), "WEBP"),
    "GIF": lambda: encoded(product(), "GIF"),
    **{f"JPEG turned by {turn}": partial(turned, turn) for turn in range(1, 9)},
}


def cut_out(image: Image.Image) -> Image.Image:
    alpha = np.where(np.asarray(image.convert("L")) > 245, 0, 255).astype(np.uint8)
    cut = image.convert("RGBA")
    cut.putalpha(Image.fromarray(alpha))
    return cut


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_picture_has_the_pixels_that_its_stored_vector_was_made_of(kind: str) -> None:
    data = PLAIN[kind]()
    now = prepare_picture(decode_image(data, trim=True), pad_to_square=False)
    assert np.array_equal(np.asarray(now), np.asarray(as_pillow_has_it(data)))


def silhouette(box: tuple[int, int, int, int], color: tuple[int, int, int]) -> bytes:
    image = Image.new("RGBA", (400, 400))
    image.paste((*color, 255), (100, 100, 300, 300))
    image.paste((0, 0, 0, 0), box)
    return encoded(image, "PNG")


def test_white_products_that_are_cut_out_are_told_apart(clip: ImageTextEncoder) -> None:
    left, right = silhouette((100, 100, 200, 250), (255, 255, 255)), silhouette((180, 180, 300, 300), (250, 250, 250))
    vectors = clip.encode_images([decode_image(data, trim=True) for data in (left, right)])
    assert float(vectors[0] @ vectors[1]) < 0.9
    thumbnail = Image.open(io.BytesIO(check_image(left, SETTINGS).thumbnail)).convert("L")
    assert np.asarray(thumbnail).min() < 220  # it can be seen on a white page, too


def test_a_product_that_is_cut_out_stays_on_white(clip: ImageTextEncoder) -> None:
    cut = decode_image(encoded(cut_out(product()), "PNG"))
    vectors = clip.encode_images([product(), cut])
    assert float(vectors[0] @ vectors[1]) > 0.99
    assert cut.getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_no_metadata_fails_a_readable_picture(image_format: str) -> None:
    """Every tag in every type; those that say how it is turned may be odd, and then say nothing."""
    for number, exif in enumerate(odd_exif()):
        if image_format in ("TIFF", "AVIF", "HEIF") and number % 9:
            continue  # half a second for each hundred
        data = with_exif(image_format, exif)
        decoded = decode(data)
        assert {decoded.width, decoded.height} == {96, 64}, number


def with_exif(image_format: str, exif: bytes) -> bytes:
    if image_format == "TIFF":
        return odd_tiff(exif)
    if image_format in ("AVIF", "HEIF"):
        space = bytes(len(exif) - 6)
        data = encoded(a_picture(), image_format, exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(len(space) - 8))
        start = data.index(b"II*\0\x08\0\0\0")
        return data[:start] + exif[6:] + data[start + len(space) :]
    return encoded(a_picture(), image_format, exif=exif)


def odd_tiff(exif: bytes) -> bytes:
    """The odd entry stands among the picture's own, wherever its tag belongs."""
    data = encoded(a_picture(), "TIFF")
    (at,) = struct.unpack_from("<L", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[at + 2 + 12 * number :][:12] for number in range(count)]
    odd = exif[-24:-12]
    if odd[:2] not in {entry[:2] for entry in entries}:
        entries.append(odd)
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<L", len(data)) + data[8:] + directory


@pytest.mark.parametrize("image_format", [each for each in PICTURE_FORMATS if each not in APART])
def test_a_mutated_file_is_read_or_refused(image_format: str) -> None:
    for data in mutated(image_format, MUTATED):
        try:
            check_image(data, SETTINGS)
        except (UnreadableImage, UnsupportedImageType, ImageTooLarge):
            continue


NAMED = {
    b"\xff\x0a" + bytes(90): (UnsupportedImageType, "JPEG XL"),
    b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(90): (UnsupportedImageType, "JPEG XL"),
    b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom": (UnsupportedImageType, "raw"),
    b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHLL", 50706, 1, 4, 1) + bytes(4): (UnsupportedImageType, "raw"),
    b" \n<svg xmlns='http://www.w3.org/2000/svg'/>": (UnsupportedImageType, "SVG"),
    b"%PDF-1.7": (UnreadableImage, "PDF"),
    b"\0\0\0\x18ftypqt  \0\0\0\0qt  ": (UnreadableImage, "video"),
    b"PK\x03\x04": (UnreadableImage, "ZIP"),
}


@pytest.mark.parametrize("data", NAMED)
def test_what_is_refused_is_named(data: bytes) -> None:
    kind, name = NAMED[data]
    with pytest.raises(kind, match=name):
        check_image(data, SETTINGS)


def test_a_tiny_broken_end_is_no_lost_pixel() -> None:
    whole = encoded(product(), "JPEG", progressive=True)
    assert np.array_equal(np.asarray(decode_image(whole[:-2])), np.asarray(decode_image(whole)))
    for cut in (whole[:-40], encoded(product(), "JPEG")[:-40]):
        with pytest.raises(UnreadableImage):
            decode_image(cut)


class TestReadersApart:
    def test_answers_and_refusals_are_those_of_the_same_process(self) -> None:
        readers = ReadersApart(bytes_to_read(SETTINGS.image_max_pixels))
        data = encoded(product(), "HEIF", quality=90)
        assert readers.header(data, DECODE_SIDE).image_format == "HEIF"
        here, there = decode(data), readers.decode(data, side=DECODE_SIDE, trim=False)
        assert np.array_equal(np.asarray(here.image), np.asarray(there.image))
        assert here._replace(image=there.image) == there
        for image_format in APART:
            for broken in mutated(image_format, 12):
                try:
                    readers.decode(broken, side=DECODE_SIDE, trim=False)
                except InvalidInput:
                    continue
        assert readers.decode(data, side=DECODE_SIDE, trim=False).width == 512

    def test_one_that_dies_or_takes_too_much_memory_refuses_its_file_alone(self) -> None:
        large = encoded(Image.new("RGB", (5000, 4000)), "TIFF", compression="tiff_lzw", tiffinfo={278: 4000})
        readers = ReadersApart(60 * MEGABYTE)
        with pytest.raises(UnreadableImage):
            readers.decode(large, side=DECODE_SIDE, trim=False)
        small = encoded(a_picture(), "TIFF")
        assert readers.decode(small, side=DECODE_SIDE, trim=False).width == 96
        for child in children_of(os.getpid()):
            os.kill(child, signal.SIGKILL)
        assert readers.decode(small, side=DECODE_SIDE, trim=False).width == 96

    def test_one_that_does_not_come_to_an_end_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        readers, small = ReadersApart(bytes_to_read(SETTINGS.image_max_pixels)), encoded(a_picture(), "TIFF")
        readers.decode(small, side=DECODE_SIDE, trim=False)
        for child in children_of(os.getpid()):
            os.kill(child, signal.SIGSTOP)
        monkeypatch.setattr(apart, "LONGEST_WAIT_S", 3.0)
        assert readers.decode(small, side=DECODE_SIDE, trim=False).width == 96

    def test_one_that_computes_for_too_long_is_ended_and_one_that_waits_for_a_core_is_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = children_of(os.getpid())
        monkeypatch.setattr(apart, "LONGEST_S", 0)  # to the next whole second
        readers, small = ReadersApart(bytes_to_read(SETTINGS.image_max_pixels)), encoded(a_picture(), "TIFF")
        noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
        with pytest.raises(UnreadableImage):
            readers.decode(encoded(Image.fromarray(noise), "JPEG2000"), side=DECODE_SIDE, trim=False)
        readers.decode(small, side=DECODE_SIDE, trim=False)
        [child] = set(children_of(os.getpid())).difference(before)
        os.kill(child, signal.SIGSTOP)
        goes_on = threading.Timer(1.0, os.kill, [child, signal.SIGCONT])
        goes_on.start()
        assert readers.decode(small, side=DECODE_SIDE, trim=False).width == 96
        assert child in children_of(os.getpid())

    def test_one_that_the_index_started_serves_searches_with_an_ordinary_priority(self) -> None:
        readers, small = ReadersApart(bytes_to_read(SETTINGS.image_max_pixels)), encoded(a_picture(), "TIFF")
        before = children_of(os.getpid())
        with ThreadPoolExecutor(1, initializer=stand_behind) as behind:
            behind.submit(readers.header, small, DECODE_SIDE).result()
        [child] = set(children_of(os.getpid())).difference(before)
        assert os.getpriority(os.PRIO_PROCESS, child) == os.getpriority(os.PRIO_PROCESS, os.getpid())


def children_of(parent: int) -> list[int]:
    """Those that read pictures."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"tuwen.pictures.apart" in path.read_bytes():
                status = (path.parent / "status").read_text()
                found += [int(path.parent.name)] if f"PPid:\t{parent}\n" in status else []
        except OSError:  # it has ended meanwhile
            continue
    return found

"""What was read, or could not be, is let go of at once: none of it waits for the garbage collector."""

import gc
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from PIL import Image

from tests.conftest import picture
from tuwen.errors import UnreadableImage
from tuwen.pictures.decoding import decode, read_header


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def jpeg_without_its_end() -> bytes:
    return picture(size=(300, 200), image_format="JPEG")[:-2]


def png_with_a_bad_profile() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG", icc_profile=b"no profile")
    at = file.getvalue().index(b"iCCP")
    length = int.from_bytes(file.getvalue()[at - 4 : at], "big")
    end = at + 4 + length
    checksum = zlib.crc32(file.getvalue()[at:end]) ^ 1
    return file.getvalue()[:end] + checksum.to_bytes(4, "big") + file.getvalue()[end + 4 :]


def cut_off_png() -> bytes:
    return picture(size=(300, 200))[:-60]


@pytest.mark.parametrize("made", [jpeg_without_its_end, png_with_a_bad_profile, cut_off_png])
@pytest.mark.parametrize("read", [decode, read_header])
def test_of_a_pictures_bytes_nothing_is_held(read: Callable[[bytes], object], made: Callable[[], bytes]) -> None:
    data = made()
    before = sys.getrefcount(data)
    for _ in range(3):
        with suppress(UnreadableImage):
            read(data)
    assert sys.getrefcount(data) == before

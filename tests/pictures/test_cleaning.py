"""What a file says beside its pixels goes before it is stored, and no pixel changes: of sound, odd and broken files."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data_models import PICTURE_FORMATS
from tests.pictures.files import encoded
from tests.pictures.kinds import KINDS, P3
from tests.pictures.mutations import a_picture, mutated, odd_exif, originals
from tests.pictures.test_kinds import with_exif
from tuwen.errors import InvalidInput
from tuwen.pictures.checks import check_image, is_stored_as
from tuwen.pictures.cleaning import Said, cleaned
from tuwen.pictures.decoding import Decoded, decode
from tuwen.pictures.formats import format_of
from tuwen.pictures.provenance import GENERATED_XMP, encode_generated
from tuwen.settings import PROJECT_ROOT, Settings

SETTINGS = Settings(_env_file=None)
SECRET = "Zhang San, 31.2304 N"
XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description dc:creator="{SECRET}"/></x:xmpmeta>'.encode()
GPS, CREATOR, ORIENTATION, ARTIST_OF_GPS = 0x8825, 0x013B, 0x0112, 27
CLEANABLE = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"]


def telling(image_format: str, orientation: int = 6, xmp: bytes = XMP) -> bytes:
    """A photo that says who made it and where, in each of the places that its format has."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[CREATOR] = orientation, SECRET
    exif.get_ifd(GPS)[ARTIST_OF_GPS] = SECRET.encode()
    options: dict[str, object] = {"exif": exif, "icc_profile": P3}
    if image_format == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Author", SECRET, zip=True)
        info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
        options |= {"pnginfo": info}
    elif image_format == "JPEG":
        options |= {"xmp": xmp, "comment": SECRET}
    elif image_format == "TIFF":
        written = exif.tobytes()
        tags = {ORIENTATION: orientation, CREATOR: SECRET, 700: xmp, 34377: written}
        options = {"tiffinfo": tags, "compression": "tiff_lzw", "icc_profile": P3}
    else:
        options |= {"xmp": xmp}
    return encoded(a_picture(), image_format, **options)


def assert_same_picture(data: bytes, clean: bytes) -> Decoded:
    """And that cleaning it again changes nothing."""
    before, after = decode(data), decode(clean)
    assert before._replace(image=after.image) == after
    assert np.array_equal(np.asarray(before.image), np.asarray(after.image))
    said = Said(before.orientation, before.is_generated)
    assert cleaned(clean, format_of(clean), said) == cleaned(clean, format_of(clean)) == clean
    return after


@pytest.mark.parametrize("image_format", CLEANABLE)
@pytest.mark.parametrize("orientation", [1, 6])
def test_who_made_it_and_where_goes_and_its_colours_and_its_turn_stay(image_format: str, orientation: int) -> None:
    data = telling(image_format, orientation)
    image = check_image(data, SETTINGS)
    assert SECRET.encode() in data
    assert SECRET.encode() not in image.data
    assert b"rdf:Description" not in image.data
    assert_same_picture(data, image.data)
    assert P3 in (image.data, _profile_of(image.data))
    assert cleaned(data, format_of(data)) == image.data
    assert image.received_sha256 != image.sha256
    assert is_stored_as(image.sha256, data, SETTINGS)
    assert is_stored_as(image.received_sha256, data, SETTINGS)  # as 0.2.0 stored it
    assert is_stored_as(image.sha256, image.data, SETTINGS)
    assert not is_stored_as(image.sha256, encoded(a_picture(), "PNG"), SETTINGS)


def _profile_of(data: bytes) -> bytes:
    return bytes(Image.open(io.BytesIO(data)).info["icc_profile"])


def test_a_setting_keeps_all_of_it() -> None:
    data = telling("JPEG")
    image = check_image(data, SETTINGS.model_copy(update={"image_metadata": "keep"}))
    assert (image.data, image.sha256) == (data, image.received_sha256)


@pytest.mark.parametrize("image_format", CLEANABLE)
def test_the_mark_of_a_model_stays(image_format: str) -> None:
    data = telling(image_format, 6, GENERATED_XMP.encode())
    clean = check_image(data, SETTINGS)
    assert clean.is_generated
    assert SECRET.encode() not in clean.data
    assert assert_same_picture(data, clean.data).is_generated
    drawn = encode_generated(a_picture(), {"prompt": SECRET}).data
    assert SECRET.encode() not in (stored := check_image(drawn, SETTINGS)).data
    assert assert_same_picture(drawn, stored.data).is_generated


def test_comments_and_what_follows_the_picture_go() -> None:
    gif = encoded(a_picture(), "GIF", comment=SECRET, save_all=True, append_images=[Image.new("RGB", (96, 64))])
    clean = cleaned(gif + b"film", "GIF")
    assert (SECRET.encode() in clean, clean.endswith(b";"), b"NETSCAPE" in clean) == (False, True, b"NETSCAPE" in gif)
    assert_same_picture(gif, clean)
    for image_format in ("JPEG", "PNG", "WEBP"):
        data = encoded(a_picture(), image_format)
        assert cleaned(data + telling("JPEG"), image_format) == data
    boxes = encoded(a_picture(), "JPEG2000", comment="plain") + (8 + len(XMP)).to_bytes(4, "big") + b"xml " + XMP
    assert SECRET.encode() not in cleaned(boxes, "JPEG2000")
    assert_same_picture(boxes, cleaned(boxes, "JPEG2000"))


def test_a_camera_s_second_picture_goes_with_what_it_says() -> None:
    data = encoded(a_picture(), "MPO", save_all=True, append_images=[a_picture()], exif=_exif_of_a_person())
    assert data.count(b"\xff\xd8\xff") >= 2
    clean = cleaned(data, "JPEG")
    assert (clean.count(b"\xff\xd8\xff"), SECRET.encode() in clean, b"MPF\0" in clean) == (1, False, False)
    assert_same_picture(data, clean)


def _box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


BESIDE = {
    "a phone's film": _box(b"mpvd", _box(b"ftyp", b"mp42") + _box(b"moov", _box(b"udta", SECRET.encode()))),
    "a film of its own": _box(b"moov", _box(b"mvhd", bytes(100)) + _box(b"udta", SECRET.encode())),
    "what is said to be free": _box(b"free", SECRET.encode()),
    "JUMBF": _box(b"jumb", SECRET.encode()),
    "a box that is cut off": _box(b"mpvd", SECRET.encode())[:-1],
    "a box up to the end": b"\0\0\0\0mpvd" + SECRET.encode(),
    "no box": b"\1\2\3" + SECRET.encode(),
    "less than a box": SECRET.encode()[:7],
}


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF", "JPEG2000"])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_no_picture_needs_of_a_file_of_boxes_becomes_zeros(image_format: str, beside: bytes) -> None:
    alone = encoded(a_picture(), image_format)
    clean = cleaned(alone + beside, image_format)
    assert (clean[: len(alone)], len(clean)) == (cleaned(alone, image_format), len(alone + beside))
    assert SECRET.encode()[:7] not in clean
    assert_same_picture(alone, clean)


def test_a_picture_whose_box_has_an_odd_name_keeps_it() -> None:
    data = encoded(a_picture(), "AVIF").replace(b"mdat", b"free")
    assert_same_picture(data, cleaned(data + BESIDE["a phone's film"], "AVIF"))


def test_a_film_of_pictures_stays_and_what_it_says_goes() -> None:
    options = {"save_all": True, "append_images": [Image.new("RGB", (96, 64))]}
    film = encoded(a_picture(), "AVIF", exif=_exif_of_a_person(), **options)
    clean = cleaned(film, "AVIF")
    assert (SECRET.encode() in film, SECRET.encode() in clean) == (True, False)
    assert [getattr(Image.open(io.BytesIO(data)), "n_frames", 1) for data in (film, clean)] == [2, 2]
    assert_same_picture(film, clean)
    film += _box(b"moov", _box(b"trak", _box(b"udta", SECRET.encode())))
    assert cleaned(film, "AVIF") == clean + _box(b"moov", _box(b"trak", _box(b"free", bytes(len(SECRET)))))


def test_thumbnails_in_a_jpeg_s_first_segment_and_foreign_ones_of_adobe_s_number_go() -> None:
    data = encoded(a_picture(), "JPEG")
    thumbnail = (SECRET.encode() * 40)[: 3 * 16 * 16]
    with_it = data[:18] + bytes([16, 16]) + thumbnail + data[20:]
    with_it = with_it[:4] + (16 + len(thumbnail)).to_bytes(2, "big") + with_it[6:]
    clean = cleaned(with_it, "JPEG")
    assert (SECRET.encode() in clean, clean[:4], clean[18:20]) == (False, data[:4], b"\0\0")
    assert_same_picture(with_it, clean)
    foreign = b"\xff\xee" + (2 + len(SECRET)).to_bytes(2, "big") + SECRET.encode()
    assert cleaned(data[:20] + foreign + data[20:], "JPEG") == data
    adobes = encoded(a_picture().convert("CMYK"), "JPEG")
    assert b"Adobe" in adobes
    assert cleaned(adobes, "JPEG") == adobes


def _exif_of_a_person() -> Image.Exif:
    exif = Image.Exif()
    exif[CREATOR] = SECRET
    return exif


@pytest.mark.parametrize(
    "path", sorted((PROJECT_ROOT / "demo" / "images").glob("*.webp"))[:10], ids=lambda path: path.stem
)
def test_a_file_that_says_nothing_stays_as_it_is(path: Path) -> None:
    data = path.read_bytes()
    assert cleaned(data, "WEBP") is data


def test_no_kind_of_picture_changes() -> None:
    for make in KINDS.values():
        data = make().data
        clean = check_image(data, SETTINGS.model_copy(update={"image_max_pixels": 10**8})).data
        assert_same_picture(data, clean)


def odd_files(image_format: str) -> Iterator[bytes]:
    yield from originals(image_format)
    yield from mutated(image_format, 60 if image_format in ("AVIF", "HEIF", "TIFF", "JPEG2000") else 300)
    if image_format in CLEANABLE:
        for number, exif in enumerate(odd_exif()):
            if number % (30 if image_format in ("AVIF", "HEIF", "TIFF") else 7) == 0:
                yield with_exif(image_format, exif)
    if image_format in CLEANABLE:
        whole = telling(image_format)
        yield from (whole[:cut] for cut in range(12, len(whole), max(1, len(whole) // 40)))


@pytest.mark.parametrize("image_format", PICTURE_FORMATS)
def test_odd_and_broken_files_are_what_they_were(image_format: str) -> None:
    """Where a file could be read it still can, with the same pixels; where not, nothing is raised."""
    for data in odd_files(image_format):
        try:
            decoded = decode(data)
        except InvalidInput:
            cleaned(data, image_format)
            continue
        clean = cleaned(data, image_format, Said(decoded.orientation, decoded.is_generated))
        after = decode(clean)
        assert decoded._replace(image=after.image) == after
        assert np.array_equal(np.asarray(decoded.image), np.asarray(after.image))

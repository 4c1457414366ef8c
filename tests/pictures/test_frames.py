"""How far an animation is looked through for a frame that is not blank: as far as it was counted for."""

import pytest
from PIL import Image

from tests.pictures.files import encoded
from tuwen.errors import UnreadableImage
from tuwen.pictures import frames
from tuwen.pictures.decoding import decode, read_header
from tuwen.pictures.formats import format_of, open_picture
from tuwen.pictures.frames import MOST_FURTHER_FRAMES, go_to_first_seen


def blank_frames(image_format: str, side: int, number: int) -> bytes:
    """All alike to us, and none like the one before, which encoders would leave out."""
    first, *others = (Image.new("RGB", (side, side), (255 - at % 2, 255, 255)) for at in range(number))
    fast = (
        {"lossless": True, "method": 0} if image_format == "WEBP" else {"speed": 10} if image_format == "AVIF" else {}
    )
    return encoded(first, image_format, save_all=True, append_images=others, **fast)


def frames_gone_to(data: bytes) -> list[int]:
    image = open_picture(data, format_of(data))
    image.load()
    gone_to, go_to = [], image.seek

    def seek(frame: int) -> None:
        gone_to.append(frame)
        go_to(frame)

    image.seek = seek  # type: ignore[method-assign]
    go_to_first_seen(image)
    return gone_to


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_few_frames_are_looked_at(image_format: str) -> None:
    data = blank_frames(image_format, 64, MOST_FURTHER_FRAMES + 4)
    gone_to = frames_gone_to(data)
    assert [frame for frame in gone_to if frame] == [*range(1, 1 + MOST_FURTHER_FRAMES)]
    assert gone_to[-1] == 0


@pytest.mark.parametrize(("side", "gone_to"), [(250, [1, 2, 0]), (350, [])])
def test_few_pixels_are_looked_at(monkeypatch: pytest.MonkeyPatch, side: int, gone_to: list[int]) -> None:
    monkeypatch.setattr(frames, "MOST_FURTHER_PIXELS", 200_000)
    assert frames_gone_to(blank_frames("WEBP", side, 4)) == gone_to


def test_of_the_largest_that_are_let_in_no_further_frame_is_looked_at() -> None:
    assert frames_gone_to(blank_frames("WEBP", 3500, 2)) == []


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_frames_that_may_be_looked_at_are_counted(image_format: str) -> None:
    one, two = (read_header(blank_frames(image_format, 500, number)).pixels_to_decode for number in (1, 9))
    assert two - one >= MOST_FURTHER_FRAMES * 500**2


def gif_that_grows(width: int, height: int) -> bytes:
    """Its second frame as large as that, and with hardly a pixel of its own."""
    data = blank_frames("GIF", 10, 2)
    second = data.index(b",", data.index(b",", 13 + 3 * 2) + 1)
    return (
        data[: second + 1] + bytes(4) + width.to_bytes(2, "little") + height.to_bytes(2, "little") + data[second + 9 :]
    )


def test_a_gif_may_grow_a_little() -> None:
    assert decode(gif_that_grows(200, 100)).image.size == (200, 100)


@pytest.mark.parametrize(("width", "height"), [(60_000, 2_900), (3_000, 1_000)])
def test_a_gif_that_grows_out_of_all_proportion_is_refused(width: int, height: int) -> None:
    with pytest.raises(UnreadableImage, match="frames larger than the first"):
        read_header(gif_that_grows(width, height))

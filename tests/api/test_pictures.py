"""Pictures of every kind over HTTP: what is stored, what is shown for them, and that no file of anybody's is a 5xx."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from data_models import PICTURE_FORMATS
from tests.conftest import create_product, wait_until_indexed
from tests.pictures.files import encoded
from tests.pictures.kinds import product, turned_with_odd_entries
from tests.pictures.mutations import a_picture, mutated, odd_exif, send_all
from tuwen.catalogue.representation import image_url
from tuwen.pictures.thumbnails import FOR_BROWSERS, NOT_SHOWN_BY_ALL

MUTATED = 12


def stored(api_folder: Path) -> set[Path]:
    return {path for path in (api_folder / "data" / "images").rglob("*.*") if path.is_file()}


@pytest.mark.parametrize("image_format", ["HEIF", "TIFF", "JPEG2000"])
def test_what_browsers_may_lack_is_stored_as_it_came_and_shown_as_webp(
    api: httpx.Client, api_folder: Path, image_format: str
) -> None:
    options = {"compression": "tiff_lzw"} if image_format == "TIFF" else {}
    data = encoded(product().resize((800, 800)), image_format, **options)
    before = stored(api_folder)
    made = create_product(api, "手机拍的", data)
    [kept] = [path for path in stored(api_folder) - before if "thumbnails" not in path.parts]
    assert kept.read_bytes() == data
    assert kept.suffix[1:] in NOT_SHOWN_BY_ALL
    answers = [api.get(made["image_url"]) for _ in range(2)]  # made, and then kept
    for answer in answers:
        assert answer.headers["Content-Type"] == "image/webp"
        shown = Image.open(io.BytesIO(answer.content))
        assert shown.size == (800, 800)
    assert answers[0].content == answers[1].content
    colours = [np.asarray(each.resize((8, 8))).astype(int) for each in (shown, product())]
    assert np.abs(colours[0] - colours[1]).max() <= 6
    original = api.get(image_url(str(kept.relative_to(api_folder / "data" / "images"))))
    assert original.content == data
    wait_until_indexed(api)
    query = {"image": ("same.png", encoded(product(), "PNG"))}
    hits = api.post("/search", data={"mode": "image_to_image", "top_k": "1"}, files=query).json()["hits"]
    assert hits[0]["score"] > 0.98
    api.delete(f"/product/{made['product_id']}").raise_for_status()


def test_an_odd_entry_beside_its_turn_is_no_error(api: httpx.Client) -> None:
    made = create_product(api, "竖着拍的", turned_with_odd_entries())
    assert (made["image_width"], made["image_height"]) == product().size
    files = (encoded(a_picture(), "JPEG", exif=exif) for number, exif in enumerate(odd_exif()) if number % 11 == 0)
    assert set(send_all(api, files, create_each=5)) == {200, 201}


@pytest.mark.parametrize("image_format", PICTURE_FORMATS)
def test_a_mutated_file_is_read_or_refused_and_a_refused_one_leaves_nothing(
    api: httpx.Client, api_folder: Path, image_format: str
) -> None:
    before = stored(api_folder)
    outcome = send_all(api, mutated(image_format, MUTATED, seed=1), create_each=2)
    assert set(outcome) <= {200, 201, 413, 415, 422}
    left = {path.stem for path in stored(api_folder) - before}
    assert len(left) <= outcome[201]


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_what_is_made_of_a_picture_has_its_own_names_alone(
    api: httpx.Client, api_folder: Path, image_format: str
) -> None:
    """By any other, a copy would be made that outlives the product: sweeps take away what they know."""
    made = create_product(api, "一张图片", encoded(product(), image_format))
    urls = {made["image_url"], made["thumbnail_url"]}
    for url in urls:
        api.get(url).raise_for_status()
    thumbnail, before = made["thumbnail_url"], stored(api_folder)
    names = {f"{thumbnail.rpartition('.')[0]}.{each.extensions[0]}" for each in PICTURE_FORMATS.values()}
    names |= {name.replace("thumbnails", FOR_BROWSERS) for name in names}
    assert {name: api.get(name).status_code for name in names - urls} == dict.fromkeys(names - urls, 404)
    assert stored(api_folder) == before
    for path in (api_folder / "data" / "images" / FOR_BROWSERS, api_folder / "data" / "images" / "thumbnails"):
        for file in path.rglob(f"{Path(thumbnail).stem}.webp"):
            file.unlink()
    assert [api.get(url).status_code for url in urls] == [200, 200]  # made again
    assert stored(api_folder) == before
    api.delete(f"/product/{made['product_id']}").raise_for_status()

"""The demo catalogue is complete and consistent: products, pictures, held-out views, titles and credits."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from tests.processes import ROOT

DEMO = ROOT / "demo"
VIEWS = ROOT / "evaluation" / "views"
PRODUCTS = 820
LICENCES = {"CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US"}
KEYS = ["sku", "title", "category", "attributes", "image"]


@cache
def catalogue() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / "catalogue.jsonl").read_text(encoding="utf-8").splitlines()]


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("*.webp")]


def has_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def test_every_product_once_and_sorted() -> None:
    skus = [product["sku"] for product in catalogue()]
    assert len(skus) == PRODUCTS
    assert skus == sorted(set(skus))


def test_every_product_has_all_fields() -> None:
    for product in catalogue():
        assert list(product) == KEYS
        assert all(product[key] for key in KEYS), product["sku"]
        assert {"title_en", "width_cm", "depth_cm", "height_cm"} <= product["attributes"].keys()
        assert product["attributes"]["licence"] in LICENCES


def test_fields_fit_the_database() -> None:
    for product in catalogue():
        assert len(product["sku"]) <= 64
        assert len(product["title"]) <= 500
        assert len(product["category"]) <= 100


def test_titles_and_categories_are_chinese() -> None:
    for product in catalogue():
        assert has_chinese(product["title"]), product["sku"]
        assert has_chinese(product["category"]), product["sku"]
        assert not has_chinese(product["attributes"]["title_en"]), product["sku"]


def test_images_open_are_square_and_show_something() -> None:
    for product in catalogue():
        with Image.open(DEMO / product["image"]) as image:
            assert (image.format, image.size) == ("WEBP", (512, 512)), product["sku"]
            darkest, brightest = image.reduce(8).convert("L").getextrema()
        assert isinstance(darkest, int)
        assert isinstance(brightest, int)
        assert brightest - darkest > 15, product["sku"]


def test_images_are_exactly_those_of_the_catalogue_and_small() -> None:
    names = {path.name for path in (DEMO / "images").iterdir()}
    assert names == {f"{product['sku']}.webp" for product in catalogue()}
    assert sum(sizes(DEMO / "images")) < 25_000_000


def test_two_held_out_views_of_every_product() -> None:
    expected = {f"{product['sku']}_{number}.webp" for product in catalogue() for number in (1, 2)}
    assert {path.name for path in VIEWS.iterdir()} == expected
    assert sum(sizes(VIEWS)) < 12_000_000
    with Image.open(VIEWS / sorted(expected)[0]) as image:
        assert image.size == (320, 320)


def test_attribution_names_every_product_with_author_and_licence() -> None:
    rows = {}
    for line in (DEMO / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 6:
            rows[cells[0]] = cells
    for product in catalogue():
        _, _, author, licence, *_ = rows[product["sku"]]
        assert (author, licence) == (product["attributes"]["author"], product["attributes"]["licence"])


def test_licence_texts_ship_with_the_pictures() -> None:
    statement = (DEMO / "package-copyright.txt").read_text(encoding="utf-8")
    for licence in ("License: CC-BY-3.0-USA", "License: CC-BY-3.0", "License: CC0"):
        assert licence in statement

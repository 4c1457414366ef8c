"""Rows that name several pictures: a list, or | between them in a cell; all of a product's pictures go out and back."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from clients.catalogue_import import open_client
from clients.file_import import begin_import
from data_models import ProductChanges
from orm_models import ProductRow
from tests.conftest import picture, wait_until_indexed
from tests.importing.files import counts_of, csv_of, errors_of, import_file, json_lines_of, wait_for_job, zip_of
from tests.importing.kills import import_all
from tests.importing.test_imports import product_of
from tuwen.catalogue.pictures import pictures_of
from tuwen.database.start import open_database
from tuwen.importing.columns import named_pictures
from tuwen.importing.files import new_file
from tuwen.importing.jobs import ImportJobs
from tuwen.importing.pictures import first_with_pictures
from tuwen.importing.rows import ImportRow
from tuwen.settings import Settings

PICTURES = {f"{name}.png": picture(name) for name in ("red", "blue", "green", "black")}


def shop(*rows: dict[str, object]) -> bytes:
    return zip_of({"a.jsonl": json_lines_of(*rows), **PICTURES})


def shown(client: httpx.Client, sku: str) -> list[bytes]:
    return [client.get(each["image_url"]).content for each in product_of(client, sku)["images"]]


def named(*names: str) -> list[bytes]:
    return [PICTURES[f"{name}.png"] for name in names]


def test_a_row_names_all_pictures_and_the_same_again_is_no_change(api: httpx.Client) -> None:
    row: dict[str, Any] = {"sku": "SP-1", "title": "三张图片", "image": ["red.png", "blue.png", "green.png"]}
    assert counts_of(import_file(api, shop(row), "upsert")) == (1, 0, 0, 0)
    assert shown(api, "SP-1") == named("red", "blue", "green")
    wait_until_indexed(api)
    before = product_of(api, "SP-1")
    assert counts_of(import_file(api, shop(row), "upsert")) == (0, 0, 1, 0)
    assert product_of(api, "SP-1") == before
    assert counts_of(import_file(api, shop(row | {"image": "red.png"}), "upsert")) == (0, 0, 1, 0)
    assert len(shown(api, "SP-1")) == 3  # one picture in a row says nothing of the further ones
    for names in (["green", "red"], ["green", "black", "red"], ["blue"]):
        change = row | {"image": [f"{name}.png" for name in names]}
        assert counts_of(import_file(api, shop(change), "upsert")) == (0, 1, 0, 0)
        assert shown(api, "SP-1") == named(*names)


def test_what_cannot_be_is_an_error_of_its_row(api: httpx.Client) -> None:
    rows: list[dict[str, object]] = [
        {"sku": "SP-2", "title": "两次", "image": ["red.png", "red.png"]},
        {"sku": "SP-3", "title": "太多", "image": ["red.png"] * 10},
        {"sku": "SP-4", "title": "缺一张", "image": ["red.png", "none.png"]},
        {"sku": "SP-5", "title": "好的", "image": ["red.png", "black.png"]},
    ]
    job = import_file(api, shop(*rows))
    assert counts_of(job) == (1, 0, 0, 3)
    assert [(line, field) for line, _, field, _ in errors_of(api, job)] == [
        ("1", "images"), ("2", "image"), ("3", "image"),
    ]  # fmt: skip


def test_a_cell_names_several_that_lie_beside_the_file_and_an_archive_has_them_all(
    api: httpx.Client, tmp_path: Path
) -> None:
    for name, data in PICTURES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a.csv").write_bytes(csv_of(["sku", "title", "图片"], ["SP-6", "一格两张", "blue.png | black.png"]))
    with open_client(str(api.base_url)) as client:
        job = wait_for_job(client, begin_import(client, tmp_path / "a.csv", "create", lambda _: None))
    assert counts_of(job) == (1, 0, 0, 0)
    assert shown(api, "SP-6") == named("blue", "black")
    exported = api.get("/product/export", params={"format": "zip"}).content
    settings = Settings(_env_file=None, data_dir=tmp_path / "other", durable_writes=False)
    other = open_database(settings)
    name, file = new_file(settings)
    with file:
        file.write(exported)
    ImportJobs(other).create(name, "a.zip", "create")
    asyncio.run(import_all(settings))
    with other.read() as session:
        products = list(session.scalars(sa.select(ProductRow).order_by(ProductRow.product_id)))
        found = {
            row.sku: [each.image_sha256 for each in pictures_of(session, [row])[row.product_id]] for row in products
        }
    listed = api.get("/product/list", params={"page_size": 100}).json()["items"]
    assert found == {each["sku"]: [image["image_id"] for image in each["images"]] for each in listed}
    assert len(found["SP-6"]) == 2
    other.close()


def test_few_pictures_are_held_at_once_however_many_a_row_has() -> None:
    rows = [
        ImportRow(1, ProductChanges(), {}, "a.png" if count else None, further=("b.png",) * (count - 1))
        for count in (1, 0, 9, 9, 0, 0, 2, 2, 2, 2)
    ]
    counts = []
    while rows:
        several = first_with_pictures(rows, 8)
        counts.append(sum(len(row.images) for row in several))
        rows = rows[len(several) :]
    assert counts == [10, 9, 8]


@pytest.mark.parametrize(
    ("cell", "pictures"),
    [
        ("a.png", "a.png"),
        ("a.png|", "a.png"),  # what a spreadsheet leaves behind is no second picture, and takes none away
        ("a.png\n", "a.png"),
        (" | a.png", "a.png"),
        ("|", ""),
        ("a.png|b.png\r\nc.png", ["a.png", "b.png", "c.png"]),
        ("https://shop.example/y?a=1|2", "https://shop.example/y?a=1|2"),
        ("https://shop.example/y?a=1|2 | b.png", ["https://shop.example/y?a=1|2", "b.png"]),
        ("http://shop.example/1|http://shop.example/2|", ["http://shop.example/1", "http://shop.example/2"]),
        (["a.png"], ["a.png"]),
        (None, None),
    ],
)
def test_what_a_cell_names(cell: object, pictures: object) -> None:
    assert named_pictures(cell) == pictures

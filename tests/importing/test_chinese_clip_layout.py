"""A small file in the layout of MUGE goes in by the command line: its texts are titles, its images pictures."""

import base64
import json
from pathlib import Path

import httpx
import pytest

from clients.catalogue_import import open_client
from clients.chinese_clip_layout import product_lines
from clients.file_import import begin_import
from tests.conftest import picture
from tests.importing.files import counts_of, errors_of, wait_for_job

PICTURES = {1000002: picture("red", image_format="JPEG"), 1000016: picture("blue", image_format="JPEG")}
TEXTS = [
    {"text_id": 2, "text": "高级感托特包斜挎", "image_ids": [1000002]},
    {"text_id": 3, "text": "羊毛小披肩", "image_ids": [1000016, 1000002]},
    {"text_id": 4, "text": "没有图片的", "image_ids": []},
    {"text_id": 5, "text": "图片缺失的", "image_ids": [999]},
]


def write_set(folder: Path) -> Path:
    url_safe = {number: base64.urlsafe_b64encode(data) for number, data in PICTURES.items()}
    lines = [b"%d\t%b\n" % (number, encoded) for number, encoded in url_safe.items()]
    (folder / "valid_imgs.tsv").write_bytes(b"".join([*lines, b"7\tno base64!\n", b"8\n"]))
    texts = folder / "valid_texts.jsonl"
    texts.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in TEXTS) + "{broken\n", "utf-8")
    return texts


def test_a_set_goes_in_and_its_errors_name_its_lines(api: httpx.Client, tmp_path: Path) -> None:
    texts = write_set(tmp_path)
    for counts in ((2, 0, 0, 3), (0, 0, 2, 3)):
        with open_client(str(api.base_url)) as client:
            job = wait_for_job(client, begin_import(client, texts, "upsert", lambda _: None))
        assert counts_of(job) == counts
        assert [(line, sku) for line, sku, *_ in errors_of(api, job)] == [("3", "4"), ("4", "5"), ("5", "")]
    products = {each["sku"]: each for each in api.get("/product/list").json()["items"]}
    assert {sku: each["title"] for sku, each in products.items()} == {"2": TEXTS[0]["text"], "3": TEXTS[1]["text"]}
    assert api.get(products["3"]["image_url"]).content == PICTURES[1000016]


def test_texts_alone_are_an_ordinary_file(api: httpx.Client, tmp_path: Path) -> None:
    texts = write_set(tmp_path)
    (tmp_path / "valid_imgs.tsv").unlink()
    with open_client(str(api.base_url)) as client:
        job = wait_for_job(client, begin_import(client, texts, "create", lambda _: None))
    assert (job["failed"], job["created"]) == (5, 0)


@pytest.mark.parametrize(
    "record",
    [
        {"text_id": None, "text": "a", "image_ids": [1]},
        {"text_id": True, "text": "a"},
        {"text_id": " ", "text": "a"},
        {"text_id": 1, "text": "a", "image_ids": "12345"},  # whose first letter is another image's number
        {"text_id": 1, "text": "a", "image_ids": {"0": 5}},
        {"text_id": 1, "text": "a", "image_ids": 12345},
        {"text_id": 1, "text": "a", "image_ids": [None]},
        {"text_id": 1, "image_ids": [5]},
    ],
)
def test_a_line_that_cannot_be_understood_goes_as_it_is(tmp_path: Path, record: dict[str, object]) -> None:
    texts = tmp_path / "valid_texts.jsonl"
    texts.write_text(json.dumps(record) + "\n")
    assert [json.loads(line) for line in product_lines(texts)] == [record]

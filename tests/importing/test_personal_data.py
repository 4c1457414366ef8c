"""Numbers of people are found and masked; what shops have instead of them (barcodes, models, skus) is left alone."""

from typing import Any

import httpx
import pytest

from tests.conftest import picture
from tests.importing.files import counts_of, import_file, json_lines_of, wait_for_job, warnings_of, zip_of
from tests.importing.test_imports import product_of
from tuwen.importing.personal_data import CHECK_DIGITS, WEIGHTS, find_personal_data, masked


def identity(first: str) -> str:
    """With its check digit."""
    return first + CHECK_DIGITS[sum(weight * int(digit) for weight, digit in zip(WEIGHTS, first, strict=True)) % 11]


ID = identity("11010519491231002")
PERSONAL = {
    "咨询13800138000李经理": "咨询138********李经理",
    "tel 138-0013-8000": "tel 138**********",
    "微信 +86 13912345678。": "微信 +86************。",
    "１３８００１３８０００": "１３８********",
    "电话010-62345678": "电话010*********",
    "0755-8234567": "075*********",
    f"身份证{ID}": f"身份证110{'*' * 15}",
    f"{ID.lower()}": f"110{'*' * 15}",
    "写信给zhang.san@example.com.cn吧": "写信给z***********************吧",
    "a@b.cn 13800138000": "a***** 138********",
}
OF_SHOPS = [
    "6901234567892",  # EAN-13
    "1380013800012",
    "690123456789",  # UPC
    "16901234567899",  # a carton's 14 digits
    "400-800-8820",
    "4008008820",
    "800-810-8888",
    "SKU13800138000",
    "13800138000A",
    "AB-13800138000",
    "13800138000-01",
    "X138-0013-8000",
    "12345678901",
    "1.13800138000",
    "012-34567890",
    "2010-62345678",
    "型号 GB-0755-82345678",
    identity("11010519491331002"),  # no thirteenth month
    ID[:-1] + ("0" if ID[-1] != "0" else "1"),  # a wrong check digit
    f"1{ID}",
    "110105194912310",
    "sofa@2x.png",
    "@红色沙发",
    "5V@2.1A",
    "2024-01-15 12:30",
    "1920x1080",
]


@pytest.mark.parametrize("text", PERSONAL)
def test_numbers_of_people_are_found_and_masked(text: str) -> None:
    assert masked(text) == PERSONAL[text]
    assert masked(masked(text)) == masked(text)
    assert find_personal_data(masked(text)) == []


@pytest.mark.parametrize("text", OF_SHOPS)
def test_numbers_of_shops_are_none(text: str) -> None:
    assert find_personal_data(text) == []


ROWS: list[dict[str, Any]] = [
    {
        "sku": "PD-1",
        "title": "沙发 联系13800138000",
        "attributes": {"联系方式": [13912345678, "无"], "条码": 6901234567892},
    },
    {"sku": "PD-2", "title": "灯", "邮箱": "li@example.com", "身份证": ID},
    {"sku": "PD-13800138000", "title": "椅", "型号": "138001380001"},
]


def archive_of(rows: list[dict[str, Any]]) -> bytes:
    files = {f"{number}.png": picture((number, 7, 9)) for number in range(len(rows))}
    return zip_of({"a.jsonl": json_lines_of(*(row | {"image": f"{n}.png"} for n, row in enumerate(rows))), **files})


def test_they_are_warnings_of_rows_that_go_in_and_are_masked_when_asked_for(api: httpx.Client) -> None:
    job = import_file(api, archive_of(ROWS))
    assert counts_of(job) == (3, 0, 0, 0)
    assert [(line, sku, field) for line, sku, field, _ in warnings_of(api, job)] == [
        ("1", "PD-1", "title"),
        ("1", "PD-1", "attributes.联系方式"),
        ("2", "PD-2", "attributes.邮箱"),
        ("2", "PD-2", "attributes.身份证"),
    ]
    assert product_of(api, "PD-1")["title"] == ROWS[0]["title"]
    in_chinese = api.get(job["errors_url"], headers={"Accept-Language": "zh"}).text
    assert "含有电话号码，所有人都看得到" in in_chinese
    for counts in ((0, 2, 1, 0), (0, 0, 3, 0)):
        response = api.post(
            "/product/import",
            params={"mode": "upsert", "mask_personal_data": True},
            files={"file": ("a.zip", archive_of(ROWS))},
        )
        job = wait_for_job(api, response.json())
        assert (counts_of(job), job["mask_personal_data"], job["warnings"]) == (counts, True, 4)
    first, second = product_of(api, "PD-1"), product_of(api, "PD-2")
    assert first["title"] == "沙发 联系138********"
    assert first["attributes"] == {"联系方式": ["139********", "无"], "条码": 6901234567892}
    assert second["attributes"] == {"邮箱": "l*************", "身份证": f"110{'*' * 15}"}
    assert product_of(api, "PD-13800138000")["attributes"] == {"型号": "138001380001"}

"""Numbers of people are found and masked; what shops have instead of them (barcodes, models, skus) is left alone."""

from typing import Any

import httpx
import pytest

from tests.conftest import picture
from tests.importing.files import counts_of, import_file, json_lines_of, wait_for_job, warnings_of, zip_of
from tests.importing.test_imports import product_of
from tuwen.importing.columns import as_row
from tuwen.importing.personal_data import CHECK_DIGITS, WEIGHTS, find_personal_data, masked, without_personal_data
from tuwen.importing.rows import ImportRow, read_row
from tuwen.settings import Settings


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
    "13812345678/13987654321": "138********/139********",
    "13812345678-13987654321_13800138000": "138********-139********_138********",
    "13812345678/li@example.cn/13987654321": "138********/l************/139********",
    f"{ID}/{ID}": f"110{'*' * 15}/110{'*' * 15}",
    f"{ID}/13812345678": f"110{'*' * 15}/138********",
    "0571-88888888-801": "057**************",
    "0571-88888888/88888889/90": f"057{'*' * 22}",
    "0571-88888888/13812345678": "057**********/138********",
    "0571-88888888-138-1234-5678": f"057{'*' * 24}",
    "008613812345678": "008************",
    "0086 138-1234-5678": "008***************",
    "138 12345678": "138*********",
    "138.1234.5678": "138**********",
    "138\u20111234\u20115678": "138**********",
    "138—1234—5678": "138**********",
    "138−1234−5678": "138**********",
    "138\u00a01234\u00a05678": "138**********",
    "张\u202a138\u200b12345678\u202c，李": "张\u202a138*********\u202c，李",
    "13812345678@qq.com": "1*****************",
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
    "138.12345678",
    "138-12345678",
    "1.138.1234.5678",
    "13800138000-01/13900139000-02",
    "AB-13800138000/13900139000",
    "AB-13800138000\u201113900139000",
    "13800138000/A",
    "0571-88888888-801A",
    "_13800138000",
    "SKU\u200b13800138000",
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


def read(**values: Any) -> ImportRow:
    row = read_row(as_row(2, {"sku": "1", "title": "t", **values}), Settings(_env_file=None))
    assert isinstance(row, ImportRow)
    return row


def test_what_a_spreadsheet_made_a_float_and_the_names_of_attributes_are_looked_at() -> None:
    own = {"13812345678": {"张 13812345678": 1}, "13812345679": 2, "宽": 13.5, "长": 13812345678.5}
    row = without_personal_data(read(联系人=13812345678.0, attributes=own), mask=True)
    assert row.attributes == {"联系人": "138********"}
    expected = {"138********": {"张 138********": 1}, "138*********": 2, "宽": 13.5, "长": 13812345678.5}
    assert row.changes.attributes == expected
    fields = ["attributes.13812345678", "attributes.13812345679", "attributes.联系人"]
    assert [each.field for each in row.warnings] == fields


def test_a_category_is_masked_and_a_group_which_is_a_key_is_not() -> None:
    row = without_personal_data(read(category="王 13812345678", group_id="13812345678"), mask=True)
    assert (row.changes.category, row.changes.group_id) == ("王 138********", "13812345678")
    assert [(each.field, each.reason) for each in row.warnings] == [
        ("category", "has a phone number, which was masked"),
        ("group_id", "has a phone number, which everybody will see"),
    ]
    assert "price" not in without_personal_data(read(), mask=True).changes.model_fields_set


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


def test_what_is_kept_of_a_job_is_masked_too(api: httpx.Client) -> None:
    prices = ["联系13812345678", "电话138\u200b12345678", f"{'贵' * 33}13812345678"]
    rows: list[dict[str, Any]] = [
        {"sku": f"PR-{number}", "title": "灯", "price": price} for number, price in enumerate(prices)
    ]
    rows += [{"sku": "PR-9", "title": "灯", "image": "li@example.cn/9.png"}]
    file = json_lines_of(*rows, {"sku": "PR-10", "title": "灯", "image": "x.png", "李 13812345678": "a@example.com"})
    response = api.post("/product/import", params={"mask_personal_data": True}, files={"file": ("a.jsonl", file)})
    job = wait_for_job(api, response.json())
    said = api.get(job["errors_url"]).text
    assert said.count("which is no number") == len(prices)
    assert said.count("138***") == len(prices) + 1
    for kept in (said, str(job["columns"])):
        assert not any(number in kept for number in ("12345", "li@", "a@"))
    assert "李 138********" in job["columns"]

"""What the columns of shops' files are taken for, as their headings are written."""

import pytest

from tuwen.errors import InvalidInput
from tuwen.importing.columns import BadRow, SourceRow, as_row, fields_of, require_usable


@pytest.mark.parametrize(
    ("field", "headings"),
    [
        ("sku", "*货号 货号* ＊货号 货号【必填】 *商品编码(SKU)* 货品编号 商家SKU 商家编码*（必填）"),
        ("title", "商品名称（必填） *标题 产品名 宝贝名称 宝贝标题 货品名称 Title(EN)"),
        ("category", "商品类别 所属类目 类目[一级]"),
        (None, "属性(颜色) 类目(ID) 图片(数量) 图片(张) sku(库存) 价格(分/件) 售价(角)"),
        ("price", "售价(元) 零售价（元） Price(USD) 单价(元/千克) 产品价格 商品单价 价格(含税)"),
        ("image", "图片URL 主图链接 主图地址 商品图片链接 首图 图片1 产品图片 产品主图 Main_Image *图片(链接)"),
        (None, "【货号】 价格(万元) 售价(分) Price(cents) 颜色(元) (元) * 图片2 货号)( attributes.售价(元)"),
    ],
)
def test_headings_have_marks_units_and_many_names(field: str | None, headings: str) -> None:
    for heading in headings.split():
        assert fields_of([heading]).get(heading) == field, heading


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        (["价格", "价格(元)", "商品单价"], {"价格": "price"}),
        (["价格(元)", "标题(英文)", "标题"], {"价格(元)": "price", "标题": "title"}),
        (["图片1", "图片2", "图片3"], {"图片1": "image"}),
        (["图片1", "主图链接", "图片2"], {"主图链接": "image"}),
        (["首图", "图片", "产品图片"], {"图片": "image"}),
        (["标题", "图片(正面)", "图片(背面)"], {"标题": "title"}),
        (["标题", "售价(元)", "售价(USD)", "首图"], {"标题": "title", "首图": "image"}),
        (["货号", "商品名称(中文)", "商品名称(英文)", "价格"], {"货号": "sku", "价格": "price"}),
    ],
)
def test_a_heading_of_the_fields_own_name_comes_before_looser_ones(columns: list[str], taken: dict[str, str]) -> None:
    assert fields_of(columns) == taken
    row = as_row(2, {column: column for column in columns})
    assert isinstance(row, SourceRow)
    assert row.fields == {field: column for column, field in taken.items()}
    assert set(row.attributes) == set(columns) - set(taken)


def test_two_headings_that_mean_the_same_are_refused() -> None:
    for one, other in (("价格", "售价"), ("货号", "sku")):
        with pytest.raises(InvalidInput, match="mean the same") as raised:
            require_usable(["标题", one, other])
        assert f"{one}, {other}; keep one" in raised.value.detail
        assert isinstance(as_row(2, {one: "1", other: "2"}), BadRow)


def test_an_empty_cell_makes_no_other_column_the_field() -> None:
    fields = require_usable(["标题", "价格", "价格(元)"])
    row = as_row(2, {"标题": "a", "价格(元)": "5"}, fields)
    assert isinstance(row, SourceRow)
    assert (row.fields, row.attributes) == ({"title": "a"}, {"价格(元)": "5"})
    assert row.columns == {"标题": "title", "价格(元)": "attributes.价格(元)"}

"""What a column of a file is called, and which field of a product it is. What is none becomes an attribute."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tuwen.errors import InvalidInput
from tuwen.texts import lexical_text

ATTRIBUTE_PREFIX = "attributes."
MOST_COLUMNS = 1000
MOST_DIGITS = 15  # of a number, as spreadsheets keep it
SCIENTIFIC = re.compile(r"(?i)\d([.,]\d+)?E\+\d{2,3}")
# Field: what its column is called, as `lexical_text` has it, without spaces, hyphens and underscores.
NAMES = """
sku: sku skuid sku编码 sku编号 skucode itemnumber productcode productnumber
sku: 货号 款号 编号 编码 商品编码 商品编号 商品货号 产品编号 产品编码 商家编码 物料编码
title: title name productname producttitle 标题 名称 品名 商品标题 商品名称 商品名 产品名称 产品标题
category: category productcategory producttype 分类 类目 类别 品类 商品分类 商品类目 产品分类
price: price unitprice saleprice 价格 单价 售价 零售价 销售价 商品价格
group_id: groupid spu spuid spucode spu编码 spu编号 组号 商品组 变体组
attributes: attributes attrs 属性 商品属性
image: image images imagepath imageurl imagefile imagelink picture photo img
image: 图片 主图 照片 商品图片 商品主图 图片路径 图片地址 图片链接 图片文件
"""
# These, and all names with a mark or a bracket, give way to those above: beside them they stay attributes.
MORE_NAMES = """
sku: 货品编号 商家sku
title: 产品名 宝贝名称 宝贝标题 货品名称
category: 商品类别 所属类目
price: 产品价格 商品单价
image: 图片url 主图链接 主图地址 商品图片链接 首图 产品图片 产品主图 mainimage
"""
# The first of 图片1, 图片2 and so on, where no other column has the picture.
LAST_NAMES = "image: 图片1"
BRACKET = re.compile(r"[(\[【]([^()\[\]【】]*)[)\]】]$")
OTHER_UNIT = re.compile(r"[万千百]元|[万千百]$|[角分](?:/|$)|cent")  # than that of other prices
OTHER_THING = re.compile(r"数|库存|[张件个]$|id$")
# An address may have | in it: there it separates beside a blank, or before another address.
BETWEEN_PATHS = re.compile(r"\|")
BETWEEN_ADDRESSES = re.compile(r"\|\s*(?=[a-zA-Z]+://)|\s\||\|(?=\s|$)")


def _fields_by_name(table: str) -> dict[str, str]:
    lines = [line.split(": ") for line in table.strip().splitlines()]
    return {name: field for field, names in lines for name in names.split()}


_FIELD_OF = _fields_by_name(NAMES)
_FIELD_OF_MORE = _FIELD_OF | _fields_by_name(MORE_NAMES)
_LAST_FIELD_OF = _fields_by_name(LAST_NAMES)


class SourceRow(NamedTuple):
    """A row as the file has it, by field; what is no field, by the column's name."""

    line: int
    columns: dict[str, str]
    """As they are called in the file → what each is taken for, as `meaning_of` says it."""
    fields: dict[str, Any]
    attributes: dict[str, Any]


class BadRow(NamedTuple):
    """One of which nothing can be used."""

    line: int
    reason: str


def named_pictures(value: Any) -> Any:
    """A list of several, as JSON has it, or with | or line breaks between them in a cell; all else as it is."""
    if not isinstance(value, str):
        return value
    separators = ((BETWEEN_ADDRESSES if "://" in line else BETWEEN_PATHS, line) for line in re.split(r"[\r\n]", value))
    parts = [part for separator, line in separators for each in separator.split(line) if (part := each.strip())]
    return parts if parts[1:] else "".join(parts)


def fields_of(columns: Iterable[str]) -> dict[str, str]:
    """Of those that are no attributes. All columns are looked at: 售价(元) is the price where no 价格 is, and no other
    column that may be it as well: of 图片(正面) and 图片(背面) nobody knows."""
    names = {column: _plain_name(column) for column in columns}
    fields = {column: field for column, name in names.items() if (field := _FIELD_OF.get(name))}
    for field_of in (_field_of_marked, _LAST_FIELD_OF.get):
        taken = set(fields.values())
        found = {column: field_of(name) for column, name in names.items() if column not in fields}
        claims = Counter(found.values())
        fields |= {
            column: field for column, field in found.items() if field and field not in taken and claims[field] == 1
        }
    return fields


def _plain_name(column: str) -> str:
    name = lexical_text(column)
    for separator in " _-":
        name = name.replace(separator, "")
    return name


def _field_of_marked(name: str) -> str | None:
    """`*货号`, `售价(元)`, `商品名称(必填)`. A price in 万元 or cents is no price as those of other products are, nor
    are 图片(数量) pictures; and 属性(颜色) is one attribute."""
    name = name.strip("*")
    bracket = BRACKET.search(name)
    field = _FIELD_OF_MORE.get(name[: bracket.start()].strip("*") if bracket else name)
    is_other = bracket and (OTHER_UNIT if field == "price" else OTHER_THING).search(bracket[1])
    return None if is_other or (bracket and field == "attributes") else field


def has_lost_digits(key: Any) -> bool:
    """A sku or a group that a spreadsheet took for a number with more digits than it keeps, or shows."""
    if isinstance(key, float):
        return abs(key) >= 10.0**MOST_DIGITS
    return isinstance(key, str) and SCIENTIFIC.fullmatch(key.strip()) is not None


def attribute_of(column: str) -> str:
    """`attributes.颜色` is the attribute 颜色, as is the column 颜色."""
    return column[len(ATTRIBUTE_PREFIX) :] if column.lower().startswith(ATTRIBUTE_PREFIX) else column


def meaning_of(column: str, fields: Mapping[str, str]) -> str:
    """For people: the field, or `attributes.` and the attribute."""
    return fields.get(column) or f"{ATTRIBUTE_PREFIX}{attribute_of(column)}"


def require_usable(columns: Iterable[str]) -> dict[str, str]:
    """The fields of a file whose first line names its columns. Raises InvalidInput."""
    named = [column for column in columns if column]
    if len(named) > MOST_COLUMNS:
        raise InvalidInput.in_field("file", f"has {len(named)} columns, the limit is {MOST_COLUMNS}")
    fields = fields_of(named)
    meanings = [meaning_of(column, fields) for column in named]
    twice = [column for column, meaning in zip(named, meanings, strict=True) if meanings.count(meaning) > 1]
    if twice:
        raise InvalidInput.in_field("file", f"has several columns that mean the same: {', '.join(twice)}; keep one")
    if not {"sku", "title"} & set(meanings):
        found = ", ".join(named[:20]) or "nothing"
        raise InvalidInput.in_field(
            "file", f"must name its columns in the first line, sku (货号) or title (标题) among them; it has {found}"
        )
    return fields


def as_row(line: int, values: Mapping[str, Any], fields_of_file: Mapping[str, str] | None = None) -> SourceRow | BadRow:
    """By the file's columns, or the row's own. Raises nothing: two names of one field are the row's own fault."""
    field_of = fields_of(values) if fields_of_file is None else fields_of_file
    fields: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for column, value in values.items():
        field = field_of.get(column)
        into, name = (attributes, attribute_of(column)) if field is None else (fields, field)
        if name in into:
            return BadRow(line, f"has {name} twice, once as {column}")
        into[name] = value
    return SourceRow(line, {column: meaning_of(column, field_of) for column in values}, fields, attributes)

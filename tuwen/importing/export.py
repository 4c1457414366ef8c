"""Products as a file that can be imported again: what a spreadsheet edits, without pictures, which stay with them.

Of the shop that an import of the file would change: two shops' products with one sku would become one.
"""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa

from orm_models import ProductRow
from tuwen.database.engine import Database
from tuwen.database.shops import home_shop

ExportFormat = Literal["csv", "jsonl"]
FIELDS = ("sku", "title", "category", "price", "attributes", "group_id")
MEDIA_TYPES: dict[ExportFormat, str] = {"csv": "text/csv", "jsonl": "application/jsonl"}
AT_ONCE = 500


def products_after(database: Database, last: int) -> Sequence[ProductRow]:
    """The next ones in the order of their ids; none at the end. Blocks."""
    with database.read() as session:
        of_shop = ProductRow.shop_id == home_shop(session)
        statement = sa.select(ProductRow).where(ProductRow.product_id > last, of_shop).order_by(ProductRow.product_id)
        return list(session.scalars(statement.limit(AT_ONCE)))


def as_rows(products: Sequence[ProductRow], file_format: ExportFormat, *, with_head: bool) -> bytes:
    """CSV with a mark in front, by which spreadsheets know UTF-8, or JSON lines."""
    text = io.StringIO()
    writer = csv.writer(text)
    if file_format == "csv" and with_head:
        text.write("\ufeff")
        writer.writerow(FIELDS)
    for product in products:
        fields = record_of(product)
        if file_format == "jsonl":
            text.write(json.dumps(fields, ensure_ascii=False) + "\n")
        else:
            fields["attributes"] = json.dumps(product.attributes, ensure_ascii=False)
            writer.writerow(fields.values())
    return text.getvalue().encode()


def record_of(product: ProductRow) -> dict[str, Any]:
    price = None if product.price is None else str(product.price)
    return {name: getattr(product, name) for name in FIELDS} | {"price": price}

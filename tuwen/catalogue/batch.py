"""Many changes in one transaction: a nightly feed's prices and stock, each row a product by its sku.

Never commits: the caller's `Database.write()` block is the transaction.
"""

from collections.abc import Mapping

from sqlalchemy import orm

from data_models import BatchRow, ProblemField, RowResult
from tuwen.catalogue.changes import apply_changes
from tuwen.catalogue.queries import load_products, lock_products, sku_owners


def change_many(session: orm.Session, rows: Mapping[int, BatchRow], topic: str) -> list[RowResult]:
    """`rows`: by their number. One that can't be done keeps no other out."""
    skus = [row.sku for row in rows.values()]
    locked = lock_products(session, sku_owners(session, skus).values())
    owners = sku_owners(session, skus)  # once more: until the lock, each could be given to another
    products = {product.product_id: product for product in load_products(session, locked)}
    taken: dict[int, int] = {}
    results = []
    for number, row in rows.items():
        product = products.get(owners.get(row.sku, 0))
        if product is None:
            results.append(_refused(number, row.sku, "no product has it"))
            continue
        first = taken.setdefault(product.product_id, number)
        if first != number:
            results.append(_refused(number, row.sku, f"is row {first}'s, too; send it once in a call"))
            continue
        changed = apply_changes(session, product, row.model_dump(include=row.model_fields_set - {"sku"}), topic)
        results.append(
            RowResult(
                row=number,
                sku=row.sku,
                status="changed" if changed else "unchanged",
                product_id=product.product_id,
                version=product.version,
            )
        )
    return results


def _refused(number: int, sku: str, message: str) -> RowResult:
    return RowResult(row=number, sku=sku, status="refused", errors=[ProblemField(field="sku", message=message)])

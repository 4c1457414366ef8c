"""Lost updates: who changes what somebody else has changed since it was read is told so."""

from dataclasses import dataclass
from typing import NamedTuple

from orm_models import ProductRow
from tuwen.errors import VersionMismatch


class ProductVersion(NamedTuple):
    product_id: int
    version: int


ANY_VERSION: frozenset[ProductVersion] = frozenset({ProductVersion(0, 0)})
"""Stands for whichever there is."""


@dataclass(frozen=True)
class Condition:
    """`expected`: one of these; None: nothing is expected."""

    expected: frozenset[ProductVersion] | None = None
    must_be_new: bool = False

    def require(self, row: ProductRow | None) -> None:
        """Of the product under its lock; None: there is none. Raises VersionMismatch."""
        if row is None:
            if self.expected is not None:
                raise VersionMismatch("There is no such product any more, or not yet.")
            return
        if self.must_be_new:
            raise VersionMismatch(f"There is one already: product {row.product_id}.")
        if self.expected is None or self.expected is ANY_VERSION:
            return
        if ProductVersion(row.product_id, row.version) not in self.expected:
            raise VersionMismatch(
                f"Product {row.product_id} is at version {row.version} by now, which is none that If-Match names: read "
                "it again, and decide anew."
            )


UNCONDITIONAL = Condition()

"""Which products an index has bound at their version, walked in the order of the products' ids.

No question to the database is about more than a page, however many products there are: each is short, ends within its
own deadline, and is answered from primary keys.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tuwen.database.engine import Database
from tuwen.indexing.queries import product_versions_after
from tuwen.vectors.binding import indexed_versions

PAGE = 500


class Unbound(NamedTuple):
    """A page of products."""

    last: int
    """The highest id of the page, behind which the next begins."""
    product_ids: list[int]
    """Those of them that have nothing of their version bound."""


def count_covered(database: Database, vector_index_id: int) -> tuple[int, int]:
    """How many products are bound, and how many there are."""
    covered = total = 0
    for versions, (bound,) in _pages(database, vector_index_id):
        covered += sum(bound.get(product_id) == version for product_id, version in versions.items())
        total += len(versions)
    return covered, total


def next_unbound(database: Database, vector_index_id: int, after: int) -> Unbound | None:
    """Of the next page, which may have none; None behind the last product."""
    for versions, (bound,) in _pages(database, vector_index_id, after=after):
        unbound = [product_id for product_id, version in versions.items() if bound.get(product_id) != version]
        return Unbound(max(versions), unbound)
    return None


def covered_by_first_alone(database: Database, first: int, second: int) -> Iterator[tuple[int, list[int]]]:
    """For each page, how many the first index has, and which of them the second lacks."""
    for versions, (here, there) in _pages(database, first, second):
        in_first = [product_id for product_id, version in versions.items() if here.get(product_id) == version]
        yield len(in_first), [each for each in in_first if there.get(each) != versions[each]]


def _pages(
    database: Database, *vector_index_ids: int, after: int = 0
) -> Iterator[tuple[dict[int, int], list[dict[int, int]]]]:
    """Of all products, id → version, and the same of what each index has bound of them."""
    while True:
        with database.read() as session:
            versions = product_versions_after(session, after, PAGE)
            bound = [indexed_versions(session, each, versions) for each in vector_index_ids] if versions else []
        if not versions:
            return
        yield versions, bound
        after = max(versions)

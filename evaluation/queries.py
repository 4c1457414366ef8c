"""What is asked, and what should be found: the readers of query files. Which file is which is told by its name.

Our own format is JSON lines: `mode`, `text`, `image` (a path beside the file) or `terms` (those of `POST /search`, in
which a `sku` may name a product), and `relevant`: a list of skus, of product_ids (numbers), or of objects with one of
the two and a `grade` (1 where none is given); empty where the catalogue has nothing for it. Or, as `cli.py reindex`
takes them, `sku` or `product_id` of the one product. Further: `id`, `category`, `unwanted`: a list of those that should
not be shown, and `search`, further fields of `POST /search`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.catalogue_import import CatalogueError, read_lines

FIELDS = {"id", "mode", "text", "image", "terms", "relevant", "sku", "product_id", "category", "search", "unwanted"}
Key = str | int
"""Of a product: its sku, or its product_id."""


@dataclass(frozen=True)
class Query:
    query_id: str
    """The same in every run, by which runs are compared."""
    mode: str
    relevant: Mapping[Key, int]
    """Each with its grade, 1 or more. None of what the catalogue has not."""
    text: str | None = None
    picture: Callable[[], bytes] | None = None
    terms: Sequence[Mapping[str, Any]] = ()
    category: str = ""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request."""
    unwanted: frozenset[Key] = frozenset()
    """That should not be shown."""


def read_query_file(file: Path, mode: str) -> list[Query]:
    """`mode` takes the place of each line's own, unless it is empty. Raises CatalogueError, naming the line."""
    queries = []
    for number, line in read_lines(file, "file of queries"):
        try:
            queries.append(_query(json.loads(line), file.parent, str(number), mode))
        except (ValueError, KeyError, TypeError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else error
            raise CatalogueError(f"Line {number} of the queries is none: {said}") from error
    return checked(queries, file)


def checked(queries: Sequence[Query], source: Path) -> list[Query]:
    """Raises CatalogueError where there are none, or two of one id: runs could not be compared."""
    if not queries:
        raise CatalogueError(f"{source} has no queries.")
    [(query_id, count)] = Counter(query.query_id for query in queries).most_common(1)
    if count > 1:
        raise CatalogueError(f"{source} has {count} queries with the id {query_id}.")
    return list(queries)


def _query(record: Any, folder: Path, number: str, mode: str) -> Query:
    if not isinstance(record, dict) or (unknown := record.keys() - FIELDS):
        raise TypeError(f"it has {', '.join(sorted(unknown))}" if isinstance(record, dict) else "it is no object")
    if sum(name in record for name in ("text", "image", "terms")) != 1:
        raise TypeError("it needs exactly one of: text, image, terms")
    if record.get("terms") == []:
        raise TypeError("it has no terms")
    relevant = dict(_grades(record))
    if record.get("relevant") != [] and not any(grade > 0 for grade in relevant.values()):
        raise TypeError("it names no relevant product")
    return Query(
        query_id=str(record.get("id", number)),
        mode=mode or str(record["mode"]),
        relevant={key: grade for key, grade in relevant.items() if grade > 0},
        text=record.get("text"),
        picture=(folder / record["image"]).read_bytes if "image" in record else None,
        terms=[dict(term) for term in record.get("terms", [])],
        category=str(record.get("category", "")),
        search=record.get("search", {}),
        unwanted=frozenset(map(_key, record.get("unwanted", []))),
    )


def _grades(record: Mapping[str, Any]) -> Iterator[tuple[Key, int]]:
    for each in record["relevant"] if "relevant" in record else [_one_of(record)]:
        if isinstance(each, dict):
            yield _one_of(each), int(each.get("grade", 1))
        else:
            yield _key(each), 1


def _one_of(record: Mapping[str, Any]) -> Key:
    if ("sku" in record) == ("product_id" in record):
        raise TypeError("it needs relevant, or exactly one of: sku, product_id")
    return _key(str(record["sku"]) if "sku" in record else record["product_id"])


def _key(value: object) -> Key:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return value
    raise TypeError(f"{value!r} names no product")

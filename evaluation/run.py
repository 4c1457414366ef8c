"""Queries through the API of a running service, and what it answered; kept as a file that runs are compared by."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from clients.catalogue_import import CatalogueError, answer_of
from evaluation.measures import DEPTH, Judged, judged, summarise
from evaluation.queries import Query

SEARCHES_AT_ONCE = 4


@dataclass(frozen=True)
class Run:
    results: Sequence[Judged]
    began_at: str
    collections: Sequence[str]
    """What answered; more than one where the index was changed meanwhile."""
    models: Sequence[str]
    search: Mapping[str, Any]
    """Fields that each request had."""


def run_queries(
    client: httpx.Client, queries: Sequence[Query], search: Mapping[str, Any], on_progress: Callable[[int], None]
) -> Run:
    """`search`: further fields of each request. Raises CatalogueError if a search is refused."""
    began_at, indexes, results = datetime.now(UTC).isoformat(timespec="seconds"), [], []
    if not all(query.relevant for query in queries):
        search = {"relevance": True, **search}
    with ThreadPoolExecutor(SEARCHES_AT_ONCE) as pool:
        answers = pool.map(lambda query: ask(client, query, search), queries)
        for query, answer in zip(queries, answers, strict=True):
            products = [hit["product"] for hit in answer["hits"]]
            named = [(product["sku"], product["product_id"]) for product in products]
            results.append(judged(query, named, highest_of(answer["hits"])))
            indexes.append(answer["index"])
            on_progress(len(results))
    collections, models = (list(dict.fromkeys(each[of] for each in indexes)) for of in ("collection", "model"))
    return Run(results, began_at, collections, models, search)


def highest_of(hits: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of all hits the highest relevance, and each signal's, where they were asked for."""
    values: dict[str, float] = {}
    for hit in hits:
        for name, value in {"relevance": hit["relevance"], **(hit["signals"] or {})}.items():
            if value is not None:
                values[name] = max(values.get(name, value), value)
    return values


def ask(client: httpx.Client, query: Query, search: Mapping[str, Any]) -> Any:
    """The answer. Raises CatalogueError if it is refused."""
    try:
        request = {"mode": query.mode, "top_k": DEPTH, **query.search, **search, **_asked(client, query)}
        answer = answer_of(client.post("/search", json=request))
    except CatalogueError as error:
        raise CatalogueError(f"The query {query.query_id} was refused: {error.detail}") from error
    if answer["missing"]:  # what a model would have found counts for nothing against it
        away = ", ".join(answer["missing"])
        raise CatalogueError(f"The query {query.query_id} was answered without {away}; ask again once all is there.")
    return answer


def _asked(client: httpx.Client, query: Query) -> dict[str, Any]:
    if query.terms:
        return {"terms": [_term(client, term) for term in query.terms]}
    return {"text": query.text} if query.picture is None else {"image_base64": _base64(query)}


def _term(client: httpx.Client, term: Mapping[str, Any]) -> dict[str, Any]:
    """With the id of the product that a `sku` names."""
    fields = dict(term)
    if "sku" in fields:
        product = answer_of(client.get(f"/product/by-sku/{quote(str(fields.pop('sku')), safe='')}"))
        fields["product_id"] = product["product_id"]
    return fields


def _base64(query: Query) -> str:
    assert query.picture is not None, "who asks by text has none"
    try:
        return base64.b64encode(query.picture()).decode()
    except OSError as error:
        raise CatalogueError(f"The picture of the query {query.query_id} can't be read: {error}") from error


def search_fields(text: str) -> dict[str, Any]:
    """Of `--search`. Raises CatalogueError."""
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise CatalogueError(f"--search is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CatalogueError('--search is a JSON object, such as {"filters": {"category": ["沙发"]}}.')
    return fields


def save_run(run: Run, file: Path) -> None:
    """With what it comes to, for whoever reads the file. Raises CatalogueError."""
    summaries = [asdict(summary) for summary in summarise(run.results)]
    write_json({"summary": summaries, **vars(run), "results": [vars(result) for result in run.results]}, file)


def write_json(value: object, file: Path) -> None:
    """Raises CatalogueError."""
    try:
        file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise CatalogueError(f"{file} can't be written: {error}") from error


def read_run(file: Path) -> Run:
    """Raises CatalogueError."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        record.pop("summary")
        return Run(**{**record, "results": [Judged(**result) for result in record["results"]]})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CatalogueError(f"{file} is no run that 'cli.py evaluate --out' wrote: {error!r}") from error

"""Has a running service change its models, over the public API, and follows the job to its end."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from clients.catalogue_import import CatalogueError, answer_of, read_lines

POLL_S = 0.5
ENDED = ("done", "failed", "cancelled")


def read_queries(file: Path) -> list[dict[str, Any]]:
    """JSON lines of text, mode, and sku or product_id. Raises CatalogueError, naming the line."""
    queries = []
    for number, line in read_lines(file, "file of queries"):
        try:
            queries.append(json.loads(line))
        except ValueError as error:
            raise CatalogueError(f"Line {number} of the queries is not JSON: {error}") from error
    return queries


def model_name(model: str) -> str:
    """A folder of this machine by its whole path: the service stands elsewhere."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def follow(client: httpx.Client, request: dict[str, Any], on_progress: Callable[[dict[str, Any]], None]) -> Any:
    """The job as it ended. Raises CatalogueError where it is refused."""
    job = answer_of(client.post("/reindex", json=request))
    while job["status"] not in ENDED:
        on_progress(job)
        time.sleep(POLL_S)
        job = answer_of(client.get(job["status_url"]))
    on_progress(job)
    return job


def roll_back(client: httpx.Client) -> Any:
    return answer_of(client.post("/reindex/rollback"))


def drop_retired(client: httpx.Client) -> Any:
    return answer_of(client.delete("/reindex/retired"))

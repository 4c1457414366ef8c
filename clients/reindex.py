"""Has a running service change its models, over the public API, and follows the job to its end."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from clients.catalogue_import import CatalogueError, answer_of, read_lines

ACTIONS = {"rollback": {"to"}, "drop_retired": set[str](), "cancel": set[str]()}  # each with what goes with it


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
    folder, mark, size = model.partition("?dimensions=")
    return f"{Path(folder).resolve()}{mark}{size}" if Path(folder).exists() else model


def contradiction_in(options: set[str]) -> str | None:
    """Of the command line's options, why these can't stand together."""
    for action, goes_with in ACTIONS.items():
        others = options - {action} - goes_with
        if action in options and others:
            return f"{_spelled(action)} stands alone, without {', '.join(sorted(map(_spelled, others)))}."
    if "to" in options and "rollback" not in options:
        return "--to goes with --rollback."
    if not options & ACTIONS.keys() and not {"clip_model", "text_model"} <= options:
        return "Name both models by --clip-model and --text-model, or use --rollback, --drop-retired or --cancel."
    return None


def _spelled(option: str) -> str:
    return "--no-switch" if option == "switch" else f"--{option.replace('_', '-')}"


def begin(client: httpx.Client, request: dict[str, Any]) -> Any:
    """The job, which may be under way already. Raises CatalogueError where it is refused."""
    return answer_of(client.post("/reindex", json=request))


def ways_back(job: dict[str, Any], url: str) -> str:
    """For whoever leaves a job that goes on."""
    return (
        f"Job {job['job_id']} goes on. The same command follows it again, and GET {url} says how it stands; "
        f"--cancel {job['job_id']} gives it up."
    )


def progress_of(job: dict[str, Any]) -> dict[str, Any]:
    """For a progress bar."""
    left = f", {job['seconds_left']} s left" if job["seconds_left"] else ""
    failed = f", {job['failed']} failed" if job["failed"] else ""
    description = f"{job['phase']}{left}{failed}"
    return {"description": description, "completed": job["done"], "total": job["total"] or None}


def findings_of(job: dict[str, Any]) -> Iterator[str]:
    for failure in job["failures"]:
        yield f"  product {failure['product_id']}: {failure['reason']}"
    if job["recall_new"] is not None:
        yield f"Recall at 10: {job['recall_live']:.3f} before, {job['recall_new']:.3f} now."


def outcome_of(job: dict[str, Any]) -> str:
    """Of one that ended. Raises CatalogueError where it changed nothing."""
    if job["status"] != "done":
        raise CatalogueError(f"Job {job['job_id']} {job['status']}: {job['error'] or ''}")
    if job["phase"] != "switched":
        return f"{job['collection']} is ready; the same command without --no-switch has it answer."
    return (
        f"{job['collection']} answers now. {_settings_of(job)}\n"
        "and remove TEXT_QUERY_PROMPT and TEXT_DOCUMENT_PROMPT if they were the model's before."
    )


def roll_back(client: httpx.Client, collection: str | None) -> str:
    """What came of it, which is the same where it had happened already."""
    index = answer_of(client.post("/reindex/rollback", json={"collection": collection}))
    since = datetime.fromisoformat(index["since"]).astimezone().isoformat(" ", "seconds") if index["since"] else "ever"
    lines = [f"{index['collection']} answers, since {since}. {_settings_of(index)}"]
    if index["retired"]:
        lines.append(f"To go the other way, name what retired: --rollback --to {index['retired']}")
    return "\n".join(lines)


def drop_retired(client: httpx.Client) -> str:
    collections = answer_of(client.delete("/reindex/retired"))["collections"]
    return f"Dropped: {', '.join(collections) or 'nothing, there was none'}."


def cancel(client: httpx.Client, job_id: int) -> str:
    response = client.post(f"/reindex/{job_id}/cancel")
    if not response.is_success:
        answer_of(response)
    return f"Job {job_id} is cancelled: what it built is dropped, and the index in use stays."


def _settings_of(models: dict[str, Any]) -> str:
    names = {"clip_model": "", "text_model": "", "query_prompt": "TEXT_", "document_prompt": "TEXT_"}
    lines = [f"  {prefix}{name.upper()}={models[name]}" for name, prefix in names.items() if models.get(name)]
    return "\n".join(["Set:", *lines])

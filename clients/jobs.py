"""Follows a job of a running service, over the public API, to its end."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from clients.catalogue_import import CatalogueError, ServiceAway, answer_of

POLL_S = 0.5
AWAY, AWAY_S = (429, 502, 503, 504), 300.0  # an API that restarts loads its models first
ENDED = ("done", "failed", "cancelled")


def follow(
    client: httpx.Client,
    job: dict[str, Any],
    on_progress: Callable[[dict[str, Any]], None],
    say: Callable[[str], None],
    follow_again: str = "the same command follows it",
) -> Any:
    """The job as it ended. Raises CatalogueError where the service is away for longer than a restart takes."""
    on_progress(job)
    while job["status"] not in ENDED:
        time.sleep(POLL_S)
        job = _wait_for_answer(client, job, say, follow_again)
        on_progress(job)
    return job


def _wait_for_answer(client: httpx.Client, job: dict[str, Any], say: Callable[[str], None], follow_again: str) -> Any:
    """The job goes on while the service is asked in vain, or waits for it: no reason to give it up."""
    away_since = None
    while True:
        try:
            response = client.get(job["status_url"])
            if response.status_code not in AWAY:
                return answer_of(response)
            reason = f"{response.status_code} {response.reason_phrase}"
        except ServiceAway as error:
            reason = error.detail.partition(". Start")[0]
        if away_since is None:
            away_since = time.monotonic()
            say(f"{reason}. Waiting up to {AWAY_S:.0f} s for the service; job {job['job_id']} is not lost.")
        elif time.monotonic() - away_since > AWAY_S:
            raise CatalogueError(f"{reason}. Job {job['job_id']} goes on with the service: {follow_again}.")
        time.sleep(POLL_S)

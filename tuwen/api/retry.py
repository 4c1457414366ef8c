"""`/product/retry-failed`: products that failed, indexed again once the reason is mended."""

from typing import Annotated

from fastapi import Query
from fastapi.routing import APIRouter

from data_models import Retried
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.problems import problem_responses
from tuwen.api.state import ApiDependency
from tuwen.database.engine import Database
from tuwen.errors import DatabaseUnavailable, InvalidInput
from tuwen.indexing.retry import retry_failed

router = APIRouter(tags=["products"], route_class=GuardedRoute)

MOST_AT_ONCE = 10_000  # some seconds; whoever has more asks again


@router.post(
    "/product/retry-failed",
    summary="Have products that failed indexed again",
    responses=problem_responses(InvalidInput, DatabaseUnavailable),
)
@needs("admin")
async def retry_failed_products(
    api: ApiDependency, reason_contains: Annotated[str, Query(max_length=1000)] = ""
) -> Retried:
    """All of them, or those whose `index_error` has this in it; at most 10,000 in one call, and `more` says whether to
    ask again."""
    services = api.services
    topic = services.settings.kafka_topic
    return await api.threads.writes.run(_retry, services.database, topic, reason_contains)


def _retry(database: Database, topic: str, reason_contains: str) -> Retried:
    queued = 0
    for page in retry_failed(database, topic, reason_contains):
        queued += page
        if queued >= MOST_AT_ONCE:
            return Retried(queued=queued, more=True)
    return Retried(queued=queued, more=False)

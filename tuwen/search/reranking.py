"""The first of a search's hits, read once more together with the query by a cross-encoder, and put in its order."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Sequence

from tuwen.background import WorkPool
from tuwen.encoders.reranker import Reranker
from tuwen.errors import InvalidInput, ModelsUnavailable, Overloaded
from tuwen.search.hits import ProductHit
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

RERANKED = 50
LOG_EVERY_S = 60.0


class Reranking:
    def __init__(self, reranker: Reranker | None, settings: Settings) -> None:
        self._reranker = reranker
        self._timeout_s = settings.reranker_timeout_s
        # A model computes one thing after the other; a server's calls are bounded by the endpoint.
        threads = settings.endpoint_calls_at_once if reranker is not None and reranker.is_remote else 1
        self._threads = WorkPool("reranking", threads=threads, max_waiting=settings.query_queue_size)
        self._said_at = 0.0

    def require_if(self, is_asked: bool) -> None:
        """Raises InvalidInput."""
        if is_asked and self._reranker is None:
            raise InvalidInput.in_field("rerank", "is switched off here; have RERANKER_MODEL name a model")

    async def in_order(self, query: str, hits: Sequence[ProductHit]) -> tuple[list[ProductHit], bool]:
        """The first RERANKED by their scores, the others behind them as they were, and whether that was done: within
        the deadline, or not at all.

        What the query's words lower (what is not wanted, another colour than is named) stays behind the others: the
        reranker has read titles, and neither attributes nor what is not wanted.
        """
        first, others = hits[:RERANKED], list(hits[RERANKED:])
        scores = await self._scores(query, [hit.product.title for hit in first])
        if scores is None:
            return list(hits), False
        if not all(map(math.isfinite, scores)):  # by which nothing can be put in order
            self._say("it gives a score that is not finite")
            return list(hits), False
        scored = [hit._replace(rerank_score=score) for hit, score in zip(first, scores, strict=True)]
        scored.sort(key=lambda hit: (_is_lowered(hit), -(hit.rerank_score or 0.0)))
        return scored + others, True

    async def _scores(self, query: str, titles: Sequence[str]) -> list[float] | None:
        """None where it has none in time."""
        assert self._reranker is not None, "`require_if` saw to it"
        given_up = threading.Event()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._threads.run(self._reranker.scores, query, titles, given_up) if titles else []
        except TimeoutError:
            self._say(f"it has not answered within {self._timeout_s:g} s (RERANKER_TIMEOUT_S)")
        except (ModelsUnavailable, Overloaded) as error:
            self._say(error.detail)
        finally:
            given_up.set()
        return None

    def _say(self, why: str) -> None:
        """Once in a while: each search would say the same."""
        now = time.monotonic()
        if now - self._said_at >= LOG_EVERY_S:
            self._said_at = now
            logger.warning("Searches are answered without being reranked: %s", why)


def _is_lowered(hit: ProductHit) -> bool:
    return hit.boosted_score is not None and hit.boosted_score < hit.score

"""What a new index must show before it takes the live one's place: nothing is missing, and it finds as well."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from data_models import ReindexQuery, ReindexRequest, SearchMode
from tuwen.background import WorkPool
from tuwen.database.engine import Database
from tuwen.encoders.base import Vector
from tuwen.errors import GateClosed
from tuwen.indexing.coverage import covered_by_first_alone
from tuwen.indexing.not_taken import NotTaken
from tuwen.processes import living_processes
from tuwen.vectors.binding import bindings_after, unbind
from tuwen.vectors.bound_products import counts_in, products_bound_to
from tuwen.vectors.registry import READY, LiveIndex, ServedIndex
from vector_db import VECTOR_FIELDS, VectorDB

PAGE = 500
RECALL_AT, SPARE = 10, 10
MOST_ROWS = 100  # of ten products with nine pictures each, and some


@dataclass(frozen=True)
class Missing:
    """Products that count in the live index, and not in the new one."""

    live: int = 0
    """How many count in the live one."""
    failed: int = 0
    """The new models can't take them."""
    unreadable: int = 0
    """Their pictures can't be read at this moment."""
    unexplained: int = 0
    """Changed in the last moments."""

    @property
    def count(self) -> int:
        return self.failed + self.unreadable + self.unexplained

    def require_few(self, not_taken: NotTaken, few: int) -> None:
        """Raises GateClosed, with the first of each kind."""
        if self.failed:
            raise GateClosed(f"{self.failed} products would be lost{not_taken.first_of('failed')}")
        if self.unreadable:
            raise GateClosed(
                f"{self.unreadable} products would be lost: their pictures can't be read at this moment. Once they "
                f"can, the same request goes on from here{not_taken.first_of('unreadable')}"
            )
        if self.unexplained > few:
            raise GateClosed(f"{self.unexplained} products are not in the new index yet: they change too fast.")


def processes_without(database: Database, fingerprint: str) -> list[str]:
    """Those that a switch would catch without the models. Raises GateClosed where one can't load them."""
    with database.read() as session:
        processes = [each for each in living_processes(session) if each.kind in ("api", "worker")]
    waited_for = []
    for process in processes:
        said = process.state.get("loaded", {}).get(fingerprint)
        if said not in (None, READY):
            raise GateClosed(f"{process.name} ({process.kind}) can't load the models: {said}")
        if said is None:
            waited_for.append(process.name)
    return waited_for


class ReindexGate:
    """`threads` are those of its work: what blocks goes there."""

    def __init__(self, database: Database, vector_db: VectorDB, shadow: ServedIndex, threads: WorkPool) -> None:
        self._database = database
        self._vector_db = vector_db
        self.shadow = shadow
        self._threads = threads

    def unbind_lost(self) -> int:
        """Bindings whose row Milvus lacks, so that they are filled again. Reads strongly, page by page."""
        index_id, after, lost_in_all = self.shadow.vector_index_id, -1, 0
        while True:
            with self._database.read() as session:
                page = bindings_after(session, index_id, after, PAGE)
            if not page:
                return lost_in_all
            ids = [row.milvus_id for row in page]
            lost = set(page) - self._vector_db.existing_rows(self.shadow.collection, ids, strong=True)
            if lost:
                with self._database.write() as session:
                    lost_in_all += len(unbind(session, index_id, list(lost)))
            after = page[-1].milvus_id

    def missing(self, live: LiveIndex, not_taken: NotTaken) -> Missing:
        in_live, counts = 0, Counter[str]()
        both = live.vector_index_id, self.shadow.vector_index_id
        for covered, lacking in covered_by_first_alone(self._database, *both):
            in_live += covered
            counts.update(not_taken.kind_of(product_id) or "unexplained" for product_id in lacking)
        return Missing(in_live, **counts)

    async def require_recall(
        self, live: ServedIndex, request: ReindexRequest, say: Callable[..., Awaitable[None]]
    ) -> None:
        """Raises GateClosed where the new index finds less of what the queries name."""
        before = await self.recall(live, request.queries)
        new = await self.recall(self.shadow, request.queries)
        await say(recall_live=before, recall_new=new)
        if new < before - request.margin and not request.force:
            raise GateClosed(f"Recall at 10 falls from {before:.3f} to {new:.3f}, by more than {request.margin}.")

    async def recall(self, index: ServedIndex, queries: Sequence[ReindexQuery]) -> float:
        """The share of the queries that find their product among the first ten."""
        found = 0
        for query in queries:
            encoding = index.encoding
            batcher = encoding.text_queries if query.mode is SearchMode.TEXT_TO_TEXT else encoding.clip_texts
            vector = await batcher.bulk(query.text)
            found += await self._threads.run(self._finds, index, query, vector)
        return round(found / len(queries), 4)

    def _finds(self, index: ServedIndex, query: ReindexQuery, vector: Vector) -> bool:
        """Products, as a search ranks them: each by the best of its rows."""
        field, limit = VECTOR_FIELDS[query.mode], RECALL_AT + SPARE
        while True:
            (hits,) = self._vector_db.search(index.collection, field, [vector], limit=limit)
            with self._database.read() as session:
                bound = products_bound_to(session, index.vector_index_id, [hit.row for hit in hits])
            counting = [bound[hit.row] for hit in hits if hit.row in bound and counts_in(field, bound[hit.row])]
            first = list({product.product_id: product for product in counting}.values())[:RECALL_AT]
            if len(first) == RECALL_AT or len(hits) < limit or limit > MOST_ROWS:
                return any(query.names(product.product_id, product.sku) for product in first)
            limit *= 2

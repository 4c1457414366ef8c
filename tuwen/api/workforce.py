"""What `/health` looks at besides the engines: room on the disk, who does the background work, and how much waits."""

from collections.abc import Sequence
from typing import NamedTuple

from data_models import Backlog, ComponentHealth
from orm_models import ProcessRow, utc_now
from tuwen.catalogue.queries import count_pending, oldest_pending_at
from tuwen.database.engine import Database
from tuwen.folders import those_too_full
from tuwen.generation.queries import count_jobs_waiting
from tuwen.processes import Presence, living_processes
from tuwen.settings import Settings

INDEXES = "ingestion"
DRAWS = ("drawing", "generation")  # the process itself, and the API that starts one when there is something to draw


class Workforce(NamedTuple):
    indexing: ComponentHealth
    drawing: ComponentHealth
    backlog: Backlog | None


_UNKNOWN = ComponentHealth(status="down", detail="Not known while the database does not answer.")
NOTHING_KNOWN = Workforce(_UNKNOWN, _UNKNOWN, None)


def check_disk(settings: Settings) -> ComponentHealth:
    """Where this machine's folders are that the service fills."""
    if full := those_too_full(settings.local_folders, settings.disk_min_free_mb):
        detail = f"{full}: less than the {settings.disk_min_free_mb} MB of DISK_MIN_FREE_MB."
        return ComponentHealth(status="degraded", detail=detail)
    return ComponentHealth(status="ok")


def check_workforce(database: Database, this_process: Presence) -> Workforce:
    """Blocks. Raises DatabaseUnavailable."""
    own = this_process.row()
    with database.read() as session:
        others = [row for row in living_processes(session) if row.process_id != own.process_id]
        pending, oldest = count_pending(session), oldest_pending_at(session)
        jobs = count_jobs_waiting(session)
    age_s = max(0.0, round((utc_now() - oldest).total_seconds(), 1)) if oldest else None
    processes = [own, *others]
    return Workforce(
        _indexing(processes), _drawing(processes, jobs), Backlog(pending=pending, oldest_s=age_s, jobs=jobs)
    )


def _indexing(processes: Sequence[ProcessRow]) -> ComponentHealth:
    if not any(INDEXES in _loops(process) for process in processes):
        return ComponentHealth(status="down", detail="No process that indexes was seen lately: does worker.py run?")
    return _unless_hung([(process, loop) for process in processes for loop in _loops(process) if loop not in DRAWS])


def _drawing(processes: Sequence[ProcessRow], jobs_waiting: int) -> ComponentHealth:
    theirs = [(process, loop) for process in processes for loop in _loops(process) if loop in DRAWS]
    if theirs:
        return _unless_hung(theirs)
    detail = "No process that draws was seen lately: does tuwen.generation.worker run?"
    return ComponentHealth(status="down" if jobs_waiting else "ok", detail=detail)


def _unless_hung(loops: Sequence[tuple[ProcessRow, str]]) -> ComponentHealth:
    overdue = [(process, loop, _loops(process)[loop]) for process, loop in loops]
    hung = [f"{loop} in {process.name} has been due for {late:.0f} s" for process, loop, late in overdue if late > 0]
    return ComponentHealth(status="degraded", detail=f"{'; '.join(hung)}.") if hung else ComponentHealth(status="ok")


def _loops(process: ProcessRow) -> dict[str, float]:
    loops: dict[str, float] = process.state.get("loops", {})
    return loops

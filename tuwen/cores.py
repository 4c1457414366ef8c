"""How many cores this process may really use, which libraries don't ask for: they count the machine's.

In a container both are far apart. More threads than that compute no faster, and under a quota each period ends with all
threads of the process stopped, those that answer requests among them. And who gets a core first: searches.
"""

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

PROC = Path("/proc/self")
# Beyond the process's own. Beside a thread that never rests it leaves a quarter of a core, within which the deadlines
# hold that were made for an ordinary priority; 10 would leave a tenth.
NICENESS, MOST_NICENESS = 5, 19
# Python's own is 5 ms: so long each hand-over takes while another thread has something to compute, and a search has
# many of them. Windows waits by whole milliseconds, and of less than one not at all.
SWITCH_INTERVAL_S, WINDOWS_SWITCH_INTERVAL_S = 0.0005, 0.001
_ordinary_lock = threading.Lock()


def available_cores(proc: Path = PROC) -> int:
    """Those that the scheduler may place this process on, and whole ones alone of what its cgroups pay for; 1 at least.

    Half a core more than a quota's whole ones is left to what is not counted here: the event loop, and Milvus Lite.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas(proc)])))


def thread_variables(threads: int, environment: Mapping[str, str]) -> dict[str, str]:
    """For OpenMP's runtimes (torch's) and numpy's BLAS, which read them when they are loaded; what is set stays.

    Passive: threads that wait spin for milliseconds otherwise, on cores that others compute on.
    """
    wanted = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return {name: environment.get(name) or value for name, value in wanted.items()}


def stand_behind() -> None:
    """This thread from now on, and whatever threads it starts: the others come first. On Linux alone a thread has a
    priority of its own; elsewhere nothing changes."""
    if sys.platform != "linux":
        return
    try:
        _ordinary_thread()
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())  # of the main thread, which never lowers itself
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(MOST_NICENESS, own + NICENESS))
    except (OSError, RuntimeError) as error:  # RuntimeError: no thread more is to be had
        _warn_once(f"What is done for the index takes cores from searches: its priority can't be lowered ({error})")


def started_ordinarily(start: Callable[[], Result]) -> Result:
    """Its result or error, from a thread that stands behind nobody: a process, too, keeps the priority of the thread
    that started it, for life and whomever it serves. Let it only start something: others wait for the same thread."""
    return _ordinary_thread().submit(start).result()


def _ordinary_thread() -> ThreadPoolExecutor:
    """Begun before any thread lowers itself, since threads inherit, too."""
    with _ordinary_lock:
        return _begin_ordinary_thread()


@cache
def _begin_ordinary_thread() -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(1, thread_name_prefix="ordinary")
    executor.submit(int).result()
    return executor


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def hand_over_soon() -> None:
    """Python's threads take turns, and a search's must not wait long for those that index."""
    sys.setswitchinterval(WINDOWS_SWITCH_INTERVAL_S if sys.platform == "win32" else SWITCH_INTERVAL_S)


def keep_what_is_loaded() -> None:
    """Out of what is looked through for garbage, which stopped everything for 0.4 s each time."""
    gc.collect()
    gc.freeze()


def _quotas(proc: Path) -> Iterator[float]:
    """In cores, of this process's cgroups and of all above them that can be seen from here."""
    for folder, mount_point in _cgroups(proc):
        for each in (folder, *folder.parents):
            quota = _quota(each)
            if quota is not None:
                yield quota
            if each == mount_point:
                break


def _quota(folder: Path) -> float | None:
    """None where there is no limit, or the folder is of another controller."""
    try:
        if (folder / "cpu.max").exists():  # version 2: "max 100000", or "150000 100000"
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None  # version 1 writes -1 for no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _cgroups(proc: Path) -> Iterator[tuple[Path, Path]]:
    """The folders of this process that may say what it gets of processors, each with the mount point that it is below.

    https://docs.kernel.org/admin-guide/cgroup-v2.html and proc_pid_mountinfo(5) have the formats.
    """
    try:
        of_controllers = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        mounts = [line.split(" - ", 1) for line in (proc / "mountinfo").read_text().splitlines()]
    except OSError:  # none such but on Linux
        return
    paths = {name: path for _, names, path in of_controllers for name in names.split(",")}
    for mount, filesystem in mounts:
        kind, _, options = filesystem.split(" ", 2)
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and "cpu" in options.split(","):
            path = paths.get("cpu")
        else:
            continue
        root, mount_point = mount.split(" ")[3:5]
        if path is not None:
            yield _below(Path(mount_point), path, root), Path(mount_point)


def _below(mount_point: Path, path: str, root: str) -> Path:
    """Where `path` is, if `root` is what is mounted. What lies outside is seen through the mount point alone."""
    inner = os.path.relpath(path, root)
    folder = mount_point / inner
    return mount_point if inner.startswith("..") or not folder.is_dir() else folder

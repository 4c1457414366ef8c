"""The folder of exports: one for each model and each version of the libraries that made it. Loads none of them."""

import hashlib
import importlib.metadata
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from tuwen.folders import MB, require_writable
from tuwen.settings import PROJECT_ROOT

Kind: TypeAlias = Literal["clip", "sentence"]
Encoder = TypeVar("Encoder")

logger = logging.getLogger(__name__)

# Goes up with every change of what an export holds or how it is used.
FORMAT = 1
LIBRARIES = ("openvino", "torch", "transformers", "sentence-transformers", "tokenizers")
QUANTIZER = "nncf"
NICENESS = 10
REFUSED = "refused.txt"
# The largest CLIP, ViT-H/14, takes some minutes.
LONGEST_EXPORT_S = 1800.0
LOOK_S = 0.2
WEIGHTS = (".safetensors", ".bin")
THE_MACHINES = re.compile(r"memory|alloc|no space|disk|permission|read-only|too many open|temporarily", re.IGNORECASE)


class NotExportable(Exception):
    """In a sentence's second half: why this model is not run this way."""


def export_folder(cache: Path, kind: Kind, files: str, *, int8: bool = False) -> Path:
    """Where the export of a model is, or would be; `files` is the digest of its files. Raises NotExportable."""
    libraries = (*LIBRARIES, QUANTIZER) if int8 else LIBRARIES
    try:
        versions = [f"{library}=={importlib.metadata.version(library)}" for library in libraries]
    except importlib.metadata.PackageNotFoundError as error:
        how = ": pip install -r requirements-int8.txt -c constraints.txt" if error.name == QUANTIZER else ""
        raise NotExportable(f"the package {error.name} is not installed{how}") from error
    key = hashlib.sha256("\n".join([str(FORMAT), files, *versions]).encode()).hexdigest()
    return cache.resolve() / f"{kind}-{key[:32]}"


def load_export(
    kind: Kind,
    model: Path,
    folder: Path,
    load: Callable[[Path], Encoder],
    int8_of: Path | None = None,
    setting: str = "ENCODER_CACHE_DIR",
) -> Encoder:
    """`load` of the export, which is made first where there is none. Raises NotExportable, or ConfigurationError, which
    names `setting`, where none can be kept.

    `int8_of` is the folder of the export that one in int8 is made from; it need not be there either.
    """
    if may_pass(_refusal(folder)):  # as this was kept once
        _remove(folder, _version(folder), "its export speaks of another time")
    is_new = not folder.is_dir() and _export_once(kind, model, folder, int8_of, setting)
    if refusal := _refusal(folder):
        raise NotExportable(refusal)
    version = _version(folder)
    try:
        return load(folder)
    except Exception as error:  # libraries raise errors of their own for damaged files
        if is_new:
            raise NotExportable(str(error)) from error
        logger.warning("The export of %s in %s can't be used, and is made anew: %s", model, folder, error)
        _remove(folder, version, f"its export can't be used ({error})")
    return load_export(kind, model, folder, load, int8_of, setting)


def _refusal(folder: Path) -> str:
    try:
        return (folder / REFUSED).read_text(encoding="utf-8")
    except OSError:  # most have none
        return ""


def _version(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _remove(folder: Path, version: tuple[int, int] | None, why: str) -> None:
    """Unless another process has made it anew meanwhile. Raises NotExportable."""
    aside = folder.with_name(f".{folder.name}-{os.getpid()}-{time.time_ns()}")
    with one_at_a_time(folder):
        if version is None or _version(folder) != version:
            return
        try:
            folder.rename(aside)  # at once, or not at all
        except OSError as error:
            raise NotExportable(f"{why}, and can't be removed from {folder} ({error.strerror})") from error
    shutil.rmtree(aside, ignore_errors=True)


def _export_once(kind: Kind, model: Path, folder: Path, int8_of: Path | None, setting: str) -> bool:
    """Whether it was this process that made it, and not another."""
    require_writable(folder, setting)
    _require_room(model, folder.parent, setting)
    with one_at_a_time(folder) as lock:
        if folder.is_dir():
            return False
        _export(kind, model, folder, int8_of, lock)
    return True


def _require_room(model: Path, cache: Path, setting: str) -> None:
    """Before half a minute's work is for nothing: what it makes is as large as the weights, or larger."""
    files = [file for file in model.rglob("*") if file.suffix in WEIGHTS]
    needed = max(sum(file.stat().st_size for file in files if file.suffix == suffix) for suffix in WEIGHTS)
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise NotExportable(
            f"its export takes {needed // MB} MB or more, and {free // MB} MB are free in {cache} ({setting})"
        )


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[Sequence[int]]:
    """While no other process makes or removes this export: what holds the lock, for a process to inherit.

    A holder that is killed lets go. Where files can't be locked, or not by this user, all go on at once, which costs
    each its own conversion and harms nothing.
    """
    try:
        lock = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        yield ()
        return
    try:
        yield (lock,) if _is_locked(lock, folder) else ()
    finally:
        os.close(lock)


def _is_locked(lock: int, folder: Path) -> bool:
    """Waits for whoever holds it, for as long as any conversion goes on."""
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:  # on Windows
        return False
    deadline = time.monotonic() + LONGEST_EXPORT_S
    is_said = False
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not is_said:
                logger.info("Another process makes %s; this one waits for it", folder)
                is_said = True
            time.sleep(LOOK_S)
        except OSError:  # a file system without locks
            break
        else:
            return True
    return False


def _export(kind: Kind, model: Path, folder: Path, int8_of: Path | None, lock: Sequence[int]) -> None:
    """In a process of its own, whose libraries are gone with it. It has the lock, too, should this one be killed."""
    logger.info("Converting %s for this processor, once: this takes half a minute, with large models some", model)
    started = time.monotonic()
    if int8_of is None:
        way = ["tuwen.encoders.exported.export", kind, str(model.resolve())]
    else:
        way = ["tuwen.encoders.exported.quantize", kind, str(model.resolve()), str(int8_of)]
    command = [sys.executable, "-m", *way, str(folder)]
    try:
        done = subprocess.run(
            command,
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=LONGEST_EXPORT_S,
            check=False,
            pass_fds=lock,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotExportable(f"its conversion ended: {error}") from error
    if not folder.is_dir():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NotExportable(f"its conversion failed: {lines[-1]}")
    logger.info("Converted %s in %.0f s; kept in %s", model, time.monotonic() - started, folder)


def may_pass(said: BaseException | str | None) -> bool:
    """Whether it is the machine's trouble, and not the model's: libraries tell of it in errors of any type."""
    if isinstance(said, OSError | MemoryError):
        return True
    if isinstance(said, BaseException):
        return may_pass(f"{type(said).__name__}: {said}") or may_pass(said.__cause__)
    return said is not None and THE_MACHINES.search(said) is not None


def make_export(target: Path, convert: Callable[[Path], None]) -> None:
    """What `convert` puts into a folder. It appears whole or not at all; where two are at it, the first one's stays."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)  # a service that answers searches may be waiting for it
    target.parent.mkdir(parents=True, exist_ok=True)
    tidy(target.parent, now=time.time())
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        try:
            convert(folder)
        except Exception as error:  # tracers raise whatever they like
            if may_pass(error):
                raise
            traceback.print_exc()
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / REFUSED).write_text(str(error).strip().split("\n")[0] or type(error).__name__, encoding="utf-8")
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tidy(cache: Path, *, now: float) -> None:
    """What a killed export left behind goes, an hour later than any goes on."""
    for path in cache.glob(".*-*"):
        if path.is_dir() and now - path.stat().st_mtime > 2 * LONGEST_EXPORT_S:
            shutil.rmtree(path, ignore_errors=True)

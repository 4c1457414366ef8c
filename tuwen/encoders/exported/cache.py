"""The folder of exports: one for each model and each version of the libraries that made it. Loads none of them."""

import hashlib
import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

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
    kind: Kind, model: Path, folder: Path, load: Callable[[Path], Encoder], int8_of: Path | None = None
) -> Encoder:
    """`load` of the export, which is made first where there is none. Raises NotExportable.

    `int8_of` is the folder of the export that one in int8 is made from; it need not be there either.
    """
    is_new = not folder.is_dir()
    if is_new:
        _export(kind, model, folder, int8_of)
    if (folder / REFUSED).is_file():
        raise NotExportable((folder / REFUSED).read_text(encoding="utf-8"))
    try:
        return load(folder)
    except Exception as error:  # libraries raise errors of their own for damaged files
        if is_new:
            raise NotExportable(str(error)) from error
        logger.warning("The export of %s in %s can't be used, and is made anew: %s", model, folder, error)
    shutil.rmtree(folder, ignore_errors=True)
    return load_export(kind, model, folder, load, int8_of)


def _export(kind: Kind, model: Path, folder: Path, int8_of: Path | None) -> None:
    """In a process of its own, whose libraries are gone with it."""
    logger.info("Converting %s for this processor, once: this takes half a minute, with large models some", model)
    started = time.monotonic()
    if int8_of is None:
        way = ["tuwen.encoders.exported.export", kind, str(model.resolve())]
    else:
        way = ["tuwen.encoders.exported.quantize", kind, str(model.resolve()), str(int8_of)]
    command = [sys.executable, "-m", *way, str(folder)]
    try:
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=LONGEST_EXPORT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotExportable(f"its conversion ended: {error}") from error
    if not folder.is_dir():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NotExportable(f"its conversion failed: {lines[-1]}")
    logger.info("Converted %s in %.0f s; kept in %s", model, time.monotonic() - started, folder)


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
        except (OSError, MemoryError):
            raise  # nothing that the model is to blame for
        except Exception as error:  # tracers raise whatever they like
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

"""The folder of exports: one for each model and each version of the libraries that made it. Loads none of them."""

import hashlib
import importlib.metadata
import logging
import shutil
import subprocess
import sys
import time
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
REFUSED = "refused.txt"
# The largest CLIP, ViT-H/14, takes some minutes.
LONGEST_EXPORT_S = 1800.0


class NotExportable(Exception):
    """In a sentence's second half: why this model is not run this way."""


def export_folder(cache: Path, kind: Kind, files: str) -> Path:
    """Where the export of a model is, or would be; `files` is the digest of its files. Raises NotExportable."""
    try:
        versions = [f"{library}=={importlib.metadata.version(library)}" for library in LIBRARIES]
    except importlib.metadata.PackageNotFoundError as error:
        raise NotExportable(f"the package {error.name} is not installed") from error
    key = hashlib.sha256("\n".join([str(FORMAT), files, *versions]).encode()).hexdigest()
    return cache.resolve() / f"{kind}-{key[:32]}"


def load_export(kind: Kind, model: Path, folder: Path, load: Callable[[Path], Encoder]) -> Encoder:
    """`load` of the export, which is made first where there is none. Raises NotExportable."""
    is_new = not folder.is_dir()
    if is_new:
        _export(kind, model, folder)
    if (folder / REFUSED).is_file():
        raise NotExportable((folder / REFUSED).read_text(encoding="utf-8"))
    try:
        return load(folder)
    except Exception as error:  # libraries raise errors of their own for damaged files
        if is_new:
            raise NotExportable(str(error)) from error
        logger.warning("The export of %s in %s can't be used, and is made anew: %s", model, folder, error)
    shutil.rmtree(folder, ignore_errors=True)
    return load_export(kind, model, folder, load)


def _export(kind: Kind, model: Path, folder: Path) -> None:
    """In a process of its own, whose libraries are gone with it."""
    logger.info("Converting %s for this processor, once: this takes half a minute, with large models some", model)
    started = time.monotonic()
    command = [sys.executable, "-m", "tuwen.encoders.exported.export", kind, str(model.resolve()), str(folder)]
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


def tidy(cache: Path, *, now: float) -> None:
    """What a killed export left behind goes, an hour later than any goes on."""
    for path in cache.glob(".*-*"):
        if path.is_dir() and now - path.stat().st_mtime > 2 * LONGEST_EXPORT_S:
            shutil.rmtree(path, ignore_errors=True)

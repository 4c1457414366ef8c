"""Folders of this machine that something is kept in."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tuwen.errors import ConfigurationError

MB = 10**6


def require_writable(path: Path, setting: str) -> None:
    """The folder of the file `path`, made where it is missing, and the file if there is one.

    Asked at the start, so that one that can't be written in is named as what it is, and not as a database that is away.
    Raises ConfigurationError, naming the setting that says where it is.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if path.exists() and not os.access(path, os.W_OK):
            folder = path
            raise PermissionError(0, "Permission denied")
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: {folder} can't be written ({error.strerror}). Make it writable for the user who runs this, "
            f"or set {setting} to another place."
        ) from error


def those_too_full(folders: Iterable[Path], min_free_mb: int) -> str:
    """One of each disk, with what is free there, for a sentence; empty where there is room."""
    of_devices = {folder.stat().st_dev: folder for folder in folders if folder.exists()}
    free = {folder: shutil.disk_usage(folder).free // MB for folder in of_devices.values()}
    return ", ".join(f"{mb} MB are free in {folder}" for folder, mb in free.items() if mb < min_free_mb)


def sync(path: Path) -> None:
    """To the disk: a file, or a folder's names. A new name is only as durable as the folder that holds it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The folder of exports: what is kept there, by whom, and what becomes of it where something is in the way.

Converts nothing: a program stands where Python's would, and takes as long as a test wants.
"""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nlp_models import load_encoders
from tests.processes import ROOT, environment, wait_until
from tuwen.encoders.exported import cache
from tuwen.encoders.exported.cache import REFUSED, NotExportable, load_export, make_export, tidy
from tuwen.errors import ConfigurationError
from tuwen.settings import Settings

NOBODY = 65534
PYTHON = sys.executable
PROGRAM = """#!/bin/sh
for folder; do :; done
echo >> "$0.begun"
until [ -e "$0.go" ]; do sleep 0.02; done
mkdir "$folder"
"""


class Conversion:
    def __init__(self, folder: Path) -> None:
        self.program = folder / "convert"
        self.program.write_text(PROGRAM)
        self.program.chmod(0o755)

    def begun(self) -> int:
        file = Path(f"{self.program}.begun")
        return len(file.read_text().splitlines()) if file.exists() else 0

    def go(self) -> None:
        Path(f"{self.program}.go").touch()


@pytest.fixture
def conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Conversion:
    caplog.set_level("INFO")
    made = Conversion(tmp_path)
    monkeypatch.setattr(sys, "executable", str(made.program))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "clip-x"


@contextmanager
def loading(conversion: Conversion, folder: Path, times: int) -> Iterator[list[str]]:
    """So many at once, each with a lock of its own, as so many processes. The names that they loaded."""
    loaded: list[str] = []
    with ThreadPoolExecutor(times) as threads:
        loads = [threads.submit(load_export, "clip", folder, folder, lambda path: path.name) for _ in range(times)]
        try:
            yield loaded
        finally:
            conversion.go()
        loaded += [each.result() for each in loads]


def test_of_several_processes_one_converts_and_the_others_wait_for_it(
    conversion: Conversion, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with loading(conversion, folder, times=3) as loaded:
        wait_until(lambda: caplog.text.count("waits for it") == 2, what="two to wait")
    assert (loaded, conversion.begun()) == ([folder.name] * 3, 1)
    assert caplog.text.count("waits for it") == 2, "said once by each"


HOLDER = """
import sys
from pathlib import Path
from tuwen.encoders.exported.cache import load_export
sys.executable = sys.argv[1]
load_export("clip", Path(sys.argv[2]), Path(sys.argv[2]), str)
"""


@pytest.mark.parametrize("with_its_conversion", [True, False])
def test_a_killed_process_holds_nobody_up(
    conversion: Conversion,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    with_its_conversion: bool,
) -> None:
    command = [PYTHON, "-c", HOLDER, str(conversion.program), str(folder)]
    killed = subprocess.Popen(command, cwd=ROOT, env=environment(), start_new_session=True)
    wait_until(lambda: conversion.begun() == 1, what="the first to convert")
    with loading(conversion, folder, times=1) as loaded:
        wait_until(lambda: "waits for it" in caplog.text, what="the second to wait")
        if with_its_conversion:
            os.killpg(killed.pid, signal.SIGKILL)
            wait_until(lambda: conversion.begun() == 2, what="the second to convert")
        else:
            killed.kill()
        killed.wait()
    assert (loaded, conversion.begun()) == ([folder.name], 2 if with_its_conversion else 1)


def test_where_files_can_t_be_locked_each_converts(
    conversion: Conversion, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with loading(conversion, folder, times=2) as loaded:
        wait_until(lambda: conversion.begun() == 2, what="both to convert")
    assert loaded == [folder.name] * 2


MAKER = """
import sys
from pathlib import Path
from tuwen.encoders.exported.cache import make_export
def convert(folder):
    (folder / "network").touch()
    print("begun", flush=True)
    sys.stdin.readline()
make_export(Path(sys.argv[1]), convert)
"""


def test_of_two_at_once_one_stays_and_a_killed_one_leaves_nothing_in_the_way(folder: Path) -> None:
    command = [sys.executable, "-c", MAKER, str(folder)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    makers = [subprocess.Popen(command, cwd=ROOT, env=environment(), **pipes) for _ in range(3)]
    assert [maker.stdout.readline() for maker in makers if maker.stdout] == ["begun\n"] * 3
    killed = makers.pop()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    for maker in makers:
        maker.communicate("\n")
    assert [maker.returncode for maker in makers] == [0, 0]
    assert [file.name for file in folder.iterdir()] == ["network"]
    (left,) = folder.parent.glob(".*")
    tidy(folder.parent, now=left.stat().st_mtime + 60)
    assert left.is_dir()  # it may be somebody's who is at it
    tidy(folder.parent, now=left.stat().st_mtime + 24 * 3600)
    assert list(folder.parent.iterdir()) == [folder]


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Exception from src/core/src/runtime/itensor.cpp:99: std::bad_alloc"),
        type("OutOfMemoryError", (RuntimeError,), {})("tried 2 GiB"),
        _caused(ValueError("it can't be saved"), OSError(errno.ENOSPC, "full")),
        RuntimeError("can't open /cache/x.bin: Permission denied"),
        MemoryError(),
    ],
)
def test_what_is_not_the_models_fault_is_tried_again(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "NICENESS", 0)

    def convert(_: Path) -> None:
        raise error

    with pytest.raises(type(error)):
        make_export(folder, convert)
    assert not folder.exists()


def test_what_is_the_models_fault_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "NICENESS", 0)

    def convert(_: Path) -> None:
        raise ValueError("it takes more than tokens")

    make_export(folder, convert)
    with pytest.raises(NotExportable, match="it takes more than tokens"):
        load_export("clip", folder, folder, str)


def test_a_kept_refusal_that_was_never_the_models_fault_is_dropped(conversion: Conversion, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / REFUSED).write_text("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes")
    conversion.go()
    assert load_export("clip", folder, folder, lambda path: path.name) == folder.name
    assert conversion.begun() == 1


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """For this process too, whoever runs it."""
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_damaged_export_that_can_t_be_removed_is_said_at_once() -> None:
    tries = []

    def load(_: Path) -> None:
        tries.append(1)
        raise ValueError("it is damaged")

    with tempfile.TemporaryDirectory() as name:  # not below pytest's folders, which others can't enter
        folder = Path(name) / "cache" / "clip-x"
        folder.mkdir(parents=True)
        Path(name).chmod(0o755)
        with unwritable(folder.parent), pytest.raises(NotExportable, match=r"it is damaged.* can't be removed from"):
            load_export("clip", folder, folder, load)
    assert len(tries) == 1


@pytest.mark.parametrize("setting", ["ENCODER_CACHE_DIR", "DATA_DIR"])
def test_a_cache_that_can_t_be_written_is_named_by_its_setting(
    conversion: Conversion, tmp_path: Path, tiny_models: dict[str, str], setting: str
) -> None:
    conversion.go()  # should one begin, it must not wait
    file = tmp_path / "file"
    file.touch()
    values: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    settings = Settings(_env_file=None, **values | {setting.lower(): file})
    with pytest.raises(ConfigurationError, match=f"^{setting}: .*can't be written"):
        load_encoders(settings)
    assert conversion.begun() == 0


def test_nothing_is_converted_onto_a_full_disk(
    conversion: Conversion, folder: Path, tiny_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion.go()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(NotExportable, match=r"takes \d MB or more, and 0 MB are free in .*/cache \(DATA_DIR\)"):
        load_export("clip", Path(tiny_models["CLIP_MODEL"]), folder, str, setting="DATA_DIR")
    assert conversion.begun() == 0

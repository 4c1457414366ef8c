"""How many cores a process has: what cgroups say, and how many threads then compute."""

import gc
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.processes import ROOT, environment
from tuwen.cores import available_cores, hand_over_soon, keep_what_is_loaded, stand_behind, thread_variables

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
OWN = os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0
BEHIND = min(19, OWN + 5)
needs_two_cores = pytest.mark.skipif(ALL < 2, reason="needs two cores")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")

V2_MOUNT = "30 23 0:26 {root} {mount} ro,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "33 32 0:29 {root} {mount}/cpuset rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,cpuset\n"
    "34 32 0:30 {root} {mount}/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
)
V1_CGROUP = "11:cpu,cpuacct:{path}\n10:cpuset:{path}\n1:name=systemd:{path}\n0::/\n"
OTHER_MOUNT = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"


def proc_of(folder: Path, cgroup: str, mounts: str) -> Path:
    proc = folder / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(OTHER_MOUNT + mounts)
    return proc


def write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.mark.parametrize(
    ("own", "above", "cores"),
    [
        ("max 100000", "max 100000", ALL),
        ("100000 100000", "max 100000", 1),
        ("50000 100000", "max 100000", 1),  # less than one is one
        ("max 100000", "20000 10000", min(2, ALL)),  # what stands above counts, too
        ("190000 100000", "400000 100000", 1),  # whole ones alone
        ("6400000 100000", "max 100000", ALL),  # more than there are
    ],
)
def test_version_2_says_it_in_one_file(tmp_path: Path, own: str, above: str, cores: int) -> None:
    mount = tmp_path / "cgroup"
    write({mount / "system.slice" / "tuwen.service" / "cpu.max": own, mount / "system.slice" / "cpu.max": above})
    mounts = V2_MOUNT.format(root="/", mount=mount)
    assert available_cores(proc_of(tmp_path, "0::/system.slice/tuwen.service\n", mounts)) == cores


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/docker/7c1f", "/"),  # on the host, or with the host's namespace and all of its cgroups
        ("/docker/7c1f", "/docker/7c1f"),  # a container that sees its own alone, by the host's name
        ("/", "/"),  # a namespace of its own
        ("/../../elsewhere", "/"),  # moved out of it
    ],
)
def test_version_1_says_it_in_two(tmp_path: Path, path: str, root: str) -> None:
    mount = tmp_path / "cgroup"
    own = mount / "cpu,cpuacct" / ("docker/7c1f" if (path, root) == ("/docker/7c1f", "/") else "")
    write({own / "cpu.cfs_quota_us": "150000", own / "cpu.cfs_period_us": "100000"})
    proc = proc_of(tmp_path, V1_CGROUP.format(path=path), V1_MOUNTS.format(root=root, mount=mount))
    assert available_cores(proc) == 1
    (own / "cpu.cfs_quota_us").write_text("-1\n")
    assert available_cores(proc) == ALL


def test_where_nothing_is_said_all_cores_count(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == ALL
    assert available_cores(proc_of(tmp_path, "0::/\n", V2_MOUNT.format(root="/", mount=tmp_path))) == ALL


def test_what_an_operator_has_set_stays() -> None:
    assert thread_variables(3, {}) == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"}
    assert thread_variables(3, {"OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "1"


# Of encoding by both demo models, for 1.5 s of processor time: each thread's part in it, and its priority.
ENCODE = """
import json, os, sys, threading, time
from pathlib import Path
from PIL import Image
from nlp_models import load_encoders
from tuwen.cores import stand_behind
from tuwen.encoders.device import run_behind_all_others
from tuwen.settings import load_settings

def threads():
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:  # it has ended
            continue
        found[int(task.name)] = int(fields[11]) + int(fields[12]), int(fields[16])
    return found

def encode():
    if is_behind:
        run_behind_all_others()
    if is_index:
        stand_behind()
    while time.process_time() < begun + 1.5:
        (clip.index_prepared if is_index else clip.encode_prepared)([picture] * 8)
        (clip.index_prepared if is_index else clip.encode_prepared)([picture])
        (clip.index_texts if is_index else clip.encode_texts)(texts)
        encoders.text.encode_documents(texts)
    spent.update((task, (ticks - before.get(task, (0, 0))[0], nice)) for task, (ticks, nice) in threads().items())

is_behind, is_index = "behind" in sys.argv, "index" in sys.argv
encoders = load_encoders(load_settings())
if is_behind:
    encoders = encoders.on_one_thread()
clip, texts = encoders.clip, ["红色布艺沙发" * 9] * 8
picture = clip.prepare(Image.new("RGB", (512, 512), "red"))
before, begun, spent = threads(), time.process_time(), {}
worker = threading.Thread(target=encode)
worker.start()
worker.join()
total = sum(ticks for ticks, _ in spent.values())
print(json.dumps([[ticks, nice] for ticks, nice in spent.values() if 10 * ticks > total]))
"""


def computing_threads(
    *arguments: str, cgroup: Path | None = None, backend: str = "openvino", **settings: object
) -> list[list[int]]:
    """Those with more than a tenth of all processor time: how many hundredths of a second, and how nice."""
    env = environment(ENCODER_BACKEND=backend, **settings)
    join = f"echo $$ > {cgroup / 'cgroup.procs'} && " if cgroup else ""
    command = ["sh", "-c", f'{join} exec "$@"', "sh", sys.executable, "-c", ENCODE, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


@needs_linux
@needs_two_cores
def test_models_compute_on_all_cores_or_as_many_as_are_set() -> None:
    assert len(computing_threads()) >= 2
    assert len(computing_threads(MODEL_THREADS=1)) == 1


@needs_linux
def test_what_stands_behind_all_others_has_one_thread_and_that_is_nice() -> None:
    [(_, nice)] = computing_threads("behind")
    assert nice == BEHIND


@needs_linux
@needs_two_cores
def test_what_is_of_the_index_is_nice_and_on_all_cores() -> None:
    of_index = computing_threads("index")
    assert len(of_index) >= 2
    assert {nice for _, nice in of_index} == {BEHIND}


# What a thread has that stands behind, and what a thread of its own and a process have that it has begun.
STAND_BEHIND = """
import subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PRIO_PROCESS, getpriority
from tuwen.cores import stand_behind, started_ordinarily

def see():
    stand_behind()
    with ThreadPoolExecutor(1, initializer=stand_behind) as inner:
        print(getpriority(PRIO_PROCESS, 0), inner.submit(getpriority, PRIO_PROCESS, 0).result())
    child = started_ordinarily(partial(subprocess.Popen, ["nice"]))
    child.wait()

with ThreadPoolExecutor(1) as executor:
    executor.submit(see).result()
"""


@needs_linux
@pytest.mark.parametrize(("added", "behind"), [(0, OWN + 5), (15 - OWN, 19)])
def test_a_thread_stands_behind_its_own_process_and_a_process_that_it_starts_does_not(added: int, behind: int) -> None:
    if OWN > 10:
        pytest.skip("this process is too nice")
    command = ["nice", "-n", str(added), sys.executable, "-c", STAND_BEHIND]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(behind), str(behind), str(OWN + added)]


@needs_linux
def test_where_no_thread_can_be_lowered_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("threading.get_native_id", lambda: 2**31 - 1)  # no thread has it
    for _ in range(2):
        stand_behind()
    [record] = caplog.records
    assert "can't be lowered" in record.getMessage()


@pytest.mark.parametrize(("platform", "interval_s"), [("linux", 0.0005), ("win32", 0.001)])
def test_windows_waits_by_whole_milliseconds(monkeypatch: pytest.MonkeyPatch, platform: str, interval_s: float) -> None:
    before = sys.getswitchinterval()
    monkeypatch.setattr(sys, "platform", platform)
    try:
        hand_over_soon()
        assert sys.getswitchinterval() == pytest.approx(interval_s)
    finally:
        sys.setswitchinterval(before)


def test_what_searches_by_words_load_is_not_looked_through_either() -> None:
    """Pinyin's tables, which a start does not wait for: 190,000 objects and more."""
    script = "import gc; from tuwen.lexical.terms import sounds_of; assert sounds_of('沙发') == ['~shafa']; "
    script += "print(gc.get_freeze_count() > 100_000 > len(gc.get_objects()))"
    assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, env=environment(), text=True) == "True\n"


def test_what_is_loaded_is_no_longer_looked_through_for_garbage() -> None:
    frozen = gc.get_freeze_count()
    try:
        keep_what_is_loaded()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


@pytest.fixture
def cgroup_of_one_core() -> Iterator[Path]:
    """Skips where cgroups can't be made: in most containers, also CI's."""
    name = f"tuwen-test-{uuid.uuid4().hex[:8]}"
    version_1, version_2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    is_version_1 = (version_1 / "cpu.cfs_quota_us").exists()
    folder = (version_1 if is_version_1 else version_2) / name
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups can't be made here: {error}")
    try:
        if is_version_1:
            (folder / "cpu.cfs_quota_us").write_text("100000")
        else:
            (folder / "cpu.max").write_text("100000 100000")
    except OSError as error:
        pytest.skip(f"cgroups of processors can't be made here: {error}")
    else:
        yield folder
    finally:
        folder.rmdir()


@needs_linux
@needs_two_cores
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_under_a_quota_of_one_core_one_thread_computes(cgroup_of_one_core: Path, backend: str) -> None:
    assert len(computing_threads(cgroup=cgroup_of_one_core, backend=backend)) == 1

"""The service as real processes on loopback that are started again whenever they end, as containers are."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil

from tests.faults.network import Link, Network
from tests.launch import Program
from tests.processes import ROOT, answers, environment, free_port, wait_until
from tests.servers import (
    kafka_command,
    listens,
    mariadb_answers,
    milvus_answers,
    milvus_command,
    new_bucket,
    new_mariadb,
    new_mysql_database,
    s3_answers,
    s3_command,
)
from tuwen.assembly import Stores, open_stores
from tuwen.settings import Settings

Result = TypeVar("Result")

START_S, LOOK_S = 300.0, 3600.0
RESTART_PAUSE_S = 0.5
POLL_S = 0.1
# How our own programs wait is their own; only how long is shorter, so that a fault of seconds is a long one.
QUICK = {
    "MILVUS_TIMEOUT_S": 3,
    "RETRY_BACKOFF_MAX_S": 2,
    "RELAY_POLL_S": 1,
    "RECONCILE_INTERVAL_S": 10,
    "RECONCILE_LARGE_SHARE": 1,  # many products are deleted within minutes, and nobody is there to say that it is right
    "KAFKA_PARTITIONS": 4,  # as the broker makes topics that it lost when it was killed
    "GENERATION_HEARTBEAT_S": 1,
    "DISK_MIN_FREE_MB": 10,  # of a small disk
    "MODEL_HUB": "none",
}


class FaultKind(NamedTuple):
    """Something that can be done to the stack, and undone."""

    name: str
    target: str
    """One fault at a time of each."""
    begin: Callable[[], None]
    end: Callable[[], None]
    weight: float = 1.0
    has_recovered: Callable[[], bool] = lambda: True
    """Until then the target is spared after the end: what is down already learns nothing from another fault."""


class Supervised:
    """A process that `Supervisor` starts, and starts again when it ends."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], log: Path) -> None:
        """Python's programs are started from one that has loaded the libraries."""
        self.name = name
        self.starts = 0
        self._command, self._env, self._log = command, env, log
        self._process: subprocess.Popen[bytes] | Program | None = None
        self._may_run = False
        self._not_before = 0.0
        self._lock = threading.RLock()

    def start(self) -> None:
        with self._lock:
            self._may_run = True
            self.watch()

    def watch(self) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._process = None
                self._not_before = time.monotonic() + RESTART_PAUSE_S
            if self._process is None and self._may_run and time.monotonic() >= self._not_before:
                self._spawn()

    def kill(self) -> None:
        """As a crash or the kernel does it; it stays down until `start`."""
        with self._lock:
            self._may_run = False
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def stop(self) -> None:
        """In good order, and for good."""
        with self._lock:
            self._may_run = False
            if self._process is None:
                return
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process.wait()

    def end_with_children(self) -> None:
        self.stop()
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

    def children(self, module: str) -> list[psutil.Process]:
        """Those that run this module now."""
        with self._lock, suppress(psutil.NoSuchProcess):
            if self._process is not None:
                children = psutil.Process(self._process.pid).children()
                return [child for child in children if module in child.cmdline()]
        return []

    def faults(
        self, *, kill: float = 1.0, freeze: float = 1.0, has_recovered: Callable[[], bool] = lambda: True
    ) -> list[FaultKind]:
        """`kill` and `freeze` are weights."""
        stop, go_on = signal.SIGSTOP, signal.SIGCONT
        return [
            FaultKind(f"kill {self.name}", self.name, self.kill, self.start, kill, has_recovered),
            FaultKind(f"freeze {self.name}", self.name, lambda: self.signal(stop), lambda: self.signal(go_on), freeze),
        ]

    def _spawn(self) -> None:
        self.starts += 1
        with self._log.open("ab") as output:
            output.write(f"--- start {self.starts} of {self.name}\n".encode())
            output.flush()
            if self._command[0] == "-m" or _is_script(Path(self._command[0])):
                self._process = Program(self._command, self._env, self._log)
                return
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".py" or b"python" in file.readline()


class Supervisor:
    """Watches over all of them, on a thread of its own, until closed."""

    def __init__(self) -> None:
        self.processes: list[Supervised] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, process: Supervised, ready: Callable[[], bool] | None = None) -> Supervised:
        process.start()
        self.processes.append(process)
        if ready is not None:
            wait_until(ready, timeout_s=START_S, what=f"{process.name} to start")
        return process

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        for process in reversed(self.processes):
            process.end_with_children()

    def _watch(self) -> None:
        while not self._closing.wait(POLL_S):
            for process in list(self.processes):
                process.watch()


@dataclass
class Stack:
    """Where the service answers, what can be done to it, and where its stores are for whoever looks past it."""

    urls: list[str]
    settings: Settings
    """Of the stores themselves, past all links."""
    processes: list[Supervised]
    faults: list[FaultKind]
    not_possible: list[str] = field(default_factory=list)
    """Faults that this machine does not allow, and why."""
    environment: dict[str, str] = field(default_factory=dict)
    faults_at_once: int = 4
    pause_s: tuple[float, float] = (0.3, 2.0)
    """Between the beginnings of two faults."""
    stores_are_shared: bool = True
    """Otherwise the service must be down while its stores are looked at."""

    def wait_until_up(self) -> None:
        for url in self.urls:
            wait_until(lambda url=url: answers(f"{url}/health"), timeout_s=START_S, what=f"{url}/health to be ok")  # type: ignore[misc]

    def look(self, at: Callable[[Stores], Result]) -> Result:
        """What the function finds in the stores, in a process of its own; the service is down while they aren't shared.

        Of its own because Milvus Lite never lets go of its file, nor the S3 client of an address.
        """
        with self._down(), ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
            return pool.submit(_look, at, self.settings, self.environment).result(LOOK_S)

    @contextmanager
    def _down(self) -> Iterator[None]:
        if self.stores_are_shared:
            yield
            return
        for process in self.processes:
            process.stop()
        yield
        for process in self.processes:
            process.start()
        self.wait_until_up()


def _look(at: Callable[[Stores], Result], settings: Settings, env: dict[str, str]) -> Result:
    os.environ.update(env)
    with open_stores(settings) as stores:
        return at(stores)


@contextmanager
def running_embedded(folder: Path, models: dict[str, str]) -> Iterator[Stack]:
    """One process, and its data on a small disk of its own where this machine allows one."""
    data, port = folder / "data", free_port()
    data.mkdir()
    supervisor = Supervisor()
    disk = _small_disk(data)
    try:
        values = {**models, **QUICK, "DATA_DIR": data}
        env = environment(**values, API_PORT=port)
        api = Supervised("api", _api_command(port), env, folder / "api.log")
        supervisor.add(api, lambda: answers(f"http://127.0.0.1:{port}/health"))
        folder_faults, not_possible = _folder_faults(data, has_disk=disk)
        stack = Stack(
            [f"http://127.0.0.1:{port}"],
            Settings(**{name.lower(): value for name, value in values.items()}),  # type: ignore[arg-type]
            [api],
            [*api.faults(kill=3, freeze=2, has_recovered=partial(listens, port)), *_lite_faults(api), *folder_faults],
            not_possible,
            faults_at_once=2,
            pause_s=(0.5, 4.0),  # one process is all there is: it must be up between the faults
            stores_are_shared=False,
        )
        yield stack
    finally:
        supervisor.close()
        if disk:
            subprocess.run(["umount", "--lazy", str(data)], check=True)


def _lite_faults(api: Supervised) -> list[FaultKind]:
    frozen: list[psutil.Process] = []

    def kill() -> None:
        for child in api.children("tuwen.lite_process"):
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def freeze() -> None:
        for child in api.children("tuwen.lite_process"):
            with suppress(psutil.NoSuchProcess):
                child.suspend()
                frozen.append(child)

    def thaw() -> None:  # its parent may have been killed meanwhile
        while frozen:
            with suppress(psutil.NoSuchProcess):
                frozen.pop().resume()

    return [
        FaultKind("kill Milvus Lite", "Milvus Lite", kill, lambda: None, 2),
        FaultKind("freeze Milvus Lite", "Milvus Lite", freeze, thaw),
    ]


DISK_MB = 256


def _small_disk(data: Path) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(data)]
    return shutil.which("mount") is not None and subprocess.run(mount, check=False, capture_output=True).returncode == 0


def _folder_faults(data: Path, *, has_disk: bool) -> tuple[list[FaultKind], list[str]]:
    faults, not_possible = [], []
    if has_disk:
        faults.append(FaultKind("fill the disk", "disk", lambda: _fill(data), lambda: _ballast(data).unlink(), 3))
    else:
        not_possible.append("full disk: no file system may be mounted here")
    if _set_read_only(data, True):
        _set_read_only(data, False)
        begin, end = (lambda value=value: _set_read_only(data, value) for value in (True, False))
        faults.append(FaultKind("make the folder read-only", "disk", begin, end, 2))  # type: ignore[arg-type]
    else:
        not_possible.append("read-only folder: chattr +i is not permitted here")
    return faults, not_possible


def _ballast(data: Path) -> Path:
    return data / "ballast"


def _fill(data: Path) -> None:
    with _ballast(data).open("wb", buffering=0) as file:
        piece = b"\0" * 65_536
        while piece:
            try:
                file.write(piece)
            except OSError:
                piece = piece[: len(piece) // 2]


def _set_read_only(data: Path, read_only: bool) -> bool:
    """Nothing can be added to any folder of it or taken from it; root heeds nothing less. What is open stays so."""
    flag = "+i" if read_only else "-i"
    folders = [data, *(path for path in data.rglob("*") if path.is_dir())]
    change = ["chattr", flag, *map(str, folders)]
    return (
        shutil.which("chattr") is not None and subprocess.run(change, check=False, capture_output=True).returncode == 0
    )


def _api_command(port: int) -> list[str]:
    fastapi = str(Path(sys.executable).with_name("fastapi"))
    return [fastapi, "run", str(ROOT / "main.py"), "--host", "127.0.0.1", "--port", str(port)]


@contextmanager
def running_full(folder: Path, models: dict[str, str]) -> Iterator[Stack]:
    """Two APIs, two workers, the drawing worker, and their engines, each reached through links of its own."""
    supervisor, network = Supervisor(), Network()
    try:
        yield _FullStack(folder, models, supervisor, network).start()
    finally:
        supervisor.close()
        network.close()


class _FullStack:
    def __init__(self, folder: Path, models: dict[str, str], supervisor: Supervisor, network: Network) -> None:
        self._folder, self._models, self._supervisor, self._network = folder, models, supervisor, network
        self._ports = {name: free_port() for name in ("mariadb", "kafka", "milvus", "s3")}
        self._bucket: dict[str, str] = {}
        # One for all of its clients: the broker sends them on to the one address that it advertises.
        self._kafka_link = network.link("kafka of all", self._ports["kafka"])
        self._links: list[Link] = [self._kafka_link]

    def start(self) -> Stack:
        engines = self._start_engines()
        database = new_mysql_database(f"mysql+pymysql://root@127.0.0.1:{self._ports['mariadb']}")
        direct = self._settings(self._ports, database)
        migrate = [sys.executable, "cli.py", "migrate"]
        subprocess.run(migrate, cwd=ROOT, env=environment(**direct), check=True, capture_output=True, timeout=120)
        ours, urls = self._start_ours(database)
        alive = {f"api-{n}": partial(listens, int(url.rpartition(":")[2])) for n, url in enumerate(urls, start=1)}
        faults = [f for p in ours for f in p.faults(kill=0.5, has_recovered=alive.get(p.name, lambda: True))]
        # The tests' S3 server keeps everything in memory: a kill would lose what nothing else has.
        faults += [f for name, each in engines.items() for f in each.faults(kill=0 if name == "s3" else 1)]
        faults += [fault for link in self._links for fault in _link_faults(link)]
        settings = Settings(**{name.lower(): value for name, value in direct.items()})  # type: ignore[arg-type]
        stack = Stack(urls, settings, [*engines.values(), *ours], faults, environment=self._bucket)
        stack.wait_until_up()
        return stack

    def _start_engines(self) -> dict[str, Supervised]:
        ports, folder = self._ports, self._folder
        commands: dict[str, tuple[list[str], Callable[[int], bool]]] = {
            "mariadb": (new_mariadb(folder, ports["mariadb"]), mariadb_answers),
            "kafka": (kafka_command(ports["kafka"], advertised_port=self._kafka_link.port), listens),
            "milvus": (milvus_command(folder, ports["milvus"]), milvus_answers),
            "s3": (s3_command(ports["s3"]), s3_answers),
        }
        engines = {}
        for name, (command, ready) in commands.items():
            process = Supervised(name, command, environment(), folder / f"{name}.log")
            engines[name] = self._supervisor.add(process, lambda ready=ready, name=name: ready(ports[name]))  # type: ignore[misc]
        self._bucket = new_bucket(f"http://127.0.0.1:{ports['s3']}")
        return engines

    def _start_ours(self, database: str) -> tuple[list[Supervised], list[str]]:
        ports = [free_port(), free_port()]
        commands = {f"api-{number}": _api_command(port) for number, port in enumerate(ports, start=1)}
        commands |= {f"worker-{number}": [str(ROOT / "worker.py")] for number in (1, 2)}
        commands["drawing"] = ["-m", "tuwen.generation.worker"]
        ours = []
        for name, command in commands.items():
            links = {
                each: self._network.link(f"{each} of {name}", self._ports[each]) for each in ("mariadb", "milvus", "s3")
            }
            self._links += links.values()
            env = environment(**self._settings({each: link.port for each, link in links.items()}, database))
            ours.append(self._supervisor.add(Supervised(name, command, env, self._folder / f"{name}.log")))
        return ours, [f"http://127.0.0.1:{port}" for port in ports]

    def _settings(self, ports: dict[str, int], database: str) -> dict[str, object]:
        return {
            **self._models,
            **QUICK,
            "DATA_DIR": self._folder / "service",
            "AUTO_MIGRATE": False,
            "DATABASE_URL": database.replace(f":{self._ports['mariadb']}/", f":{ports['mariadb']}/"),
            "MILVUS_URI": f"http://127.0.0.1:{ports['milvus']}",
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self._kafka_link.port}",
            "KAFKA_IDEMPOTENT_PRODUCER": False,  # the broker of the tests has none
            **self._bucket,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
        }


SLOW_S = 0.3


def _link_faults(link: Link) -> list[FaultKind]:
    return [
        FaultKind(f"cut {link.name}", link.name, link.cut, link.heal, 0.4),
        FaultKind(f"hang {link.name}", link.name, link.hang, link.heal, 0.4),
        FaultKind(f"slow {link.name}", link.name, lambda: link.slow_down(SLOW_S), link.heal, 0.2),
    ]

"""Clients, faults and the checks afterwards, put together: `python -m tests.faults --help`."""

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tests.faults.checker import Settled, check_searches, settle
from tests.faults.clients import Client, Pictures
from tests.faults.history import (
    CHANGES,
    History,
    Operation,
    ProductHistory,
    Violated,
    Violation,
    check_history,
    count_outcomes,
    describe,
)
from tests.faults.nemesis import Fault, Nemesis
from tests.faults.stack import Stack, running_embedded, running_full
from tests.tiny_models import (
    save_tiny_chinese_clip,
    save_tiny_chinese_stable_diffusion,
    save_tiny_sentence_model,
)

STACKS: dict[str, Callable[[Path, dict[str, str]], AbstractContextManager[Stack]]] = {
    "full": running_full,
    "embedded": running_embedded,
}
CLIENTS = {"full": 4, "embedded": 3}
FAULTS_BEFORE_S = 10.0
# Shorter than the longest faults, so that whoever was paused for longer comes back to what was swept meanwhile; six
# times as long, which is what pictures have, is longer than any, a short run itself included.
GRACE_S, SHORT_GRACE_S, SHORT_RUN_S = 30.0, 10.0, 90.0
FORESEEN = ("2", "404", "503", "no connection", "import")


@dataclass
class Report:
    stack: str
    seed: int
    history: History
    faults: list[Fault]
    settled: Settled
    violations: list[Violation]
    not_possible: list[str]

    def summary(self) -> str:
        """A line."""
        operations, kinds = self.history.operations, Counter(each.kind for each in self.violations)
        outcomes = count_outcomes(self.history)
        changes = [each for each in operations if each.kind in CHANGES and each.outcome == "ok"]
        violated = ", ".join(f"{kinds[kind]} {kind}" for kind in get_args(Violated))
        return (
            f"{self.stack} stack, seed {self.seed}: {len(self.faults)} faults; {len(operations)} operations, of these "
            f"{outcomes['failed']} failed and {outcomes['unknown']} unknown; {len(changes)} changes acknowledged, "
            f"{len(self.settled.stored)} products in the end: {violated}"
        )

    def details(self) -> Iterator[str]:
        faults = Counter(fault.name.partition(" of ")[0] for fault in self.faults)
        yield "faults: " + ", ".join(f"{count} × {name}" for name, count in sorted(faults.items()))
        yield from (f"skipped: {reason}" for reason in self.not_possible)
        mended = {name: count for name, count in self.settled.mended.items() if count}
        yield f"settled after {self.settled.seconds:.0f} s; the service's own passes found after all graces: {mended}"
        yield from (
            f"unforeseen answer, {count} times: {answer}" for answer, count in self.unforeseen().most_common(10)
        )
        for kind in get_args(Violated):
            yield from self._shortest([each for each in self.violations if each.kind == kind])

    def unforeseen(self) -> Counter[str]:
        """A 500, for one: nothing that may come of a fault."""
        return Counter(
            f"{each.kind}: {each.answer}"
            for each in self.history.operations
            if each.answer and not each.answer.startswith(FORESEEN) and not each.answer.endswith(("Timeout", "Error"))
        )

    def _shortest(self, violations: list[Violation]) -> Iterator[str]:
        """Of all violations of a kind, the one whose product has the shortest history, with what was going on."""
        if not violations:
            return
        by_sku = self.history.by_sku()
        violation = min(violations, key=lambda each: (each.sku not in by_sku, len(by_sku.get(each.sku, ()))))
        yield f"\n{violation.kind}, one of {len(violations)}: {violation.sku}: {violation.what}"
        operations = ProductHistory(violation.sku, by_sku.get(violation.sku, [])).operations
        shown = [each for each in operations if each.kind != "search"] + _last_searches(operations)
        if shown:
            begin, end = (
                min(each.started for each in shown) - FAULTS_BEFORE_S,
                max(min(each.ended, each.started + 60) for each in shown),
            )
            near = [fault for fault in self.faults if fault.ended >= begin and fault.started <= end]
            lines = [*describe(shown), *map(str, near)]
            yield from sorted(lines, key=lambda line: float(line.split()[0]))


def _last_searches(operations: list[Operation]) -> list[Operation]:
    return [each for each in operations if each.kind == "search"][-2:]


def run(stack_name: str, seed: int, seconds: float, folder: Path, models: dict[str, str]) -> Report:
    """Everything that is written lies in the folder, the logs of all processes too."""
    history, pictures = History(), Pictures()
    grace_s = GRACE_S if seconds > SHORT_RUN_S else SHORT_GRACE_S
    with STACKS[stack_name](folder, models | {"RECONCILE_GRACE_S": str(grace_s)}) as stack:
        nemesis = Nemesis(seed, stack.faults, history, at_once=stack.faults_at_once, pause_s=stack.pause_s)
        uploads = folder / "uploads"
        uploads.mkdir()
        clients = [
            Client(number, seed, stack.urls, history, pictures, uploads, draws=True)
            for number in range(1, CLIENTS[stack_name] + 1)
        ]
        for actor in (nemesis, *clients):
            actor.start()
        time.sleep(seconds)
        nemesis.heal()
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.stop()
        stack.wait_until_up()
        settled = settle(stack)
        violations = settled.violations + check_history(history, settled.stored)
        violations += check_searches(stack, settled.stored, pictures)
        return Report(stack_name, seed, history, nemesis.faults, settled, violations, stack.not_possible)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Faults against the whole service, and whether its stores still agree."
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults, on each stack")
    parser.add_argument("--stack", choices=[*STACKS, "both"], default="both")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    arguments = parser.parse_args()
    stacks = list(STACKS) if arguments.stack == "both" else [arguments.stack]
    folder = Path(tempfile.mkdtemp(prefix="tuwen-faults-"))
    print(f"seed {arguments.seed}; logs in {folder}", flush=True)
    models = {
        "CLIP_MODEL": str(save_tiny_chinese_clip(folder / "clip")),
        "TEXT_MODEL": str(save_tiny_sentence_model(folder / "text")),
        "GENERATOR_MODEL": str(save_tiny_chinese_stable_diffusion(folder / "generator")),
    }
    violations = 0
    for name in stacks:
        (folder / name).mkdir()
        report = run(name, arguments.seed, arguments.minutes * 60, folder / name, models)
        print(report.summary(), *report.details(), sep="\n", flush=True)
        violations += len(report.violations) + report.unforeseen().total()
    if not violations:
        shutil.rmtree(folder)
    return 1 if violations else 0

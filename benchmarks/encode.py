"""Pictures and texts a second: our encoders against plain transformers in float32, and infinity's engine.

    python -m benchmarks.encode --models demo real

Each way in a process of its own; all of them in turns, round after round, so that a machine that grows busy is so for
all. The median of the rounds, for a batch of one and for the best of several batches. Infinity takes part where
`.work/infinity-venv` has it: real sizes alone, and there with a CLIP model of the same picture tower, since it hangs on
Chinese-CLIP.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.models import MODELS, clip_folder, plain_clip, text_folder
from benchmarks.services import EXPORTS
from tuwen.settings import PROJECT_ROOT

WORKER = Path(__file__).with_name("encode_worker.py")
INFINITY = PROJECT_ROOT / ".work" / "infinity-venv" / "bin" / "python"
OURS = ("openvino", "torch")
INT8 = ("int8",) if find_spec("nncf") else ()
BASELINE = "transformers"
# For --one-core; whoever waits for another thread has no part in it.
ONE_CORE = {"OMP_NUM_THREADS": "1", "MODEL_THREADS": "1", "BY_PROCESSOR_TIME": "1"}


class Worker:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.encodes: Sequence[str] = self._answer()["encodes"]

    def rate(self, what: str, batch: int, seconds: float) -> float:
        assert self._process.stdin is not None, "it is a pipe"
        print(json.dumps({"what": what, "batch": batch, "seconds": seconds}), file=self._process.stdin, flush=True)
        return float(self._answer()["per_s"])

    def _answer(self) -> Any:
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("a worker ended")
        return json.loads(line)


def main() -> None:
    options = results.options(__doc__)
    options.add_argument("--models", nargs="+", choices=MODELS, default=["demo"])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    options.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64], help="the first is 1")
    options.add_argument(
        "--one-core", action="store_true", help="one thread each, by its processor time: for a machine that is busy"
    )
    chosen = options.parse_args()
    if chosen.quick:
        chosen.models, chosen.rounds, chosen.seconds, chosen.batches = ["demo"], 1, 0.01, [1, 2]
    report = results.Report("encode", quick=chosen.quick)
    for models in chosen.models:
        with ExitStack() as stack:
            workers = {
                kind: stack.enter_context(_worker(kind, models, chosen.one_core))
                for kind in _kinds(models, chosen.quick)
            }
            rates = _measure(workers, chosen.batches, chosen.rounds, chosen.seconds)
        for row in _rows(rates, chosen.batches):
            report.add(models=models, **row)
    report.write(chosen.json)


def _kinds(models: str, is_quick: bool) -> list[str]:
    infinity = ["infinity"] if models == "real" and INFINITY.is_file() else []
    return [BASELINE, *(OURS[:1] if is_quick else (*OURS, *INT8)), *infinity]


@contextmanager
def _worker(kind: str, models: str, one_core: bool) -> Iterator[Worker]:
    is_infinity = kind == "infinity"
    python = str(INFINITY) if is_infinity else sys.executable
    clip = plain_clip() if is_infinity else clip_folder(models)
    quiet = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1", "TUWEN_ENV_FILE": ""}
    quiet |= ONE_CORE if one_core else {}
    command = [python, str(WORKER), kind, str(clip), str(text_folder(models)), str(EXPORTS)]
    log = results.RESULTS / f"encode-{kind}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=os.environ | quiet
        )
    try:
        yield Worker(process)
    except EOFError:
        sys.exit(f"{kind} ended:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
    finally:
        process.kill()
        process.wait()


Rates = Mapping[tuple[str, str, int], list[float]]


def _measure(workers: Mapping[str, Worker], batches: Sequence[int], rounds: int, seconds: float) -> Rates:
    """By what, kind and batch: a figure of each round."""
    rates: dict[tuple[str, str, int], list[float]] = {}
    for _ in range(rounds):
        for what in ("images", "clip texts", "titles"):
            for batch in batches:
                for kind, worker in workers.items():
                    if what in worker.encodes:
                        rates.setdefault((what, kind, batch), []).append(worker.rate(what, batch, seconds))
    return rates


def _rows(rates: Rates, batches: Sequence[int]) -> Iterator[results.Row]:
    """Against the baseline at the same batch, and at its own best."""
    medians = {key: results.median(values) for key, values in rates.items()}
    for what, kind in dict.fromkeys((what, kind) for what, kind, _ in medians):
        best = max(batches, key=lambda batch: medians[what, kind, batch])
        base = {batch: medians[what, BASELINE, batch] for batch in batches}
        yield {
            "what": what,
            "kind": kind,
            "per_s_alone": round(medians[what, kind, 1], 2),
            "per_s_best": round(medians[what, kind, best], 2),
            "best_batch": best,
            "ratio_alone": round(medians[what, kind, 1] / base[1], 2),
            "ratio_best": round(medians[what, kind, best] / max(base.values()), 2),
        }


if __name__ == "__main__":
    main()

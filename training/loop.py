"""The training loop of what takes long: a learning rate by steps, a time budget, checkpoints, and going on exactly.

A step's randomness comes from its number alone, so that a checkpoint needs no generator's state.
"""

import logging
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 300
LOG_SECONDS = 30
PLAN_AFTER_STEPS = 10
LONGEST_GRADIENT = 1.0

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast: `steps` are given, or `minutes`, from which the steps follow as they are timed.

    The learning rate rises over `warmup` steps, stays, and falls to zero over the last `decay` (a share) of all.
    """

    batch: int
    learning_rate: float
    minutes: float = 0.0
    steps: int = 0
    warmup: int = 100
    decay: float = 0.6
    ema: float = 0.996
    seed: int = 0


class Stopped(Exception):
    """SIGTERM or SIGINT came; the checkpoint is written."""


class OtherRunError(Exception):
    """The checkpoint was made from something else."""


class Loop(Generic[Model]):
    """Trains `model`, going on from the checkpoint if there is one; `ema`, its running average, is what to use.

    `made_from` names what the training depends on; a checkpoint made from something else is refused.
    """

    def __init__(self, model: Model, settings: LoopSettings, checkpoint: Path, made_from: Mapping[str, str]) -> None:
        self.model, self.settings, self.checkpoint = model, settings, checkpoint
        self.made_from = dict(made_from)
        self.ema: Model = deepcopy(model).requires_grad_(False).train(False)
        self.step, self.seconds, self.total = 0, 0.0, settings.steps
        self._optimizer = torch.optim.AdamW(
            model.parameters(), settings.learning_rate, (0.9, 0.99), weight_decay=0.01, fused=True
        )
        self._stop = False
        if checkpoint.exists():
            self._load()

    @property
    def done(self) -> bool:
        """Whether all steps were made; of a run with a time budget this is known once it is planned."""
        return 0 < self.total <= self.step

    @property
    def progress(self) -> float:
        """The share of all steps that was made, 0 to 1."""
        return min(self.step / self.total, 1.0) if self.total else 0.0

    def run(
        self,
        loss: Callable[[int, float], Tensor],
        after_step: Callable[[float], None] = lambda seconds: None,
        stop_at: int | None = None,
    ) -> None:
        """Make the remaining steps. `loss` gets a step's number and the progress, `after_step` the seconds so far.

        A signal, or the step `stop_at`, writes a checkpoint and raises `Stopped`.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._run(loss, after_step, stop_at)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run(
        self, loss: Callable[[int, float], Tensor], after_step: Callable[[float], None], stop_at: int | None
    ) -> None:
        self.model.train()
        started, seconds_before = time.monotonic(), self.seconds
        saved = logged = started
        losses, durations = [], []
        while not self.done:
            begun = time.monotonic()
            losses.append(self._make_step(loss))
            now = time.monotonic()
            durations.append(now - begun)
            self.seconds = seconds_before + now - started
            stopping = self._stop or self.step == stop_at
            log_due, save_due = now - logged >= LOG_SECONDS, now - saved >= CHECKPOINT_SECONDS
            if log_due or (not self.total and len(durations) == PLAN_AFTER_STEPS):
                self._plan(statistics.median(durations))
            if log_due or self.done:
                self._log(losses, statistics.median(durations))
                logged, losses, durations = now, [], []
            if save_due or stopping or self.done:
                self._save()
                saved = now
            if stopping and not self.done:
                raise Stopped
            after_step(self.seconds)

    def _make_step(self, loss: Callable[[int, float], Tensor]) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        value = loss(self.step, self.progress)
        self._optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch has no type here
        nn.utils.clip_grad_norm_(self.model.parameters(), LONGEST_GRADIENT)
        self._optimizer.step()
        # A short memory first, else the average would keep the random start.
        keep = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, now in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.lerp_(now, 1 - keep)
        self.step += 1
        return value.item()

    def _learning_rate(self) -> float:
        rise = min((self.step + 1) / self.settings.warmup, 1.0)
        fall = min((1 - self.progress) / self.settings.decay, 1.0)
        return self.settings.learning_rate * rise * fall

    def _plan(self, seconds_a_step: float) -> None:
        """Set the number of all steps by what the time budget still allows; again at each line of the log."""
        if not self.settings.steps:
            left = max(self.settings.minutes * 60 - self.seconds, 0.0)
            self.total = self.step + int(left / seconds_a_step)

    def _log(self, losses: Sequence[float], seconds_a_step: float) -> None:
        logger.info(
            "step %d of %s, loss %.4f, %.1f images/s, %s min left",
            self.step,
            self.total or "?",
            sum(losses) / len(losses),
            self.settings.batch / seconds_a_step,
            round((self.total - self.step) * seconds_a_step / 60) if self.total else "?",
        )

    def _on_signal(self, *_: object) -> None:
        self._stop = True

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "total": self.total,
            "minutes": self.settings.minutes,
            "made_from": self.made_from,
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)  # so that a run that is killed while writing keeps the one before

    def _load(self) -> None:
        state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if state["made_from"] != self.made_from:
            raise OtherRunError(
                f"{self.checkpoint} was made from {state['made_from']}, and this run has {self.made_from}; "
                "remove the file to train anew"
            )
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        if not self.settings.steps:
            self.total = state["total"]
            if state["minutes"] != self.settings.minutes:
                self._plan(self.seconds / max(self.step, 1))
        logger.info("going on from step %d of %s", self.step, self.total or "?")


def step_random(seed: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """The generators of one step."""
    rng = np.random.default_rng([seed, step])
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))

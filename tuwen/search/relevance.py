"""From a hit's signals to its relevance: the weights of each mode of an index, as every process knows them.

Those in the database come first, fitted by `cli.py calibrate`; behind them what was fitted for the models that come
with this version. Looked up when a search first needs them, and when the index says that they are others.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from data_models import FittedOn, HitSignals, ModeCalibration, RelevanceWeights, SearchMode
from tuwen.database.engine import Database
from tuwen.errors import InvalidInput
from tuwen.settings import PROJECT_ROOT
from tuwen.vectors.calibrations import calibrations_of
from tuwen.vectors.registry import ServedIndex

SHIPPED = PROJECT_ROOT / "models" / "calibrations.json"
"""By the fingerprint of the models, and by mode."""

ByMode = Mapping[SearchMode, ModeCalibration]


class _Version(NamedTuple):
    vector_index_id: int
    collection: str
    """SQLite gives the number of an index that is gone again."""
    number: int


class Calibrations:
    """Safe for several threads: who comes second reads once more, and keeps the same."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[_Version, ByMode] | None = None

    def known(self, index: ServedIndex) -> ByMode | None:
        """Without asking anybody; None where that has to be."""
        known = self._known
        return known[1] if known is not None and known[0] == _version_of(index) else None

    def of(self, index: ServedIndex) -> ByMode:
        """Blocks, unless they are known."""
        known = self.known(index)
        if known is None:
            with self._database.read() as session:
                fitted = calibrations_of(session, index.vector_index_id)
            known = {**shipped_with(index.encoding.encoders.fingerprint), **fitted}
            self._known = _version_of(index), known
        return known


def require(calibrations: ByMode, mode: SearchMode) -> None:
    """Raises InvalidInput."""
    if mode not in calibrations:
        raise InvalidInput.in_field(
            "min_score",
            f"needs a calibration, and {mode.value} has none in this index: 'python cli.py calibrate' makes it",
        )


def relevance_of(signals: HitSignals, weights: RelevanceWeights) -> float | None:
    """None where a signal that has a weight is not known."""
    log_odds = weights.intercept
    for name, value in signals:
        weight = getattr(weights, name)
        if not weight:
            continue
        if value is None:
            return None
        log_odds += weight * value
    return round(1 / (1 + math.exp(-max(-700.0, min(700.0, log_odds)))), 6)


def shipped_with(fingerprint: str) -> ByMode:
    return _shipped().get(fingerprint, {})


@cache
def _shipped() -> dict[str, ByMode]:
    """None where the folder of models has another's alone."""
    if not SHIPPED.is_file():
        return {}
    by_models = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return {
        fingerprint: {
            SearchMode(mode): ModeCalibration(
                weights=RelevanceWeights.model_validate(each["weights"]),
                fitted_on=FittedOn.model_validate(each["fitted_on"]),
                fitted_at=None,
            )
            for mode, each in modes.items()
        }
        for fingerprint, modes in by_models.items()
    }


def _version_of(index: ServedIndex) -> _Version:
    return _Version(index.vector_index_id, index.collection, index.calibration_version)

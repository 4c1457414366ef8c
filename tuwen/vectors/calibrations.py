"""The table of calibrations: what each search mode of an index has, and how a new one takes its place.

Whoever writes raises the index's `calibration_version`, by which every process sees that there is something new. Never
commits: the caller's `Database.write()` block is the transaction.
"""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from data_models import FittedOn, ModeCalibration, NewCalibration, RelevanceWeights, SearchMode
from orm_models import CalibrationRow, VectorIndexRow, utc_now
from tuwen.errors import InvalidInput
from tuwen.vectors.indexes import active_index

SIGNALS_OF: Mapping[SearchMode, Collection[str]] = {
    SearchMode.TEXT_TO_TEXT: ("title_cosine", "words"),
    SearchMode.TEXT_TO_IMAGE: ("picture_cosine", "words"),
    SearchMode.IMAGE_TO_TEXT: ("title_cosine",),
    SearchMode.IMAGE_TO_IMAGE: ("picture_cosine",),
    SearchMode.HYBRID: ("title_cosine", "picture_cosine", "words"),
}


def calibrations_of(session: orm.Session, vector_index_id: int) -> dict[SearchMode, ModeCalibration]:
    rows = session.scalars(sa.select(CalibrationRow).where(CalibrationRow.vector_index_id == vector_index_id))
    return {SearchMode(row.mode): _as_calibration(row) for row in rows}


def store_calibration(session: orm.Session, mode: SearchMode, new: NewCalibration) -> ModeCalibration:
    """For the active index, in place of what this mode had. Raises InvalidInput where the index is another by now."""
    given = new.weights.model_dump(exclude={"intercept"})
    wrong = [name for name, weight in given.items() if weight and name not in SIGNALS_OF[mode]]
    if wrong:
        raise InvalidInput.in_field(f"weights.{wrong[0]}", f"is of a signal that hits of {mode.value} have not")
    active = active_index(session)
    if active is None or active.collection != new.collection:
        raise InvalidInput.in_field("collection", "is not the index that answers; fit on searches of that one")
    # The lock of the row is that of all its calibrations: two who write at once do so one after another.
    raised = sa.update(VectorIndexRow).where(VectorIndexRow.vector_index_id == active.vector_index_id)
    session.execute(raised.values(calibration_version=VectorIndexRow.calibration_version + 1))
    session.execute(
        sa.delete(CalibrationRow).where(
            CalibrationRow.vector_index_id == active.vector_index_id, CalibrationRow.mode == mode.value
        )
    )
    row = CalibrationRow(
        vector_index_id=active.vector_index_id,
        mode=mode.value,
        weights=new.weights.model_dump(),
        fitted_on=new.fitted_on.model_dump(),
        fitted_at=utc_now(),
    )
    session.add(row)
    return _as_calibration(row)


def _as_calibration(row: CalibrationRow) -> ModeCalibration:
    weights: Mapping[str, Any] = row.weights
    return ModeCalibration(
        weights=RelevanceWeights.model_validate(weights),
        fitted_on=FittedOn.model_validate(row.fitted_on),
        fitted_at=row.fitted_at,
    )

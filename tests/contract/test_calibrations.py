"""The table of calibrations on SQLite and MariaDB: one a mode of an index, replaced by the next, gone with it."""

import pytest
import sqlalchemy as sa

from data_models import FittedOn, NewCalibration, RelevanceWeights, SearchMode
from orm_models import CalibrationRow, VectorIndexRow
from tuwen.database.engine import Database
from tuwen.errors import InvalidInput
from tuwen.vectors.calibrations import calibrations_of, store_calibration
from tuwen.vectors.indexes import activate

FITTED_ON = FittedOn(queries=20, hits=100, auroc=0.9, log_loss=0.3, calibration_error=0.02)


@pytest.fixture(autouse=True)
def _no_index_of_the_test_before(database: Database) -> None:
    with database.write() as session:
        session.execute(sa.delete(VectorIndexRow))


def new_index(database: Database, collection: str, status: str) -> int:
    with database.write() as session:
        row = VectorIndexRow(collection=collection, model_fingerprint="f", status=status)
        session.add(row)
        session.flush()
        return row.vector_index_id


def calibration(collection: str, intercept: float) -> NewCalibration:
    weights = RelevanceWeights(intercept=intercept, words=3.25)
    return NewCalibration(collection=collection, weights=weights, fitted_on=FITTED_ON)


def store(database: Database, mode: SearchMode, new: NewCalibration) -> None:
    with database.write() as session:
        store_calibration(session, mode, new)


def version(database: Database, vector_index_id: int) -> int:
    with database.read() as session:
        return session.get_one(VectorIndexRow, vector_index_id).calibration_version


def intercepts(database: Database, vector_index_id: int) -> dict[SearchMode, float]:
    with database.read() as session:
        found = calibrations_of(session, vector_index_id)
    assert all(each.weights.words == 3.25 and each.fitted_on == FITTED_ON for each in found.values())
    return {mode: each.weights.intercept for mode, each in found.items()}


def test_each_mode_has_its_own_and_the_next_takes_its_place(database: Database) -> None:
    index = new_index(database, "one", "active")
    assert (version(database, index), intercepts(database, index)) == (0, {})
    store(database, SearchMode.HYBRID, calibration("one", -1.5))
    store(database, SearchMode.TEXT_TO_TEXT, calibration("one", -2.5))
    assert version(database, index) == 2
    store(database, SearchMode.HYBRID, calibration("one", -3.5))
    assert version(database, index) == 3
    assert intercepts(database, index) == {SearchMode.HYBRID: -3.5, SearchMode.TEXT_TO_TEXT: -2.5}


def test_another_index_begins_without_one_and_the_one_before_keeps_its_own(database: Database) -> None:
    before, after = new_index(database, "before", "active"), new_index(database, "after", "building")
    store(database, SearchMode.HYBRID, calibration("before", -1.0))
    with pytest.raises(InvalidInput, match="is not the index that answers"):
        store(database, SearchMode.HYBRID, calibration("after", -2.0))
    with database.write() as session:
        activate(session, after, "building")
    assert intercepts(database, after) == {}
    with pytest.raises(InvalidInput, match="is not the index that answers"):
        store(database, SearchMode.HYBRID, calibration("before", -2.0))
    store(database, SearchMode.HYBRID, calibration("after", -2.0))
    assert intercepts(database, before) == {SearchMode.HYBRID: -1.0}
    assert intercepts(database, after) == {SearchMode.HYBRID: -2.0}


def test_it_goes_with_its_index(database: Database) -> None:
    index = new_index(database, "one", "active")
    store(database, SearchMode.HYBRID, calibration("one", -1.0))
    with database.write() as session:
        session.execute(sa.delete(VectorIndexRow).where(VectorIndexRow.vector_index_id == index))
    with database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(CalibrationRow)) == 0

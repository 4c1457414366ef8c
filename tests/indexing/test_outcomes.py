"""What becomes of products whose pictures a store does not give."""

import pytest

from orm_models import ProductRow
from tests.processes import wait_until
from tuwen.indexing import outcomes
from tuwen.indexing.outcomes import Failed, Patience, Unanswered, Unreadable


def test_a_picture_that_is_never_given_is_given_up_whatever_batches_come_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fill takes turns with small batches, and begins again after each that was held up."""
    monkeypatch.setattr(outcomes, "PATIENCE_S", 0.3)
    patience = Patience()
    held_up, given_up = (Unanswered(ProductRow(image_path=name), "HTTP 500") for name in ("first", "second"))
    other = Failed(ProductRow(image_path="other"), "is no picture")
    assert patience.judge([held_up]) == [held_up]

    def both_are_given_up() -> bool:
        assert patience.judge([other]) == [other]
        return all(type(each) is Unreadable for one in (held_up, given_up) for each in patience.judge([one]))

    assert not both_are_given_up()
    wait_until(both_are_given_up, timeout_s=5, what="both to be given up")


def test_one_that_was_given_after_all_is_waited_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "PATIENCE_S", 0.0)
    patience, product = Patience(), ProductRow(image_path="picture")
    asked_in_vain, asked_well = Unanswered(product, "HTTP 500"), Failed(product, "the model can't take it")
    assert type(patience.judge([asked_in_vain])[0]) is Unreadable
    assert patience.judge([asked_well]) == [asked_well]
    monkeypatch.setattr(outcomes, "PATIENCE_S", 30.0)
    assert patience.judge([asked_in_vain]) == [asked_in_vain]

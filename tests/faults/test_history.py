"""That the harness would see the promise broken."""

import time

from tests.faults.history import History, Operation, Outcome, Sighting, State, check_history

SHOWN = State(7, 1, "红色沙发", 9.5, "a" * 64)
SENT = {"title": SHOWN.title, "price": "9.50", "picture": SHOWN.picture}


class Shop:
    """A history written by hand: one product, whose operations follow one another."""

    def __init__(self) -> None:
        self.history = History()
        self.add("create", "ok", SENT, SHOWN)

    def add(self, kind: str, outcome: Outcome, sent: dict[str, str] | None = None, *seen: State) -> Operation:
        operation = self.history.begin(1, kind, "sofa", sent)  # type: ignore[arg-type]
        operation.seen = [Sighting("sofa", state) for state in seen]
        time.sleep(0.001)
        self.history.end(operation, outcome, "")
        time.sleep(0.001)
        return operation

    def violations(self, stored: State | None) -> set[str]:
        return {each.kind for each in check_history(self.history, {"sofa": stored} if stored else {})}


def test_what_was_acknowledged_must_be_there() -> None:
    shop = Shop()
    assert shop.violations(SHOWN) == set()
    assert shop.violations(None) == {"lost"}
    assert shop.violations(SHOWN._replace(title="另一个")) == {"lost"}
    newer = SHOWN._replace(version=2, title="蓝色灯")
    shop.add("change", "ok", {"title": newer.title}, newer)
    assert shop.violations(newer) == set()
    assert shop.violations(SHOWN) == {"lost"}
    shop.add("read", "ok", None, SHOWN)
    assert shop.violations(newer) == {"lost"}


def test_an_unknown_change_may_have_been_made_at_any_time_or_never() -> None:
    shop = Shop()
    shop.add("change", "unknown", {"title": "蓝色灯"})
    assert shop.violations(SHOWN) == set()
    assert shop.violations(SHOWN._replace(version=2, title="蓝色灯")) == set()
    assert shop.violations(SHOWN._replace(version=2, title="绿色灯")) == {"lost"}
    assert shop.violations(SHOWN._replace(version=3, title="蓝色灯")) == {"lost"}
    shop.add("delete", "unknown")
    assert shop.violations(None) == set()


def test_what_was_deleted_is_never_seen_again() -> None:
    shop = Shop()
    shop.add("delete", "ok")
    assert shop.violations(None) == set()
    assert shop.violations(SHOWN) == {"resurrected"}
    shop.add("search", "ok", None, SHOWN)
    assert shop.violations(None) == {"resurrected"}


def test_a_search_shows_no_stranger() -> None:
    shop = Shop()
    shop.add("search", "ok", None, SHOWN._replace(title="从没见过"))
    assert shop.violations(SHOWN) == {"strangers"}
    assert [each.kind for each in check_history(History(), {"sofa": SHOWN})] == ["strangers"]


def test_a_product_that_nobody_deleted_is_not_found_missing() -> None:
    shop = Shop()
    shop.add("read", "ok").is_gone = True
    assert "lost" in shop.violations(SHOWN)

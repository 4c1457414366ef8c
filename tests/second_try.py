"""A plugin of pytest for `python -m tests`: which failures may come of what ran beside, so that a second try may tell.

These are tests that were late and right in all else so far (`tests/promises.py`). A run in which anything else failed
has failed: a lost product or a leaked connection is no less so for a second try. So has one in which many were late.
"""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.promises import TooLate

OPTION = "--late-tests"
MOST = 3


class _LateTests:
    def __init__(self, report: Path) -> None:
        self._report = report
        self._late: list[str] = []
        self._others_failed = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed and report.when == "call" and call.excinfo is not None and call.excinfo.type is TooLate:
            self._late.append(item.nodeid)
        elif report.failed:
            self._others_failed = True
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._others_failed |= report.failed

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._others_failed |= bool(session.shouldfail)

    @pytest.hookimpl(trylast=True)  # what leaks are found at the end fail the run before
    def pytest_unconfigure(self) -> None:
        if not self._others_failed and len(self._late) <= MOST:
            self._report.write_text("\n".join(self._late), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, type=Path, help="a file for the ids of the tests that were late, if nothing else failed")


def pytest_configure(config: pytest.Config) -> None:
    if report := config.getoption(OPTION):
        config.pluginmanager.register(_LateTests(report))

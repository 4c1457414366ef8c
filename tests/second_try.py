"""A plugin of pytest for `python -m tests`: which failures may come of what runs beside, so that a second try may tell.

These are promises of seconds (`@pytest.mark.wall_time`) and pages in a browser, which draws while it is looked at. A
run in which anything else failed has failed: a lost product or a leaked connection is no less so for a second try.
"""

from collections.abc import Generator
from pathlib import Path

import pytest


class _Failures:
    def __init__(self, report: Path) -> None:
        self._report = report
        self._may_be_tried: list[str] = []
        self._is_final = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Function, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed:
            waits = item.get_closest_marker("wall_time") is not None or "browser" in item.fixturenames
            is_warning = call.excinfo is not None and issubclass(call.excinfo.type, Warning)
            if waits and report.when == "call" and not is_warning:
                self._may_be_tried.append(item.nodeid)
            else:
                self._is_final = True
        return report

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        ended_early = session.shouldfail or session.shouldstop
        if exitstatus == pytest.ExitCode.TESTS_FAILED and not self._is_final and not ended_early:
            self._report.write_text("\n".join(self._may_be_tried), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--second-try", type=Path, help="gets the failed tests' ids if all may be tried once more")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Failures(config.getoption("--second-try")))

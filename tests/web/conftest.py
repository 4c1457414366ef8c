"""What a browser showed when a test failed stands in its report: a picture cannot be read in a log."""

from collections.abc import Generator
from typing import Any

import pytest
from playwright.sync_api import Error, Page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    tab = getattr(item, "funcargs", {}).get("tab")
    if report.failed and isinstance(tab, Page):
        try:
            said = f"{tab.url}\n{tab.locator('body').inner_text(timeout=5_000)}"
        except Error as error:
            said = str(error)
        report.sections.append(("What the page said", said))
    return report

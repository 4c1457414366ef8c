"""An installation of one test's own, without a service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tuwen.database.engine import Database
from tuwen.database.start import open_database
from tuwen.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path, durable_writes=False)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = open_database(settings)
    yield database
    database.close()

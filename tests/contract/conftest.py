"""A database of each engine, with all tables, for the tests of one module; they empty it themselves."""

from collections.abc import Iterator

import pytest

from tests.servers import new_mysql_database
from tuwen.database.engine import Database


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        dsn = f"sqlite:///{tmp_path_factory.mktemp('database') / 'tuwen.db'}"
    else:
        dsn = new_mysql_database(request.getfixturevalue("mariadb"))
    opened = Database(dsn)
    opened.migrate()
    yield opened
    opened.close()

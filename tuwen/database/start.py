"""Opens the database at a process's start: waits for it a little, and says in a sentence what can't work."""

import logging
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from tuwen.database.connections import parse_address
from tuwen.database.engine import Database
from tuwen.errors import ConfigurationError, DatabaseUnavailable
from tuwen.folders import require_writable
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

# With what a start takes besides, whoever starts us knows within half a minute.
START_WAIT_S, START_LOOK_S, START_CALL_S = 15.0, 2.0, 5
# Of MySQL and MariaDB. Waiting mends none: no access to the database, a wrong password (or none), an unknown database,
# a connection without TLS where the server wants one.
FINAL_CODES = frozenset({1044, 1045, 1049, 1698, 3159})
SQLITE_HEADER = b"SQLite format 3\0"


def open_database(settings: Settings) -> Database:
    """Connect, and migrate or check the schema, as the settings say."""
    setting = settings.source_of("database_url")
    url = parse_address(settings.database_dsn)
    if url.get_backend_name() == "sqlite":
        if url.database and url.database != ":memory:":
            _require_usable_file(Path(url.database), setting)
    else:
        _wait_until_up(url)
    database = Database(settings.database_dsn, settings.database_timeout_s, durable=settings.durable_writes)
    if settings.auto_migrate:
        database.migrate()
    else:
        database.require_current_schema()
    return database


def require_installation(settings: Settings) -> None:
    """For what must make none. Raises ConfigurationError where the database's file is not there."""
    if not has_installation(settings):
        if settings.database_url:
            raise ConfigurationError(
                f"There is no installation in DATABASE_URL: no {parse_address(settings.database_dsn).database}."
            )
        raise ConfigurationError(f"There is no installation in DATA_DIR={settings.data_dir.resolve()}: no tuwen.db.")


def has_installation(settings: Settings) -> bool:
    """Of a server, whether it has the schema shows once it is opened."""
    url = parse_address(settings.database_dsn)
    return url.get_backend_name() != "sqlite" or not url.database or Path(url.database).exists()


def place_of(settings: Settings) -> str:
    """Where its database is, as a person knows it, and which setting says so."""
    url = parse_address(settings.database_dsn)
    place = url.database if url.get_backend_name() == "sqlite" else f"{url.database} at {url.host}:{url.port or 3306}"
    return f"{place} ({settings.source_of('database_url')})"


def _require_usable_file(path: Path, setting: str) -> None:
    require_writable(path, setting)
    if path.exists():
        with path.open("rb") as opened:
            if opened.read(len(SQLITE_HEADER)) not in (b"", SQLITE_HEADER):
                raise ConfigurationError(f"{setting}: {path} is no SQLite database, or a damaged one.")


def _wait_until_up(url: sa.URL) -> None:
    """A server that is only starting is waited for, not for long. Raises ConfigurationError or DatabaseUnavailable."""
    deadlines = {"connect_timeout": START_CALL_S, "read_timeout": START_CALL_S, "write_timeout": START_CALL_S}
    where = f"{url.host or 'localhost'}:{url.port or 3306} (DATABASE_URL)"
    deadline = time.monotonic() + START_WAIT_S
    while True:
        try:
            engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=deadlines)
            with engine.connect():
                return
        except (exc.OperationalError, exc.InterfaceError) as error:
            code, reason = (*error.orig.args, "")[:2] if error.orig else (0, "")
            if code in FINAL_CODES or "SSL" in str(reason):
                raise ConfigurationError(f"The database at {where} refuses: {reason}.") from error
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"The database at {where} has not answered for {START_WAIT_S:.0f} s: {reason or error.orig}. "
                    "Is it running, and are host and port right?"
                ) from error
            logger.warning("Waiting for the database at %s, for %.0f s at most: %s", where, START_WAIT_S, reason)
        except (TypeError, ValueError, OSError) as error:  # the driver's, of an argument behind the question mark
            raise ConfigurationError(f"DATABASE_URL has an argument that can't be used: {error}") from error
        time.sleep(START_LOOK_S)

"""What the database's errors mean: told apart by the codes of MySQL, MariaDB and SQLite, since texts differ."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from tuwen.errors import (
    ConfigurationError,
    DatabaseBusy,
    DatabaseFull,
    DatabaseUnavailable,
    DatabaseUnusable,
    ValueRefused,
)

# What errors mean, by the codes of MySQL and MariaDB, and by SQLite's primary result codes. What stands nowhere here is
# a mistake of ours (no such table, too many variables): it passes as it is, and its traceback is logged.
MYSQL_CLIENT_CODES = range(2000, 3000)
"""No connection, or a lost one; a read that took too long is one, too."""
MYSQL_KINDS: dict[type[DatabaseUnavailable], set[int]] = {
    DatabaseBusy: {1020, 1205, 1213},  # somebody else's change, lock wait, deadlock
    DatabaseFull: {3, 1021, 1026, 1114},  # no write, disk full, no write, table full
    # No entry, no such database, no right, read-only, a password to be changed, an account that is locked.
    DatabaseUnusable: {1044, 1045, 1049, 1129, 1130, 1142, 1143, 1227, 1290, 1698, 1820, 1836, 1862, 3118, 4151},
    # Too many connections, no memory, not ready in its cluster, stopping, lost, interrupted, over a time limit.
    DatabaseUnavailable: {
        *(1030, 1037, 1038, 1040, 1041, 1047, 1053, 1077, 1079, 1135, 1152, 1158, 1159, 1160, 1161, 1184),
        *(1203, 1226, 1317, 1927, 1969, 3024),
    },
}
# A constraint that does not hold (of MySQL and MariaDB), text that is no JSON, JSON that nests too deep.
MYSQL_REFUSED = {3140, 3157, 3819, 4025}
SQLITE_KINDS: dict[type[DatabaseUnavailable], set[int]] = {
    DatabaseBusy: {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL},
    DatabaseFull: {sqlite3.SQLITE_FULL},
    DatabaseUnusable: {
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
        *(sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT),
    },
    DatabaseUnavailable: {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT},
}


@contextmanager
def errors_at_start() -> Iterator[None]:
    """Where nothing runs yet, what an operator has to mend ends the process, in a sentence."""
    try:
        with translated_errors():
            yield
    except DatabaseUnusable as error:
        raise ConfigurationError(error.detail) from error
    except exc.DBAPIError as error:
        raise ConfigurationError(
            f"The database's schema is not as it should be (DATABASE_URL): {error.orig}"
        ) from error


@contextmanager
def translated_errors() -> Iterator[None]:
    try:
        yield
    except exc.TimeoutError as error:
        raise DatabaseUnavailable(f"All connections to the database are in use (DATABASE_URL): {error}") from error
    except exc.DBAPIError as error:
        if mysql_code(error) in MYSQL_REFUSED:
            raise ValueRefused(f"The database does not take a value as it stands: {error.orig}") from error
        kind = kind_of(error)
        if kind is None:
            raise
        raise kind(f"{kind.title} (DATABASE_URL): {error.orig}") from error


def kind_of(error: exc.DBAPIError) -> type[DatabaseUnavailable] | None:
    """None for a mistake of ours."""
    driver_error = error.orig
    if isinstance(driver_error, sqlite3.Error):
        code, kinds = sqlite_code(driver_error), SQLITE_KINDS
    else:
        code, kinds = mysql_code(error), MYSQL_KINDS
        if error.connection_invalidated or code in MYSQL_CLIENT_CODES:
            return DatabaseUnavailable
    return next((kind for kind, codes in kinds.items() if code in codes), None)


def mysql_code(error: exc.DBAPIError) -> int | None:
    """None for SQLite's, too."""
    code = error.orig.args[0] if error.orig and error.orig.args else None
    return code if isinstance(code, int) else None


def sqlite_code(error: sqlite3.Error) -> int | None:
    """The primary one, without what extends it; an error of the driver's own has none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF

"""How MySQL, MariaDB and SQLite are connected to, and what each connection is told first."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection
from sqlalchemy.pool import ConnectionPoolEntry

from tuwen.database.errors import SQLITE_KINDS, sqlite_code
from tuwen.errors import ConfigurationError, DatabaseBusy

STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's machine: a few milliseconds
SILENCES = 3  # of the longest answer's time
# A failed statement's traceback goes into the log without the values, which are the shop's.
HIDE_PARAMETERS = True
EXAMPLE_URL = "mysql+pymysql://user:password@host:3306/database?charset=utf8mb4"


def parse_address(dsn: str) -> sa.URL:
    """Raises ConfigurationError, without the address, which may hold a password in an unexpected place."""
    unreadable = ConfigurationError(
        f"DATABASE_URL is not a database address; one looks like {EXAMPLE_URL}, with what is special in an address "
        "(such as @ : / %) written as %40 and the like in user and password."
    )
    try:
        url = sa.make_url(dsn)
    except (exc.ArgumentError, ValueError) as error:
        raise unreadable from error
    if "@" in (url.host or ""):  # of the password, the rest of which would be shown as the host
        raise unreadable
    backend = url.get_backend_name()
    if backend not in ("mysql", "sqlite"):
        raise ConfigurationError(
            f"DATABASE_URL begins with {backend}, and there is only mysql+pymysql (for MySQL and MariaDB) and sqlite."
        )
    try:
        url.get_dialect().import_dbapi()
    except (exc.ArgumentError, ImportError) as error:
        raise ConfigurationError(
            f"DATABASE_URL begins with {url.drivername}, whose driver is not installed: begin it with mysql+pymysql."
        ) from error
    return url


def mysql_engine(url: sa.URL, connect_s: float, answer_s: float, **pool: Any) -> sa.Engine:
    timeouts = {"connect_timeout": connect_s, "read_timeout": answer_s, "write_timeout": answer_s}
    # READ COMMITTED: claiming outbox rows must lock those rows, not the gaps where new ones go in.
    return sa.create_engine(
        url, connect_args=timeouts, isolation_level="READ COMMITTED", hide_parameters=HIDE_PARAMETERS, **pool
    )


def limit_statements(timeout_s: float, connection: Any, _: ConnectionPoolEntry) -> None:
    """The server gives up before its answer is given up here: else a lock looks like a lost connection, and statements
    that nobody waits for any more pile up. MySQL has such a limit for SELECT alone.

    And it forgets whoever says nothing any more: a machine that disappears within a transaction would keep its locks
    for eight hours, the server's own limit. No transaction of ours pauses for so long between two statements, and a
    connection that was closed in the pool is replaced when it is next taken.
    """
    lock_wait_s, statement_s = max(1, int(timeout_s / 2)), timeout_s * 0.9
    silence_s = max(1, int(timeout_s * SILENCES))
    if "MariaDB" in connection.get_server_info():
        statement = f"max_statement_time = {statement_s}"
    else:
        statement = f"max_execution_time = {int(statement_s * 1000)}"
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {lock_wait_s}, wait_timeout = {silence_s}, {statement}")


def sqlite_engine(url: sa.URL, lock_wait_s: float, *, durable: bool) -> sa.Engine:
    arguments = {"timeout": lock_wait_s, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=arguments, hide_parameters=HIDE_PARAMETERS)
    sa.event.listen(engine, "connect", partial(_prepare_sqlite_connection, lock_wait_s, durable))
    sa.event.listen(engine, "begin", _begin_sqlite_transaction)
    return engine


def _prepare_sqlite_connection(lock_wait_s: float, durable: bool, connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own; _begin_sqlite_transaction does
    _switch_to_wal(connection, lock_wait_s)
    # NORMAL writes the log at each commit and syncs it only now and then: whole after a power loss, but older.
    for pragma in (f"synchronous={'FULL' if durable else 'NORMAL'}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _switch_to_wal(connection: Any, lock_wait_s: float) -> None:
    """Once in a database's life. SQLite's own time-out does not hold for this, so several first starts would fail."""
    deadline = time.monotonic() + lock_wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if sqlite_code(error) not in SQLITE_KINDS[DatabaseBusy] or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def sqlite_deadline(connection: Connection, timeout_s: float) -> Iterator[None]:
    """What is not answered by then is interrupted."""
    driver: Any = connection.connection.driver_connection
    deadline = time.monotonic() + timeout_s
    driver.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def _begin_sqlite_transaction(connection: Connection) -> None:
    # A transaction that will write takes the write lock at once: upgrading a read lock can fail with no way to wait.
    write = connection.get_execution_options().get("sqlite_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

"""The relational database, which is the truth: the two ways into it, and the schema's migrations.

What is asked of a table stands in the room or engine that asks; such functions take a session and never commit: the
caller's `Database.write()` block is the transaction.
"""

import copy
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import exc, orm
from sqlalchemy.pool import NullPool

from orm_models import InstallationRow
from tuwen.database.connections import (
    limit_statements,
    mysql_engine,
    parse_address,
    sqlite_deadline,
    sqlite_engine,
)
from tuwen.database.errors import errors_at_start, translated_errors
from tuwen.database.shops import ShopSession, shop_engine
from tuwen.errors import ConfigurationError, DatabaseUnavailable
from tuwen.settings import PROJECT_ROOT

logger = logging.getLogger(__name__)

Session = orm.Session
"""By this name in rooms that hand one on, and say no SQL of their own."""
MIGRATION_WAIT_S, MIGRATION_LOOK_S = 600, 2
CONNECTION_LIFE_S = 300  # an open one doesn't hear of rights that were granted or of a new primary server
MIGRATION_STATEMENT_S = 3600  # a change of a large table


class Database:
    """The engine, and the two ways into it. What is no mistake of ours surfaces as DatabaseUnavailable or a kind of it.

    `timeout_s`: the longest wait for one answer of MySQL, and for SQLite's write lock. MySQL may have committed what
    was not answered in time. `durable`: what SQLite has committed survives a power loss; MySQL has settings of its own.
    """

    def __init__(self, dsn: str, timeout_s: float = 30.0, *, durable: bool = True) -> None:
        url = parse_address(dsn)
        self._timeout_s = timeout_s
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if url.database:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = self.migration_engine = sqlite_engine(url, timeout_s, durable=durable)
        else:
            pool = {"pool_size": 10, "max_overflow": 30, "pool_timeout": timeout_s, "pool_pre_ping": True}
            pool["pool_recycle"] = CONNECTION_LIFE_S
            self.engine = mysql_engine(url, timeout_s, timeout_s, **pool)
            sa.event.listen(self.engine, "connect", partial(limit_statements, timeout_s))
            self.migration_engine = mysql_engine(url, timeout_s, MIGRATION_STATEMENT_S, poolclass=NullPool)
        self._writer = self.engine.execution_options(sqlite_write=True)
        self._new_session: Callable[..., orm.Session] = orm.Session
        self._of_shops: dict[str, Database] = {}

    def of_shop(self, shop_id: str | None) -> Self:
        """The same database, as one shop has it: `tuwen/database/shops.py`. None: itself, as all of them."""
        if shop_id is None:
            return self
        view = self._of_shops.get(shop_id)
        if view is None:
            view = copy.copy(self)
            view.engine = shop_engine(self.engine, shop_id)
            view._writer = view.engine.execution_options(sqlite_write=True)
            view._new_session = partial(ShopSession, info={"shop_id": shop_id})
            self._of_shops[shop_id] = view
        return cast("Self", view)

    @contextmanager
    def read(self) -> Iterator[orm.Session]:
        with translated_errors(), self._new_session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def read_at_length(self) -> Iterator[orm.Session]:
        """For what may walk over a table: SQLite gives up in time, too, as MySQL does of every statement."""
        with self.read() as session:
            if not self.is_sqlite:
                yield session
                return
            with sqlite_deadline(session.connection(), self._timeout_s):
                yield session

    @contextmanager
    def write(self) -> Iterator[orm.Session]:
        """One transaction: commits at the end of the block, rolls back on any exception."""
        with (
            translated_errors(),
            self._new_session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def check(self) -> None:
        with self.read() as session:
            session.execute(sa.text("SELECT 1"))

    def installation_id(self) -> str:
        """32 hex digits, made by the migration."""
        with self.read() as session:
            return session.scalars(sa.select(InstallationRow.installation_id)).one()

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to the newest revision; a no-op where it is. Several processes may do so at once."""
        config = _alembic_config()
        writer = self.migration_engine.execution_options(sqlite_write=True)
        # The lock is held on a connection of its own, until after the commit: nobody may read the revision in between.
        with errors_at_start():
            self.check()  # a server that hangs is not waited for as long as a migration may take
            with _migration_lock(self.migration_engine), _begin_migration(writer) as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, revision)

    def require_current_schema(self) -> None:
        with errors_at_start(), self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        wanted = ScriptDirectory.from_config(_alembic_config()).get_current_head()
        if found != wanted:
            raise ConfigurationError(
                f"The database schema is at revision {found}, this version needs {wanted}: "
                "run 'python cli.py migrate', or start the service with AUTO_MIGRATE=true."
            )

    def close(self) -> None:
        self.engine.dispose()


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(PROJECT_ROOT / "migrations"))
    return config


@contextmanager
def _begin_migration(engine: sa.Engine) -> Iterator[sa.Connection]:
    """SQLite changes some tables by a copy in their place, and would delete what refers to the old one, unless foreign
    keys are off before the transaction begins."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            yield connection
        connection.invalidate()  # with how it was told


@contextmanager
def _migration_lock(engine: sa.Engine) -> Iterator[None]:
    """On MySQL a named lock, since each of its schema changes commits. SQLite's own write lock is all that it needs."""
    if engine.dialect.name == "sqlite":
        yield
        return
    # The server has one space of names for all databases, of 64 characters each.
    name = hashlib.sha256(f"tuwen migration of {engine.url.database}".encode()).hexdigest()
    with engine.connect() as connection:
        deadline = time.monotonic() + MIGRATION_WAIT_S
        while connection.scalar(sa.func.get_lock(name, MIGRATION_LOOK_S)) != 1:  # in slices, so that a signal gets in
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"Another process has been migrating the database for {MIGRATION_WAIT_S} s.")
            logger.info("Waiting for another process to migrate the database")
        try:
            yield
        finally:
            with suppress(exc.SQLAlchemyError):  # the server frees the lock of a connection that is gone
                connection.scalar(sa.func.release_lock(name))

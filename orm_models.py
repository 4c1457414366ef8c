"""The relational database, which is the truth: its tables, the engine, and sessions.

Only this module and the migrations know SQLAlchemy's engine. What is asked of a table stands in the room that asks;
such functions take a session and never commit: the caller's `Database.write()` block is the transaction.
"""

import decimal
import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import exc, orm
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from tuwen.errors import ConfigurationError, DatabaseBusy, DatabaseFull, DatabaseUnavailable, DatabaseUnusable
from tuwen.folders import require_writable
from tuwen.settings import PROJECT_ROOT, TITLE_COLUMN_LENGTH, Settings

logger = logging.getLogger(__name__)

REASON_LENGTH = 1000
MODEL_LENGTH = 1000
MIGRATION_WAIT_S, MIGRATION_LOOK_S = 600, 2
CONNECTION_LIFE_S = 300  # an open one doesn't hear of rights that were granted or of a new primary server
MIGRATION_STATEMENT_S = 3600  # a change of a large table
# With what a start takes besides, whoever starts us knows within half a minute.
START_WAIT_S, START_LOOK_S, START_CALL_S = 15.0, 2.0, 5
# Of MySQL and MariaDB. Waiting mends none: no access to the database, a wrong password (or none), an unknown database,
# a connection without TLS where the server wants one.
FINAL_CODES = frozenset({1044, 1045, 1049, 1698, 3159})
EXAMPLE_URL = "mysql+pymysql://user:password@host:3306/database?charset=utf8mb4"
SQLITE_HEADER = b"SQLite format 3\0"
# Binary collation: what is equal, unique and found is then the same on MySQL, MariaDB and SQLite.
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}

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
SQLITE_KINDS: dict[type[DatabaseUnavailable], set[int]] = {
    DatabaseBusy: {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL},
    DatabaseFull: {sqlite3.SQLITE_FULL},
    DatabaseUnusable: {
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
        *(sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT),
    },
    DatabaseUnavailable: {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT},
}


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """DATETIME(6) without a zone in the database, always UTC; aware datetimes in Python."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else sa.DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


# SQLite counts rows by itself only in a column that is exactly INTEGER PRIMARY KEY.
BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Base(orm.DeclarativeBase):
    pass


class ProductRow(Base):
    """`sqlite_autoincrement`: the id of a deleted product is never given again, as on MySQL."""

    __tablename__ = "product"
    __table_args__ = ({**TABLE_OPTIONS, "sqlite_autoincrement": True},)

    product_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    sku: orm.Mapped[str | None] = orm.mapped_column(sa.String(64), unique=True)
    title: orm.Mapped[str] = orm.mapped_column(sa.String(TITLE_COLUMN_LENGTH))
    category: orm.Mapped[str | None] = orm.mapped_column(sa.String(100), index=True)
    price: orm.Mapped[decimal.Decimal | None] = orm.mapped_column(sa.Numeric(12, 2))
    attributes: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON, default=dict)
    image_path: orm.Mapped[str] = orm.mapped_column(sa.String(500))
    image_sha256: orm.Mapped[str] = orm.mapped_column(sa.CHAR(64), index=True)
    image_width: orm.Mapped[int]
    image_height: orm.Mapped[int]
    image_is_generated: orm.Mapped[bool] = orm.mapped_column(default=False, server_default=sa.false())
    version: orm.Mapped[int] = orm.mapped_column(default=1)
    index_status: orm.Mapped[Literal["pending", "indexed", "failed"]] = orm.mapped_column(
        sa.String(16), default="pending", index=True
    )
    index_error: orm.Mapped[str | None] = orm.mapped_column(sa.String(REASON_LENGTH))
    queued_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    """When reconciliation last had it indexed again."""
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    updated_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    indexed_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)


class VectorIndexRow(Base):
    __tablename__ = "vector_index"
    __table_args__ = (TABLE_OPTIONS,)

    vector_index_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    collection: orm.Mapped[str] = orm.mapped_column(sa.String(255), unique=True)
    model_fingerprint: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    clip_model: orm.Mapped[str | None] = orm.mapped_column(sa.String(MODEL_LENGTH))
    """As CLIP_MODEL, a hub's with its revision. Null where version 0.2.0 made it, until its models are known again."""
    text_model: orm.Mapped[str | None] = orm.mapped_column(sa.String(MODEL_LENGTH))
    status: orm.Mapped[Literal["building", "active", "retired", "dropping"]] = orm.mapped_column(sa.String(16))
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    activated_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)


class ProductVectorRow(Base):
    """Binds a row in Milvus to a product. A hit counts only if its id, product and token all stand here."""

    __tablename__ = "product_vector"
    __table_args__ = (sa.UniqueConstraint("vector_index_id", "milvus_id"), TABLE_OPTIONS)

    product_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("product.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    vector_index_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("vector_index.id"), primary_key=True, autoincrement=False
    )
    milvus_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    row_token: orm.Mapped[int | None] = orm.mapped_column(sa.BigInteger)
    """Null for rows of version 0.2.0, which carry none."""
    version: orm.Mapped[int]


class OutboxRow(Base):
    """A message that its transaction promised to send."""

    __tablename__ = "outbox"
    # A relay looks for what waits of its topic, and must not walk over the backlog of another.
    __table_args__ = (sa.Index("ix_outbox_topic_published_at", "topic", "published_at"), TABLE_OPTIONS)

    outbox_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    topic: orm.Mapped[str] = orm.mapped_column(sa.String(200))
    message_key: orm.Mapped[str] = orm.mapped_column(sa.String(200), index=True)
    payload: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON)
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    published_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime, index=True)
    attempts: orm.Mapped[int] = orm.mapped_column(default=0)
    claimed_until: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    """Until then a relay is sending it; one that dies lets go of it by that."""
    refused_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    error: orm.Mapped[str | None] = orm.mapped_column(sa.String(REASON_LENGTH))


class JobRow(Base):
    """`attempts` counts how often the job was begun, and fences: what an earlier attempt still writes is refused."""

    __tablename__ = "job"
    __table_args__ = ({**TABLE_OPTIONS, "sqlite_autoincrement": True},)

    job_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    kind: orm.Mapped[Literal["generate", "import", "reindex"]] = orm.mapped_column(sa.String(16))
    status: orm.Mapped[Literal["queued", "running", "done", "failed", "cancelled"]] = orm.mapped_column(
        sa.String(16), default="queued", index=True
    )
    progress: orm.Mapped[float] = orm.mapped_column(sa.Double, default=0.0)
    request: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON)
    state: orm.Mapped[dict[str, Any] | None] = orm.mapped_column(sa.JSON(none_as_null=True))
    """Of kind `reindex`: how far it is, for whoever asks and for whoever takes it up."""
    error: orm.Mapped[str | None] = orm.mapped_column(sa.String(REASON_LENGTH))
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    started_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    finished_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    heartbeat_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    attempts: orm.Mapped[int] = orm.mapped_column(default=0)


class GeneratedImageRow(Base):
    """A picture of a finished job of kind `generate`; it goes with its job."""

    __tablename__ = "generated_image"
    __table_args__ = (
        sa.UniqueConstraint("job_id", "position"),
        {**TABLE_OPTIONS, "sqlite_autoincrement": True},
    )

    image_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    job_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("job.id", ondelete="CASCADE"))
    position: orm.Mapped[int]
    seed: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    image_path: orm.Mapped[str] = orm.mapped_column(sa.String(500))
    image_sha256: orm.Mapped[str] = orm.mapped_column(sa.CHAR(64), index=True)
    image_width: orm.Mapped[int]
    image_height: orm.Mapped[int]


class InstallationRow(Base):
    """The one row says who this installation is, among others that may share its Milvus and its picture store."""

    __tablename__ = "installation"
    __table_args__ = (TABLE_OPTIONS,)

    installation_id: orm.Mapped[str] = orm.mapped_column("id", sa.CHAR(32), primary_key=True)
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)


class LeaseRow(Base):
    """What one process at a time may do, who does it, and how far it is."""

    __tablename__ = "lease"
    __table_args__ = (TABLE_OPTIONS,)

    name: orm.Mapped[str] = orm.mapped_column(sa.String(64), primary_key=True)
    holder: orm.Mapped[str] = orm.mapped_column(sa.CHAR(32))
    expires_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime)
    progress: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON, default=dict)


class ProcessRow(Base):
    """A process that lives, or died a short while ago: `tuwen/processes.py` renews it."""

    __tablename__ = "process"
    __table_args__ = (TABLE_OPTIONS,)

    process_id: orm.Mapped[str] = orm.mapped_column("id", sa.CHAR(32), primary_key=True)
    kind: orm.Mapped[Literal["api", "worker", "generation"]] = orm.mapped_column(sa.String(16))
    name: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    """For people: the host's name and the process's number."""
    started_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime)
    seen_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, index=True)
    state: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON)
    """What it says of itself."""


class Database:
    """The engine, and the two ways into it. What is no mistake of ours surfaces as DatabaseUnavailable or a kind of it.

    `timeout_s`: the longest wait for one answer of MySQL, and for SQLite's write lock. MySQL may have committed what
    was not answered in time. `durable`: what SQLite has committed survives a power loss; MySQL has settings of its own.
    """

    def __init__(self, dsn: str, timeout_s: float = 30.0, *, durable: bool = True) -> None:
        url = _parse(dsn)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if url.database:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = self.migration_engine = _sqlite_engine(url, timeout_s, durable=durable)
        else:
            pool = {"pool_size": 10, "max_overflow": 30, "pool_timeout": timeout_s, "pool_pre_ping": True}
            pool["pool_recycle"] = CONNECTION_LIFE_S
            self.engine = _mysql_engine(url, timeout_s, timeout_s, **pool)
            sa.event.listen(self.engine, "connect", partial(_limit_statements, timeout_s))
            self.migration_engine = _mysql_engine(url, timeout_s, MIGRATION_STATEMENT_S, poolclass=NullPool)
        self._writer = self.engine.execution_options(sqlite_write=True)

    @contextmanager
    def read(self) -> Iterator[orm.Session]:
        with _translated_errors(), orm.Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[orm.Session]:
        """One transaction: commits at the end of the block, rolls back on any exception."""
        with _translated_errors(), orm.Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def check(self) -> None:
        with self.read() as session:
            session.execute(sa.text("SELECT 1"))

    def installation_id(self) -> str:
        """32 hex digits, made by the migration."""
        with self.read() as session:
            return session.scalars(sa.select(InstallationRow.installation_id)).one()

    def migrate(self) -> None:
        """Bring the schema to the newest revision; a no-op where it is. Several processes may do so at once."""
        config = _alembic_config()
        writer = self.migration_engine.execution_options(sqlite_write=True)
        # The lock is held on a connection of its own, until after the commit: nobody may read the revision in between.
        with _errors_at_start():
            self.check()  # a server that hangs is not waited for as long as a migration may take
            with _migration_lock(self.migration_engine), writer.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")

    def require_current_schema(self) -> None:
        with _errors_at_start(), self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        wanted = ScriptDirectory.from_config(_alembic_config()).get_current_head()
        if found != wanted:
            raise ConfigurationError(
                f"The database schema is at revision {found}, this version needs {wanted}: "
                "run 'python cli.py migrate', or set AUTO_MIGRATE=true."
            )

    def close(self) -> None:
        self.engine.dispose()


def open_database(settings: Settings) -> Database:
    """Connect, and migrate or check the schema, as the settings say."""
    setting = settings.source_of("database_url")
    url = _parse(settings.database_dsn)
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


def _require_usable_file(path: Path, setting: str) -> None:
    require_writable(path, setting)
    if path.exists():
        with path.open("rb") as opened:
            if opened.read(len(SQLITE_HEADER)) not in (b"", SQLITE_HEADER):
                raise ConfigurationError(f"{setting}: {path} is no SQLite database, or a damaged one.")


def _parse(dsn: str) -> sa.URL:
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


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(PROJECT_ROOT / "migrations"))
    return config


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


def _mysql_engine(url: sa.URL, connect_s: float, answer_s: float, **pool: Any) -> sa.Engine:
    timeouts = {"connect_timeout": connect_s, "read_timeout": answer_s, "write_timeout": answer_s}
    # READ COMMITTED: claiming outbox rows must lock those rows, not the gaps where new ones go in.
    return sa.create_engine(url, connect_args=timeouts, isolation_level="READ COMMITTED", **pool)


def _limit_statements(timeout_s: float, connection: Any, _: ConnectionPoolEntry) -> None:
    """The server gives up before its answer is given up here: else a lock looks like a lost connection, and statements
    that nobody waits for any more pile up. MySQL has such a limit for SELECT alone."""
    lock_wait_s, statement_s = max(1, int(timeout_s / 2)), timeout_s * 0.9
    if "MariaDB" in connection.get_server_info():
        statement = f"max_statement_time = {statement_s}"
    else:
        statement = f"max_execution_time = {int(statement_s * 1000)}"
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {lock_wait_s}, {statement}")


def _sqlite_engine(url: sa.URL, lock_wait_s: float, *, durable: bool) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": lock_wait_s, "check_same_thread": False})
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
            if _sqlite_code(error) not in SQLITE_KINDS[DatabaseBusy] or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _begin_sqlite_transaction(connection: Connection) -> None:
    # A transaction that will write takes the write lock at once: upgrading a read lock can fail with no way to wait.
    write = connection.get_execution_options().get("sqlite_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _errors_at_start() -> Iterator[None]:
    """Where nothing runs yet, what an operator has to mend ends the process, in a sentence."""
    try:
        with _translated_errors():
            yield
    except DatabaseUnusable as error:
        raise ConfigurationError(error.detail) from error
    except exc.DBAPIError as error:
        raise ConfigurationError(
            f"The database's schema is not as it should be (DATABASE_URL): {error.orig}"
        ) from error


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except exc.TimeoutError as error:
        raise DatabaseUnavailable(f"All connections to the database are in use (DATABASE_URL): {error}") from error
    except exc.DBAPIError as error:
        kind = _kind_of(error)
        if kind is None:
            raise
        raise kind(f"{kind.title} (DATABASE_URL): {error.orig}") from error


def _kind_of(error: exc.DBAPIError) -> type[DatabaseUnavailable] | None:
    """None for a mistake of ours."""
    driver_error = error.orig
    if isinstance(driver_error, sqlite3.Error):
        code, kinds = _sqlite_code(driver_error), SQLITE_KINDS
    else:
        code, kinds = driver_error.args[0] if driver_error and driver_error.args else None, MYSQL_KINDS
        if error.connection_invalidated or code in MYSQL_CLIENT_CODES:
            return DatabaseUnavailable
    return next((kind for kind, codes in kinds.items() if code in codes), None)


def _sqlite_code(error: sqlite3.Error) -> int | None:
    """The primary one, without what extends it; an error of the driver's own has none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF

"""The relational database, which is the truth: tables, engine and sessions, named queries, the outbox.

Only this module (and the migrations) knows SQLAlchemy's engine. Functions that take a session never commit: the
caller's `Database.write()` block is the transaction.
"""

import decimal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import BaseModel
from sqlalchemy import exc, orm
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from data_models import ProductEvent
from errors import ConfigurationError, DatabaseUnavailable
from settings import PROJECT_ROOT, TITLE_COLUMN_LENGTH, Settings

INDEX_ERROR_LENGTH = 1000
SORT_COLUMNS = ("product_id", "title", "price", "created_at", "updated_at")
# Binary collation: what is equal, unique and found is then the same on MySQL, MariaDB and SQLite.
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


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
    index_error: orm.Mapped[str | None] = orm.mapped_column(sa.String(INDEX_ERROR_LENGTH))
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    updated_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    indexed_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)


class VectorIndexRow(Base):
    __tablename__ = "vector_index"
    __table_args__ = (TABLE_OPTIONS,)

    vector_index_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    collection: orm.Mapped[str] = orm.mapped_column(sa.String(255), unique=True)
    model_fingerprint: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    status: orm.Mapped[Literal["building", "active", "retired", "failed"]] = orm.mapped_column(sa.String(16))
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    activated_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)


class ProductVectorRow(Base):
    """Binds a Milvus id to a product. A Milvus hit counts only if it stands here."""

    __tablename__ = "product_vector"
    __table_args__ = (sa.UniqueConstraint("vector_index_id", "milvus_id"), TABLE_OPTIONS)

    product_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("product.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    vector_index_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("vector_index.id"), primary_key=True, autoincrement=False
    )
    milvus_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    version: orm.Mapped[int]


class OutboxRow(Base):
    """A message that its transaction promised to send."""

    __tablename__ = "outbox"
    __table_args__ = (TABLE_OPTIONS,)

    outbox_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    topic: orm.Mapped[str] = orm.mapped_column(sa.String(200))
    message_key: orm.Mapped[str] = orm.mapped_column(sa.String(200))
    payload: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON)
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    published_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime, index=True)
    attempts: orm.Mapped[int] = orm.mapped_column(default=0)


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
    result: orm.Mapped[dict[str, Any] | None] = orm.mapped_column(sa.JSON)
    error: orm.Mapped[str | None] = orm.mapped_column(sa.String(INDEX_ERROR_LENGTH))
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


class Database:
    """The engine, and the two ways into it. A lost connection surfaces as DatabaseUnavailable."""

    def __init__(self, dsn: str) -> None:
        try:
            url = sa.engine.make_url(dsn)
        except exc.ArgumentError as error:
            raise ConfigurationError(f"DATABASE_URL is not a database address: {error}") from error
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if url.database:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
            sa.event.listen(self.engine, "connect", _prepare_sqlite_connection)
            sa.event.listen(self.engine, "begin", _begin_sqlite_transaction)
        else:
            # READ COMMITTED: claiming outbox rows must lock those rows, not the gaps where new ones go in.
            self.engine = sa.create_engine(
                url, pool_pre_ping=True, pool_size=10, max_overflow=30, isolation_level="READ COMMITTED"
            )
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

    def migrate(self) -> None:
        """Bring the schema to the newest revision; a no-op where it is."""
        config = _alembic_config()
        with _translated_errors(), self._writer.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def require_current_schema(self) -> None:
        with _translated_errors(), self.engine.connect() as connection:
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
    database = Database(settings.database_dsn)
    if settings.auto_migrate:
        database.migrate()
    else:
        database.require_current_schema()
    return database


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(PROJECT_ROOT / "migrations"))
    return config


def _prepare_sqlite_connection(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own; _begin_sqlite_transaction does
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite_transaction(connection: Connection) -> None:
    # A transaction that will write takes the write lock at once: upgrading a read lock can fail with no way to wait.
    write = connection.get_execution_options().get("sqlite_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        reason = str(error.orig) if isinstance(error, exc.DBAPIError) else str(error)
        raise DatabaseUnavailable(f"The database does not answer (DATABASE_URL): {reason}") from error


# --- Named queries ---------------------------------------------------------------------------------------------------


class ProductWithBinding(NamedTuple):
    """A product and the Milvus id that it has bound in one index, if any."""

    product: ProductRow
    milvus_id: int | None


def find_product(session: orm.Session, product_id: int, vector_index_id: int | None) -> ProductWithBinding | None:
    row = session.execute(_select_with_binding(vector_index_id).where(ProductRow.product_id == product_id)).first()
    return ProductWithBinding(*row) if row else None


def list_products(
    session: orm.Session,
    *,
    vector_index_id: int | None,
    page: int,
    page_size: int,
    sort: str,
    category: str | None = None,
    index_status: str | None = None,
    title_or_sku: str | None = None,
) -> tuple[list[ProductWithBinding], int]:
    """One page and the count of all that match. `sort` is a name of SORT_COLUMNS, descending behind a minus."""
    conditions: list[sa.ColumnElement[bool]] = []
    if category is not None:
        conditions.append(ProductRow.category == category)
    if index_status is not None:
        conditions.append(ProductRow.index_status == index_status)
    if title_or_sku:
        conditions.append(
            sa.or_(ProductRow.title.icontains(title_or_sku, autoescape=True), ProductRow.sku == title_or_sku)
        )
    column: orm.InstrumentedAttribute[Any] = getattr(ProductRow, sort.removeprefix("-"))
    order = column.desc() if sort.startswith("-") else column.asc()
    rows = session.execute(
        _select_with_binding(vector_index_id)
        .where(*conditions)
        .order_by(order, ProductRow.product_id)
        .limit(page_size)
        .offset((page - 1) * page_size)
    )
    total = session.scalar(sa.select(sa.func.count()).select_from(ProductRow).where(*conditions)) or 0
    return [ProductWithBinding(*row) for row in rows], total


def sku_owner(session: orm.Session, sku: str) -> int | None:
    return session.scalar(sa.select(ProductRow.product_id).where(ProductRow.sku == sku))


def products_bound_to(session: orm.Session, vector_index_id: int, milvus_ids: Sequence[int]) -> dict[int, ProductRow]:
    """Which of these Milvus ids count, and the products that they stand for."""
    rows = session.execute(
        sa.select(ProductVectorRow.milvus_id, ProductRow)
        .join(ProductRow, ProductRow.product_id == ProductVectorRow.product_id)
        .where(ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.milvus_id.in_(milvus_ids))
    )
    return dict(rows.all())


def bound_milvus_ids(session: orm.Session, product_ids: Iterable[int]) -> dict[int, dict[str, list[int]]]:
    """For each product, what it has bound: collection → Milvus ids."""
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, VectorIndexRow.collection, ProductVectorRow.milvus_id)
        .join(VectorIndexRow, VectorIndexRow.vector_index_id == ProductVectorRow.vector_index_id)
        .where(ProductVectorRow.product_id.in_(list(product_ids)))
    )
    bound: dict[int, dict[str, list[int]]] = {}
    for product_id, collection, milvus_id in rows:
        bound.setdefault(product_id, {}).setdefault(collection, []).append(milvus_id)
    return bound


def active_vector_index(session: orm.Session) -> VectorIndexRow | None:
    return session.scalar(sa.select(VectorIndexRow).where(VectorIndexRow.status == "active"))


def load_products(session: orm.Session, product_ids: Iterable[int]) -> list[ProductRow]:
    return list(session.scalars(sa.select(ProductRow).where(ProductRow.product_id.in_(list(product_ids)))))


def indexed_versions(session: orm.Session, vector_index_id: int, product_ids: Iterable[int]) -> dict[int, int]:
    """For each product that is bound in this index, the version that its vectors were made of."""
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, ProductVectorRow.version).where(
            ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.product_id.in_(list(product_ids))
        )
    )
    return dict(rows.all())


def lock_products(session: orm.Session, product_ids: Iterable[int]) -> dict[int, int]:
    """Lock those that still exist until the transaction ends; product_id → current version."""
    rows = session.execute(
        sa.select(ProductRow.product_id, ProductRow.version)
        .where(ProductRow.product_id.in_(list(product_ids)))
        .order_by(ProductRow.product_id)  # one order for all: two workers can't deadlock
        .with_for_update()
    )
    return dict(rows.all())


def bind_vectors(session: orm.Session, product: ProductRow, vector_index_id: int, milvus_id: int) -> int | None:
    """Make this Milvus id the product's one in this index, and the product indexed. Returns the id that it replaces."""
    binding = session.get(ProductVectorRow, (product.product_id, vector_index_id))
    replaced = binding.milvus_id if binding else None
    if binding is None:
        binding = ProductVectorRow(product_id=product.product_id, vector_index_id=vector_index_id)
        session.add(binding)
    binding.milvus_id, binding.version = milvus_id, product.version
    _set_index_status(session, product.product_id, "indexed", None)
    return replaced


def mark_failed(session: orm.Session, product: ProductRow, vector_index_id: int, reason: str) -> list[int]:
    """The product can't be indexed as it is. Its older vectors show something else: they are unbound and returned."""
    binding = session.get(ProductVectorRow, (product.product_id, vector_index_id))
    if binding is not None:
        session.delete(binding)
    _set_index_status(session, product.product_id, "failed", reason[:INDEX_ERROR_LENGTH])
    return [binding.milvus_id] if binding else []


def add_product_event(
    session: orm.Session,
    topic: str,
    row: ProductRow,
    op: Literal["upsert", "delete"],
    milvus_ids: dict[str, list[int]] | None = None,
) -> None:
    event = ProductEvent(product_id=row.product_id, op=op, version=row.version, milvus_ids=milvus_ids or {})
    add_to_outbox(session, topic, str(row.product_id), event)


def requeue_products(session: orm.Session, products: Iterable[ProductRow], topic: str) -> None:
    """Have them indexed again as they are."""
    for product in products:
        _set_index_status(session, product.product_id, "pending", None)
        add_product_event(session, topic, product, "upsert")


def stale_pending_products(session: orm.Session, changed_before: datetime) -> list[ProductRow]:
    """Pending for so long that their event must have been lost."""
    return list(
        session.scalars(
            sa.select(ProductRow).where(ProductRow.index_status == "pending", ProductRow.updated_at < changed_before)
        )
    )


def bindings_after(session: orm.Session, vector_index_id: int, product_id: int, limit: int) -> dict[int, int]:
    """The next bindings of an index in the order of products: product_id → Milvus id."""
    rows = session.execute(
        sa.select(ProductVectorRow.product_id, ProductVectorRow.milvus_id)
        .where(ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.product_id > product_id)
        .order_by(ProductVectorRow.product_id)
        .limit(limit)
    )
    return dict(rows.all())


def unbind(session: orm.Session, vector_index_id: int, milvus_ids: Sequence[int]) -> None:
    session.execute(
        sa.delete(ProductVectorRow).where(
            ProductVectorRow.vector_index_id == vector_index_id, ProductVectorRow.milvus_id.in_(milvus_ids)
        )
    )


def image_paths_in_use(session: orm.Session, paths: Sequence[str]) -> set[str]:
    """By products and by the results of generation jobs."""
    columns = (ProductRow.image_path, GeneratedImageRow.image_path)
    return {path for column in columns for path in session.scalars(sa.select(column).where(column.in_(paths)))}


def requeue_all_products(session: orm.Session, vector_index_id: int, topic: str) -> None:
    """Forget everything that is bound in this index, and have all products indexed again."""
    session.execute(sa.delete(ProductVectorRow).where(ProductVectorRow.vector_index_id == vector_index_id))
    requeue_products(session, session.scalars(sa.select(ProductRow).execution_options(yield_per=1000)), topic)


def _set_index_status(session: orm.Session, product_id: int, status: str, error: str | None) -> None:
    values: dict[str, Any] = {"index_status": status, "index_error": error}
    if status == "indexed":
        values["indexed_at"] = utc_now()
    session.execute(sa.update(ProductRow).where(ProductRow.product_id == product_id).values(values))


def count_by_index_status(session: orm.Session) -> dict[str, int]:
    rows = session.execute(sa.select(ProductRow.index_status, sa.func.count()).group_by(ProductRow.index_status))
    return dict(rows.all())


def _select_with_binding(vector_index_id: int | None) -> sa.Select[ProductRow, int | None]:
    return sa.select(ProductRow, ProductVectorRow.milvus_id).outerjoin(
        ProductVectorRow,
        sa.and_(
            ProductVectorRow.product_id == ProductRow.product_id,
            ProductVectorRow.vector_index_id == (vector_index_id or 0),
        ),
    )


# --- Outbox ----------------------------------------------------------------------------------------------------------


def add_to_outbox(session: orm.Session, topic: str, key: str, message: BaseModel) -> None:
    session.add(OutboxRow(topic=topic, message_key=key, payload=message.model_dump(mode="json")))


def claim_outbox(session: orm.Session, limit: int) -> list[OutboxRow]:
    """The oldest unpublished rows, locked (where the database can) so that no other relay sends them too."""
    return list(
        session.scalars(
            sa.select(OutboxRow)
            .where(OutboxRow.published_at.is_(None))
            .order_by(OutboxRow.outbox_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )


def mark_published(session: orm.Session, outbox_ids: Sequence[int]) -> None:
    session.execute(
        sa.update(OutboxRow)
        .where(OutboxRow.outbox_id.in_(outbox_ids))
        .values(published_at=utc_now(), attempts=OutboxRow.attempts + 1)
    )


def count_failed_attempt(session: orm.Session, outbox_ids: Sequence[int]) -> None:
    session.execute(
        sa.update(OutboxRow).where(OutboxRow.outbox_id.in_(outbox_ids)).values(attempts=OutboxRow.attempts + 1)
    )


def delete_published_before(session: orm.Session, moment: datetime) -> None:
    session.execute(sa.delete(OutboxRow).where(OutboxRow.published_at < moment))


def outbox_backlog(session: orm.Session) -> int:
    statement = sa.select(sa.func.count()).select_from(OutboxRow).where(OutboxRow.published_at.is_(None))
    return session.scalar(statement) or 0

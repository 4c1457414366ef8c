"""The tables of the relational database. How they are reached stands in `tuwen/database/`."""

import decimal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.default import DefaultExecutionContext

from data_models import DEFAULT_SHOP
from tuwen.limit_settings import RATE_LIMITS_LENGTH, TITLE_COLUMN_LENGTH
from tuwen.request_ids import LENGTH as REQUEST_ID_LENGTH
from tuwen.request_ids import current_request_id
from tuwen.settings import CATEGORY_COLUMN_LENGTH, GROUP_COLUMN_LENGTH, SKU_COLUMN_LENGTH
from tuwen.texts import canonical_text, lexical_text, normalise_text

REASON_LENGTH = 1000
MODEL_LENGTH = 1000
FIELD_LENGTH = 100
SHOP_COLUMN_LENGTH = 64
TERM_LENGTH = 64
MAIN = 1  # the position of a product's main picture
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


# What a product is looked up by, which stands in a column beside how it was typed.
COMPARABLE: Mapping[str, Callable[[str], str]] = {
    "sku": canonical_text,
    "title": lambda title: lexical_text(title)[:TITLE_COLUMN_LENGTH],
    "category": lambda category: normalise_text(category)[:CATEGORY_COLUMN_LENGTH],
}


def comparable(column: str, value: str | None) -> str | None:
    return None if value is None else COMPARABLE[column](value)


def _comparable(of_column: str) -> Callable[[DefaultExecutionContext], str | None]:
    """For rows that are inserted past the mapped class."""

    def default(context: DefaultExecutionContext) -> str | None:
        parameters: dict[str, str | None] = context.get_current_parameters()  # type: ignore[no-untyped-call]
        return comparable(of_column, parameters.get(of_column))

    return default


def _shop_id(**options: Any) -> orm.MappedColumn[str]:
    column = sa.String(SHOP_COLUMN_LENGTH)
    return orm.mapped_column(column, default=DEFAULT_SHOP, server_default=DEFAULT_SHOP, **options)


class ProductRow(Base):
    """`sqlite_autoincrement`: the id of a deleted product is never given again, as on MySQL."""

    __tablename__ = "product"
    __table_args__ = (
        sa.Index("ix_product_category_normalised_price", "category_normalised", "price"),
        # The sku comes first, so that they find it without a shop, too.
        sa.Index("ix_product_sku_shop_id", "sku", "shop_id", unique=True),
        sa.Index("ix_product_sku_normalised_shop_id", "sku_normalised", "shop_id", unique=True),
        sa.Index("ix_product_sketch_version", "sketch_version", "index_status"),
        {**TABLE_OPTIONS, "sqlite_autoincrement": True},
    )

    product_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    shop_id: orm.Mapped[str] = _shop_id(index=True)
    """Of what else has one, see `tuwen/database/shops.py`."""
    sku: orm.Mapped[str | None] = orm.mapped_column(sa.String(SKU_COLUMN_LENGTH))
    title: orm.Mapped[str] = orm.mapped_column(sa.String(TITLE_COLUMN_LENGTH))
    category: orm.Mapped[str | None] = orm.mapped_column(sa.String(CATEGORY_COLUMN_LENGTH), index=True)
    price: orm.Mapped[decimal.Decimal | None] = orm.mapped_column(sa.Numeric(12, 2), index=True)
    attributes: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON, default=dict)
    group_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(GROUP_COLUMN_LENGTH), index=True)
    """The same in all that are variants of one."""
    image_path: orm.Mapped[str] = orm.mapped_column(sa.String(500))
    image_sha256: orm.Mapped[str] = orm.mapped_column(sa.CHAR(64), index=True)
    image_width: orm.Mapped[int]
    image_height: orm.Mapped[int]
    image_is_generated: orm.Mapped[bool] = orm.mapped_column(default=False, server_default=sa.false())
    image_count: orm.Mapped[int] = orm.mapped_column(default=1, server_default="1")
    """With the main one, which stands here. So that nothing is asked about further ones where there are none."""
    version: orm.Mapped[int] = orm.mapped_column(default=1)
    content_version: orm.Mapped[int] = orm.mapped_column(default=1)
    """Its version when that last changed which its row in Milvus is made of."""
    index_status: orm.Mapped[Literal["pending", "indexed", "failed"]] = orm.mapped_column(
        sa.String(16), default="pending", index=True
    )
    index_error: orm.Mapped[str | None] = orm.mapped_column(sa.String(REASON_LENGTH))
    queued_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    """When it was last had indexed again as it is, or its very picture was sent again."""
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    updated_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    indexed_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    # As the three are compared. An UPDATE that goes past this class has to set them itself.
    sku_normalised: orm.Mapped[str | None] = orm.mapped_column(sa.String(SKU_COLUMN_LENGTH), default=_comparable("sku"))
    """Null, too, where migration 0013 found another product whose sku is the same but for how it is typed."""
    title_normalised: orm.Mapped[str | None] = orm.mapped_column(
        sa.String(TITLE_COLUMN_LENGTH), default=_comparable("title")
    )
    category_normalised: orm.Mapped[str | None] = orm.mapped_column(
        sa.String(CATEGORY_COLUMN_LENGTH), default=_comparable("category"), index=True
    )

    terms_version: orm.Mapped[int] = orm.mapped_column(default=0, server_default="0", index=True)
    """By which version of `tuwen/lexical/terms.py` its terms were made; 0: none were."""
    twin_id: orm.Mapped[int | None] = orm.mapped_column(sa.BigInteger, index=True)
    """The same in all whose main picture is the same, see `tuwen/catalogue/twins.py`; null: its own id."""
    sketch_version: orm.Mapped[int] = orm.mapped_column(default=0, server_default="0")
    """By which version of that module it was compared with all others; 0: by none, or its picture is another since."""

    @orm.validates("sku", "title", "category")
    def _keep_comparable(self, name: str, value: str | None) -> str | None:
        if value != getattr(self, name):  # one of two old skus stays as it is for as long as nobody changes it
            setattr(self, f"{name}_normalised", comparable(name, value))
        return value


class ProductImageRow(Base):
    """A further picture of a product, beside the main one, which stands in the product's row."""

    __tablename__ = "product_image"
    __table_args__ = (sa.Index("ix_product_image_image_sha256_product_id", "image_sha256", "product_id"), TABLE_OPTIONS)

    product_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("product.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    position: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    """From 2 on, without a gap."""
    image_path: orm.Mapped[str] = orm.mapped_column(sa.String(500))
    image_sha256: orm.Mapped[str] = orm.mapped_column(sa.CHAR(64))
    image_width: orm.Mapped[int]
    image_height: orm.Mapped[int]
    image_is_generated: orm.Mapped[bool] = orm.mapped_column(default=False)


class ProductTermRow(Base):
    """A term by which a product is found, and how much it says of it, in hundredths; its key is in the order in which
    searches read it."""

    __tablename__ = "product_term"
    __table_args__ = ({**TABLE_OPTIONS, "sqlite_with_rowid": False},)

    term: orm.Mapped[str] = orm.mapped_column(sa.String(TERM_LENGTH), primary_key=True)
    shop_id: orm.Mapped[str] = orm.mapped_column(sa.String(SHOP_COLUMN_LENGTH), primary_key=True)
    """Its product's, which never moves: in the key, since a shop must not wait for what others have."""
    product_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("product.id", ondelete="CASCADE"), primary_key=True, autoincrement=False, index=True
    )
    impact: orm.Mapped[int] = orm.mapped_column(sa.SmallInteger)


class ProductSketchRow(Base):
    """A product's main picture in small, and the bands of a hash by which those are found that may be the same."""

    __tablename__ = "product_sketch"
    __table_args__ = (
        *(sa.Index(f"ix_product_sketch_band_{band}", f"band_{band}", "shop_id") for band in range(4)),
        TABLE_OPTIONS,
    )

    product_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("product.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    shop_id: orm.Mapped[str] = orm.mapped_column(sa.String(SHOP_COLUMN_LENGTH))
    """Its product's, which never moves: a shop's pictures are compared among themselves."""
    band_0: orm.Mapped[int]
    band_1: orm.Mapped[int]
    band_2: orm.Mapped[int]
    band_3: orm.Mapped[int]
    fields: orm.Mapped[bytes] = orm.mapped_column(sa.LargeBinary)
    """Colours, by which those are put in order that have a band in common."""
    sketch: orm.Mapped[bytes] = orm.mapped_column(sa.LargeBinary)


class IdempotencyKeyRow(Base):
    """A request that made a product, for as long as it may come again. It stays when the product is deleted."""

    __tablename__ = "idempotency_key"
    __table_args__ = (TABLE_OPTIONS,)

    idempotency_key: orm.Mapped[str] = orm.mapped_column(sa.String(255), primary_key=True)
    request_sha256: orm.Mapped[str] = orm.mapped_column(sa.CHAR(64))
    product_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now, index=True)


class ApiKeyRow(Base):
    """What the holder of a key may do. A revoked one stays until another takes its name."""

    __tablename__ = "api_key"
    __table_args__ = ({**TABLE_OPTIONS, "sqlite_autoincrement": True},)

    api_key_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(64), unique=True)
    key_sha256: orm.Mapped[str] = orm.mapped_column(sa.CHAR(64), unique=True)
    scopes: orm.Mapped[list[Literal["search", "write", "admin"]]] = orm.mapped_column(sa.JSON)
    shop_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(SHOP_COLUMN_LENGTH))
    """Null: of all shops."""
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    expires_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    revoked_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    last_used_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    """To a minute or so."""
    rate_limits: orm.Mapped[str | None] = orm.mapped_column(sa.String(RATE_LIMITS_LENGTH))
    """Its own, in place of those of the settings of the same kinds."""


class RateWindowRow(Base):
    """What all processes together were lent of a limit in one window of time."""

    __tablename__ = "rate_window"
    __table_args__ = (TABLE_OPTIONS,)

    name: orm.Mapped[str] = orm.mapped_column(sa.String(191), primary_key=True)
    spent: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    expires_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, index=True)


class VectorIndexRow(Base):
    __tablename__ = "vector_index"
    __table_args__ = (TABLE_OPTIONS,)

    vector_index_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    collection: orm.Mapped[str] = orm.mapped_column(sa.String(255), unique=True)
    model_fingerprint: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    clip_model: orm.Mapped[str | None] = orm.mapped_column(sa.String(MODEL_LENGTH))
    """As CLIP_MODEL, a hub's with its revision. Null where version 0.2.0 made it, until its models are known again."""
    text_model: orm.Mapped[str | None] = orm.mapped_column(sa.String(MODEL_LENGTH))
    query_prompt: orm.Mapped[str | None] = orm.mapped_column(sa.Text)
    """As TEXT_QUERY_PROMPT when its models were last the settings'; null: the model's own."""
    document_prompt: orm.Mapped[str | None] = orm.mapped_column(sa.Text)
    """As TEXT_DOCUMENT_PROMPT when it was made; null: the model's own."""
    precision: orm.Mapped[Literal["int8"] | None] = orm.mapped_column(sa.String(16))
    """Null: float32, or a half precision whose vectors are as good."""
    status: orm.Mapped[Literal["building", "active", "retired", "dropping"]] = orm.mapped_column(sa.String(16))
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    activated_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    calibration_version: orm.Mapped[int] = orm.mapped_column(default=0, server_default="0")
    """Another one where its calibrations are."""


class CalibrationRow(Base):
    """How a search mode's signals become a relevance in an index; goes with it."""

    __tablename__ = "calibration"
    __table_args__ = (TABLE_OPTIONS,)

    vector_index_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("vector_index.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    mode: orm.Mapped[str] = orm.mapped_column(sa.String(32), primary_key=True)
    weights: orm.Mapped[dict[str, float]] = orm.mapped_column(sa.JSON)
    fitted_on: orm.Mapped[dict[str, float]] = orm.mapped_column(sa.JSON)
    fitted_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)


class ProductVectorRow(Base):
    """Binds a row in Milvus to a product and to one of its pictures. A hit counts only if its id, product and token all
    stand here.

    All rows of a product in an index are bound in one transaction, at one version. Where one is lost the others are
    outdated, so that a version says of each of them that all of the product is there.
    """

    __tablename__ = "product_vector"
    __table_args__ = (sa.UniqueConstraint("vector_index_id", "milvus_id"), TABLE_OPTIONS)

    product_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("product.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    vector_index_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey("vector_index.id"), primary_key=True, autoincrement=False
    )
    image_position: orm.Mapped[int] = orm.mapped_column(
        primary_key=True, autoincrement=False, default=MAIN, server_default=str(MAIN)
    )
    """As it was at that version. Which picture it is since, `image_sha256` says."""
    milvus_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    row_token: orm.Mapped[int | None] = orm.mapped_column(sa.BigInteger)
    """Null for rows of version 0.2.0, which carry none."""
    version: orm.Mapped[int]
    """The product's `content_version` that the row is of."""
    image_sha256: orm.Mapped[str | None] = orm.mapped_column(sa.CHAR(64))
    """Of the picture that its vector was made of; null: not known, or to be made again."""
    title_sha256: orm.Mapped[str | None] = orm.mapped_column(sa.CHAR(64))
    """The same of the title, and of the vectors of both text models; null for a further picture's row."""


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
    kind: orm.Mapped[Literal["generate", "import", "reindex", "duplicates"]] = orm.mapped_column(sa.String(16))
    shop_id: orm.Mapped[str] = _shop_id()
    status: orm.Mapped[Literal["queued", "running", "done", "failed", "cancelled"]] = orm.mapped_column(
        sa.String(16), default="queued", index=True
    )
    progress: orm.Mapped[float] = orm.mapped_column(sa.Double, default=0.0)
    request: orm.Mapped[dict[str, Any]] = orm.mapped_column(sa.JSON)
    state: orm.Mapped[dict[str, Any] | None] = orm.mapped_column(sa.JSON(none_as_null=True))
    """Of all kinds but `generate`: how far it is, for whoever asks and for whoever takes it up."""
    error: orm.Mapped[str | None] = orm.mapped_column(sa.String(REASON_LENGTH))
    created_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now)
    started_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    finished_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    heartbeat_at: orm.Mapped[datetime | None] = orm.mapped_column(UtcDateTime)
    attempts: orm.Mapped[int] = orm.mapped_column(default=0)
    client: orm.Mapped[str | None] = orm.mapped_column(sa.String(80))
    """Who asked for it, where that is counted."""
    request_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(REQUEST_ID_LENGTH), default=current_request_id)
    """Of whoever asked for it."""


class ImportErrorRow(Base):
    """What is wrong with a row of a file that a job of kind `import` reads; it goes with its job."""

    __tablename__ = "import_error"
    __table_args__ = ({**TABLE_OPTIONS, "sqlite_autoincrement": True},)

    import_error_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    job_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("job.id", ondelete="CASCADE"), index=True)
    line: orm.Mapped[int]
    sku: orm.Mapped[str | None] = orm.mapped_column(sa.String(SKU_COLUMN_LENGTH))
    field: orm.Mapped[str] = orm.mapped_column(sa.String(FIELD_LENGTH))
    reason: orm.Mapped[str] = orm.mapped_column(sa.String(REASON_LENGTH))


class DuplicatePairRow(Base):
    """Two products with the same picture, as a job of kind `duplicates` has found them; it goes with its job."""

    __tablename__ = "duplicate_pair"
    __table_args__ = ({**TABLE_OPTIONS, "sqlite_autoincrement": True},)

    duplicate_pair_id: orm.Mapped[int] = orm.mapped_column("id", BigId, primary_key=True, autoincrement=True)
    job_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("job.id", ondelete="CASCADE"), index=True)
    product_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    other_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    """The one that was there before."""
    kind: orm.Mapped[Literal["same_file", "same_picture"]] = orm.mapped_column(sa.String(16))
    similarity: orm.Mapped[float] = orm.mapped_column(sa.Double)
    vector_similarity: orm.Mapped[float | None] = orm.mapped_column(sa.Double)


class ImageSourceRow(Base):
    """What the host of a picture that an import fetched knows it by. It stays for as long as files name the address."""

    __tablename__ = "image_source"
    __table_args__ = (TABLE_OPTIONS,)

    url_sha256: orm.Mapped[str] = orm.mapped_column(sa.CHAR(64), primary_key=True)
    image_sha256: orm.Mapped[str] = orm.mapped_column(sa.CHAR(64))
    """Of the picture that was stored of it."""
    etag: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    last_modified: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    used_at: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime, default=utc_now, index=True)


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


class UnusedImageRow(Base):
    """A stored picture that nothing names any more, as reconciliation has found it; it goes when that is long ago."""

    __tablename__ = "unused_image"
    __table_args__ = (TABLE_OPTIONS,)

    image_path: orm.Mapped[str] = orm.mapped_column(sa.String(500), primary_key=True)
    since: orm.Mapped[datetime] = orm.mapped_column(UtcDateTime)


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

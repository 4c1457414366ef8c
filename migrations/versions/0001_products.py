"""Products, vector indexes, bindings, outbox and jobs.

Revision: 0001, after nothing
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import create_table, drop_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "product",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("sku", sa.String(64), nullable=True, unique=True),
        sa.Column("title", sa.String(500), nullable=False),
        sa.Column("category", sa.String(100), nullable=True, index=True),
        sa.Column("price", sa.Numeric(12, 2), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("image_path", sa.String(500), nullable=False),
        sa.Column("image_sha256", sa.CHAR(64), nullable=False, index=True),
        sa.Column("image_width", sa.Integer(), nullable=False),
        sa.Column("image_height", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("index_status", sa.String(16), nullable=False, index=True),
        sa.Column("index_error", sa.String(1000), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("indexed_at", MOMENT, nullable=True),
        sqlite_autoincrement=True,
        **TABLE_OPTIONS,
    )
    create_table(
        "vector_index",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("collection", sa.String(255), nullable=False, unique=True),
        sa.Column("model_fingerprint", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("activated_at", MOMENT, nullable=True),
        **TABLE_OPTIONS,
    )
    create_table(
        "product_vector",
        sa.Column(
            "product_id",
            BIG_ID,
            sa.ForeignKey("product.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("vector_index_id", BIG_ID, sa.ForeignKey("vector_index.id"), primary_key=True, autoincrement=False),
        sa.Column("milvus_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.UniqueConstraint("vector_index_id", "milvus_id"),
        **TABLE_OPTIONS,
    )
    create_table(
        "outbox",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("topic", sa.String(200), nullable=False),
        sa.Column("message_key", sa.String(200), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("published_at", MOMENT, nullable=True, index=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        **TABLE_OPTIONS,
    )
    create_table(
        "job",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False, index=True),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.String(1000), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.Column("heartbeat_at", MOMENT, nullable=True),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    for table in ("job", "outbox", "product_vector", "vector_index", "product"):
        drop_table(table)

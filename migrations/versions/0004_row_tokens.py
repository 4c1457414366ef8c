"""What a Milvus row says of itself, when a product was last queued again, and leases.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from migrations.steps import add_column, create_index, create_table, drop_column

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    add_column("product_vector", sa.Column("row_token", sa.BigInteger(), nullable=True))
    add_column("product", sa.Column("queued_at", MOMENT, nullable=True))
    create_index("ix_outbox_message_key", "outbox", ["message_key"])
    create_table(
        "lease",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.CHAR(32), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("lease")
    op.drop_index("ix_outbox_message_key", "outbox")
    drop_column("product", "queued_at")
    drop_column("product_vector", "row_token")

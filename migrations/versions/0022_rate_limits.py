"""Limits of keys, what processes together were lent of one, and for whom a picture is drawn.

Revision: 0022, after 0021
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import add_column, create_table, drop_column, drop_table

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    add_column("api_key", sa.Column("rate_limits", sa.String(200), nullable=True))
    add_column("job", sa.Column("client", sa.String(80), nullable=True))
    create_table(
        "rate_window",
        sa.Column("name", sa.String(191), primary_key=True),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False, index=True),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    drop_table("rate_window")
    drop_column("job", "client")
    drop_column("api_key", "rate_limits")

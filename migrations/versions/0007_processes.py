"""Which processes live, and what each says of itself.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import create_table, drop_table

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "process",
        sa.Column("id", sa.CHAR(32), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False, index=True),
        sa.Column("state", sa.JSON(), nullable=False),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    drop_table("process")

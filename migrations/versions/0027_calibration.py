"""How the signals of a search's hits become a relevance, for each mode of an index.

Revision: 0027, after 0026
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import add_column, create_table, drop_column, drop_table

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "calibration",
        sa.Column(
            "vector_index_id",
            BIG_ID,
            sa.ForeignKey("vector_index.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("mode", sa.String(32), primary_key=True),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.Column("fitted_on", sa.JSON(), nullable=False),
        sa.Column("fitted_at", MOMENT, nullable=False),
        **TABLE_OPTIONS,
    )
    add_column("vector_index", sa.Column("calibration_version", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    drop_column("vector_index", "calibration_version")
    drop_table("calibration")

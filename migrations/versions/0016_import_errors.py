"""What is wrong with the rows of imported files.

Revision: 0016, after 0015
"""

import sqlalchemy as sa

from migrations.steps import create_table, drop_table

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "import_error",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("job_id", BIG_ID, sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("sku", sa.String(64), nullable=True),
        sa.Column("field", sa.String(100), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sqlite_autoincrement=True,
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    drop_table("import_error")

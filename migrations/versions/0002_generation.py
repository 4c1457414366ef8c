"""Generated pictures, how often a job was begun, and which products show a generated picture.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import add_column, create_table, drop_column, drop_table, has_column

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    # Nothing has written jobs yet, so the table is made anew: SQLite can't add `autoincrement` to one that is there.
    if not has_column("job", "attempts"):
        drop_table("job")
    _create_job(sa.Column("attempts", sa.Integer(), nullable=False), sqlite_autoincrement=True)
    add_column("product", sa.Column("image_is_generated", sa.Boolean(), nullable=False, server_default=sa.false()))
    create_table(
        "generated_image",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("job_id", BIG_ID, sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("image_path", sa.String(500), nullable=False),
        sa.Column("image_sha256", sa.CHAR(64), nullable=False, index=True),
        sa.Column("image_width", sa.Integer(), nullable=False),
        sa.Column("image_height", sa.Integer(), nullable=False),
        sa.UniqueConstraint("job_id", "position"),
        sqlite_autoincrement=True,
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    drop_table("generated_image")
    drop_column("product", "image_is_generated")
    drop_table("job")
    _create_job(sqlite_autoincrement=False)


def _create_job(*added: sa.Column[int], sqlite_autoincrement: bool) -> None:
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
        *added,
        sqlite_autoincrement=sqlite_autoincrement,
        **TABLE_OPTIONS,
    )

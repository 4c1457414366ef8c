"""What the host of an imported picture's address knows it by, so that it is not fetched again.

Revision: 0019, after 0018
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import create_table, drop_table

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "image_source",
        sa.Column("url_sha256", sa.CHAR(64), primary_key=True),
        sa.Column("image_sha256", sa.CHAR(64), nullable=False),
        sa.Column("etag", sa.String(255), nullable=True),
        sa.Column("last_modified", sa.String(255), nullable=True),
        sa.Column("used_at", MOMENT, nullable=False, index=True),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    drop_table("image_source")

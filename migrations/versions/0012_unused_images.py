"""Since when a picture has been named by nothing: it is removed when that, and not its upload, is long ago.

Revision: 0012, after 0011
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import create_table, drop_table

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "unused_image",
        sa.Column("image_path", sa.String(500), primary_key=True),
        sa.Column("since", MOMENT, nullable=False),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    drop_table("unused_image")

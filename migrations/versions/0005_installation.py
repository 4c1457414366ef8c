"""Who this installation is: its pictures and collections carry the id.

Revision: 0005, after 0004
"""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from migrations.steps import create_table, drop_table

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "installation",
        sa.Column("id", sa.CHAR(32), primary_key=True),
        sa.Column("created_at", MOMENT, nullable=False),
        **TABLE_OPTIONS,
    )
    installation = sa.table("installation", sa.column("id", sa.String), sa.column("created_at", MOMENT))
    if op.get_bind().scalar(sa.select(sa.func.count()).select_from(installation)) == 0:
        op.bulk_insert(installation, [{"id": uuid.uuid4().hex, "created_at": datetime.now(UTC).replace(tzinfo=None)}])


def downgrade() -> None:
    drop_table("installation")

"""Messages are claimed for a while, sent outside of any transaction, and put aside when the transport refuses them.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import add_column, drop_column

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    add_column("outbox", sa.Column("claimed_until", MOMENT, nullable=True))
    add_column("outbox", sa.Column("refused_at", MOMENT, nullable=True))
    add_column("outbox", sa.Column("error", sa.String(1000), nullable=True))


def downgrade() -> None:
    for column in ("claimed_until", "refused_at", "error"):
        drop_column("outbox", column)

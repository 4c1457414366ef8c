"""Which request asked for a job.

Revision: 0024, after 0023
"""

import sqlalchemy as sa

from migrations.steps import add_column, drop_column

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_column("job", sa.Column("request_id", sa.String(64), nullable=True))


def downgrade() -> None:
    drop_column("job", "request_id")

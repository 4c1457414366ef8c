"""A job's result never stood in its row.

Revision: 0003, after 0002
"""

import sqlalchemy as sa

from migrations.steps import add_column, drop_column

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    drop_column("job", "result")


def downgrade() -> None:
    add_column("job", sa.Column("result", sa.JSON(), nullable=True))

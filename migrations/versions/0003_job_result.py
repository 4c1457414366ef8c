"""A job's result never stood in its row.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("job", "result")


def downgrade() -> None:
    op.add_column("job", sa.Column("result", sa.JSON(), nullable=True))

"""An index names its models, and a job keeps how far it came.

Revision: 0008, after 0007
"""

import sqlalchemy as sa

from migrations.steps import add_column, drop_column

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_column("vector_index", sa.Column("clip_model", sa.String(1000), nullable=True))
    add_column("vector_index", sa.Column("text_model", sa.String(1000), nullable=True))
    add_column("job", sa.Column("state", sa.JSON(), nullable=True))


def downgrade() -> None:
    drop_column("job", "state")
    for column in ("clip_model", "text_model"):
        drop_column("vector_index", column)

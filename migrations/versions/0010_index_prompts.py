"""An index names the prompts that its title model was sent.

Revision: 0010, after 0009
"""

import sqlalchemy as sa

from migrations.steps import add_column, drop_column

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("query_prompt", "document_prompt"):
        add_column("vector_index", sa.Column(column, sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("document_prompt", "query_prompt"):
        drop_column("vector_index", column)

"""An index names the precision of its vectors, where that is a class of its own.

Revision: 0011, after 0010
"""

import sqlalchemy as sa

from migrations.steps import add_column, drop_column

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_column("vector_index", sa.Column("precision", sa.String(16), nullable=True))


def downgrade() -> None:
    drop_column("vector_index", "precision")

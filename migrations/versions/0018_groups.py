"""Products know which of them are variants of one (SPU): `product.group_id`, and its index.

Revision: 0018, after 0017
"""

import sqlalchemy as sa

from migrations.steps import add_column, create_index, drop_column, drop_index

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

INDEX = "ix_product_group_id"


def upgrade() -> None:
    add_column("product", sa.Column("group_id", sa.String(64), nullable=True))
    create_index(INDEX, "product", ["group_id"])


def downgrade() -> None:
    drop_index(INDEX, "product")
    drop_column("product", "group_id")

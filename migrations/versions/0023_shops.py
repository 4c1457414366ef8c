"""Several shops in one service: products, jobs and keys belong to one, and a sku is unique within its shop.

What there is belongs to the default shop, by the column's default: no row is touched. On MySQL the columns are there at
once, and the indexes are built beside reads and writes; SQLite copies its table of products once.

Revision: 0023, after 0022
"""

import sqlalchemy as sa
from alembic import op

from migrations.steps import add_column, create_index, drop_column, drop_index, drop_unique, has_column

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

PRODUCTS, SKUS, NORMALISED_SKUS = "ix_product_shop_id", "ix_product_sku_shop_id", "ix_product_sku_normalised_shop_id"


def upgrade() -> None:
    for table in ("product", "job"):
        add_column(table, sa.Column("shop_id", sa.String(64), nullable=False, server_default="default"))
    add_column("api_key", sa.Column("shop_id", sa.String(64), nullable=True))
    # The new ones first: at no moment two products of a shop may get the same sku.
    create_index(SKUS, "product", ["sku", "shop_id"], unique=True)
    create_index(NORMALISED_SKUS, "product", ["sku_normalised", "shop_id"], unique=True)
    create_index(PRODUCTS, "product", ["shop_id"])
    drop_unique("product", "sku_normalised")
    drop_unique("product", "sku")


def downgrade() -> None:
    """Only where no two shops have the same sku. Keys of shops go: without the column they would be of all shops, and
    stay so after the next upgrade."""
    if has_column("api_key", "shop_id"):
        op.execute("DELETE FROM api_key WHERE shop_id IS NOT NULL")
    create_index("sku", "product", ["sku"], unique=True)
    create_index("ix_product_sku_normalised", "product", ["sku_normalised"], unique=True)
    for index in (PRODUCTS, NORMALISED_SKUS, SKUS):
        drop_index(index, "product")
    for table in ("api_key", "job", "product"):
        drop_column(table, "shop_id")

"""Keys of requests that made a product; and a category's products within prices are found without walking over it.

Revision: 0015, after 0014
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from migrations.steps import create_index, create_table, drop_index, drop_table

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}
CATEGORY_PRICE = "ix_product_category_normalised_price"


def upgrade() -> None:
    create_table(
        "idempotency_key",
        sa.Column("idempotency_key", sa.String(255), primary_key=True),
        sa.Column("request_sha256", sa.CHAR(64), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False, index=True),
        **TABLE_OPTIONS,
    )
    create_index(CATEGORY_PRICE, "product", ["category_normalised", "price"])


def downgrade() -> None:
    drop_index(CATEGORY_PRICE, "product")
    drop_table("idempotency_key")

"""Terms, by which products are found word by word. Those of the products that are there are made by reconciliation.

Revision: 0025, after 0024
"""

import sqlalchemy as sa

from migrations.steps import add_column, create_index, create_table, drop_column, drop_index, drop_table

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INDEX = "ix_product_terms_version"
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "product_term",
        sa.Column("term", sa.String(64), primary_key=True),
        sa.Column("shop_id", sa.String(64), primary_key=True),
        sa.Column(
            "product_id",
            BIG_ID,
            sa.ForeignKey("product.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
            index=True,
        ),
        sa.Column("impact", sa.SmallInteger(), nullable=False),
        sqlite_with_rowid=False,
        **TABLE_OPTIONS,
    )
    add_column("product", sa.Column("terms_version", sa.Integer(), nullable=False, server_default="0"))
    create_index(INDEX, "product", ["terms_version"])


def downgrade() -> None:
    drop_index(INDEX, "product")
    drop_column("product", "terms_version")
    drop_table("product_term")

"""Sketches of pictures, by which products with the same picture are found; those of the products that are there are
made in the background. Pairs that a report has found.

Revision: 0026, after 0025
"""

import sqlalchemy as sa

from migrations.steps import add_column, create_index, create_table, drop_column, drop_index, drop_table

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BANDS = range(4)
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}
OF_PRODUCT = {"ix_product_twin_id": ["twin_id"], "ix_product_sketch_version": ["sketch_version", "index_status"]}


def upgrade() -> None:
    create_table(
        "product_sketch",
        sa.Column(
            "product_id", BIG_ID, sa.ForeignKey("product.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
        ),
        sa.Column("shop_id", sa.String(64), nullable=False),
        *(sa.Column(f"band_{band}", sa.Integer(), nullable=False) for band in BANDS),
        sa.Column("fields", sa.LargeBinary(), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=False),
        **TABLE_OPTIONS,
    )
    for band in BANDS:
        create_index(f"ix_product_sketch_band_{band}", "product_sketch", [f"band_{band}", "shop_id"])
    add_column("product", sa.Column("twin_id", sa.BigInteger(), nullable=True))
    add_column("product", sa.Column("sketch_version", sa.Integer(), nullable=False, server_default="0"))
    for name, columns in OF_PRODUCT.items():
        create_index(name, "product", columns)
    create_table(
        "duplicate_pair",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("job_id", BIG_ID, sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("other_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("similarity", sa.Double(), nullable=False),
        sa.Column("vector_similarity", sa.Double(), nullable=True),
        sqlite_autoincrement=True,
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    drop_table("duplicate_pair")
    for name in OF_PRODUCT:
        drop_index(name, "product")
    drop_column("product", "sketch_version")
    drop_column("product", "twin_id")
    drop_table("product_sketch")

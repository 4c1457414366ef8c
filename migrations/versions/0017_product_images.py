"""Further pictures of products, and a binding for each of a product's rows in Milvus.

On MySQL the bindings' new key is one rebuild of their table, beside which reads and writes go on; products get a column
without being touched.

Revision: 0017, after 0016
"""

import sqlalchemy as sa
from alembic import op

from migrations.steps import add_column, create_index, create_table, drop_column, drop_table, has_column

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}
BINDING = ("product_id", "vector_index_id", "milvus_id", "row_token", "version", "image_sha256", "title_sha256")


def upgrade() -> None:
    create_table(
        "product_image",
        sa.Column(
            "product_id",
            BIG_ID,
            sa.ForeignKey("product.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("image_path", sa.String(500), nullable=False),
        sa.Column("image_sha256", sa.CHAR(64), nullable=False),
        sa.Column("image_width", sa.Integer(), nullable=False),
        sa.Column("image_height", sa.Integer(), nullable=False),
        sa.Column("image_is_generated", sa.Boolean(), nullable=False),
        **TABLE_OPTIONS,
    )
    create_index("ix_product_image_image_sha256_product_id", "product_image", ["image_sha256", "product_id"])
    add_column("product", sa.Column("image_count", sa.Integer(), nullable=False, server_default="1"))
    if has_column("product_vector", "image_position"):
        return
    if op.get_bind().dialect.name == "sqlite":
        _copy_bindings(sa.Column("image_position", sa.Integer(), primary_key=True, server_default="1"))
    else:
        op.execute(
            "ALTER TABLE product_vector ADD COLUMN image_position INTEGER NOT NULL DEFAULT 1, DROP PRIMARY KEY,"
            " ADD PRIMARY KEY (product_id, vector_index_id, image_position)"
        )


def downgrade() -> None:
    """Further pictures are lost, and their rows in Milvus are then bound by nothing."""
    if has_column("product_vector", "image_position"):
        op.execute("DELETE FROM product_vector WHERE image_position > 1")
        if op.get_bind().dialect.name == "sqlite":
            _copy_bindings()
        else:
            op.execute(
                "ALTER TABLE product_vector DROP PRIMARY KEY, ADD PRIMARY KEY (product_id, vector_index_id),"
                " DROP COLUMN image_position"
            )
    drop_column("product", "image_count")
    drop_table("product_image")


def _copy_bindings(*of_key: sa.Column[int]) -> None:
    """SQLite can't change a table's key."""
    op.create_table(
        "product_vector_new",
        sa.Column(
            "product_id",
            BIG_ID,
            sa.ForeignKey("product.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("vector_index_id", BIG_ID, sa.ForeignKey("vector_index.id"), primary_key=True),
        *of_key,
        sa.Column("milvus_id", sa.BigInteger(), nullable=False),
        sa.Column("row_token", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("image_sha256", sa.CHAR(64), nullable=True),
        sa.Column("title_sha256", sa.CHAR(64), nullable=True),
        sa.UniqueConstraint("vector_index_id", "milvus_id"),
    )
    columns = ", ".join(BINDING)
    op.execute(f"INSERT INTO product_vector_new ({columns}) SELECT {columns} FROM product_vector")
    op.drop_table("product_vector")
    op.rename_table("product_vector_new", "product_vector")

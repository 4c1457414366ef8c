"""A product's content has a version of its own, and a binding says which title and which picture its row is of.

What is bound at its product's version was made of the title, as it was typed, and the picture that the product has.

Revision: 0014, after 0013
"""

import hashlib

import sqlalchemy as sa
from alembic import op

from migrations.steps import add_column, create_index, drop_column, drop_index

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

OF_NOW = """
    UPDATE product_vector SET
        image_sha256 = (SELECT image_sha256 FROM product WHERE id = product_id AND product.version = {version}),
        title_sha256 = (SELECT SHA2(title, 256) FROM product WHERE id = product_id AND product.version = {version})
"""


def upgrade() -> None:
    add_column("product", sa.Column("content_version", sa.Integer(), nullable=False, server_default="1"))
    op.execute("UPDATE product SET content_version = version WHERE version <> 1")
    for column in ("image_sha256", "title_sha256"):
        add_column("product_vector", sa.Column(column, sa.CHAR(64), nullable=True))
    if op.get_bind().dialect.name == "sqlite":  # which has no such function
        connection = op.get_bind().connection.dbapi_connection
        assert connection is not None, "it is open"
        connection.create_function("SHA2", 2, lambda title, _: hashlib.sha256(title.encode()).hexdigest())
    op.execute(OF_NOW.format(version="product_vector.version"))
    create_index("ix_product_price", "product", ["price"])


def downgrade() -> None:
    drop_index("ix_product_price", "product")
    for column in ("title_sha256", "image_sha256"):
        drop_column("product_vector", column)
    drop_column("product", "content_version")

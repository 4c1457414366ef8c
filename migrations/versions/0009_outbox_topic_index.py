"""What waits of one topic is found without walking over the backlog of another.

Revision: 0009, after 0008
"""

from alembic import op

from migrations.steps import create_index

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index("ix_outbox_topic_published_at", "outbox", ["topic", "published_at"])


def downgrade() -> None:
    op.drop_index("ix_outbox_topic_published_at", "outbox")

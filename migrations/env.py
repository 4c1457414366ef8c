"""Alembic's entry: runs the migrations on the connection that `tuwen.database.engine` passes in."""

from alembic import context

from orm_models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()

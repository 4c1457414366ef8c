"""Alembic's entry: runs the migrations on the connection that `orm_models.Database.migrate` passes in."""

from alembic import context

from orm_models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()

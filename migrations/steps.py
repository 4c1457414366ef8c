"""Steps of a migration that may be taken twice.

On MySQL each change of the schema commits by itself, and the revision only afterwards: a process that is killed between
the two leaves a step that is done and will come again.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op


def has_column(table: str, name: str) -> bool:
    inspector = sa.inspect(op.get_bind())
    return inspector.has_table(table) and name in {column["name"] for column in inspector.get_columns(table)}


def add_column(table: str, column: sa.Column[Any]) -> None:
    if not has_column(table, column.name):
        op.add_column(table, column)


def drop_column(table: str, name: str) -> None:
    if has_column(table, name):
        op.drop_column(table, name)


def has_index(table: str, name: str) -> bool:
    return name in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}


def create_index(name: str, table: str, columns: list[str], *, unique: bool = False) -> None:
    if not has_index(table, name):
        op.create_index(name, table, columns, unique=unique)


def drop_index(name: str, table: str) -> None:
    if has_index(table, name):
        op.drop_index(name, table)


def drop_unique(table: str, column: str) -> None:
    """Whatever makes this column alone unique, however it is named. SQLite has to copy the table for that."""
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    for index in inspector.get_indexes(table):
        if index["unique"] and index["column_names"] == [column] and not index.get("duplicates_constraint"):
            op.drop_index(str(index["name"]), table)
    if connection.dialect.name != "sqlite":
        return
    if all(each["column_names"] != [column] for each in inspector.get_unique_constraints(table)):
        return
    if connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
        raise RuntimeError("Foreign keys must be off: what refers to the table would be deleted with the old one.")
    last_id = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name").bindparams(name=table)
    seq = connection.scalar(last_id)
    naming = {"uq": "uq_%(table_name)s_%(column_0_name)s"}
    options = {"sqlite_autoincrement": True}
    with op.batch_alter_table(table, recreate="always", naming_convention=naming, table_kwargs=options) as batch:
        batch.drop_constraint(f"uq_{table}_{column}", type_="unique")
    if seq is not None:  # else ids of deleted rows would be given again
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name").bindparams(name=table))
        values = sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)")
        connection.execute(values.bindparams(name=table, seq=seq))


def create_table(name: str, *items: sa.schema.SchemaItem, **options: Any) -> None:
    """With the indexes of its columns, each of which is a change of its own."""
    if not sa.inspect(op.get_bind()).has_table(name):
        op.create_table(name, *items, **options)
    for item in items:
        if isinstance(item, sa.Column) and item.index:
            create_index(f"ix_{name}_{item.name}", name, [item.name])


def drop_table(name: str) -> None:
    if sa.inspect(op.get_bind()).has_table(name):
        op.drop_table(name)

"""Lets go of indexes that were given up: their collections, what is bound in them, their rows.

The only place that drops collections. One whose name does not say that it is this installation's (version 0.2.0 named
them by the models alone) may be another's, and is never dropped on a server that others may use. What is dropped late
hits nothing that lives: an index that is given up never answers again, and no name is given twice.
"""

import logging
from typing import Any

import sqlalchemy as sa

from orm_models import VectorIndexRow
from tuwen.database.engine import Database
from tuwen.errors import AppError
from tuwen.vectors.careful_loading import forget_loading
from tuwen.vectors.indexes import collection_mark, delete_bindings_page, indexes_with, is_there
from vector_db import VectorDB

logger = logging.getLogger(__name__)

PAGE = 500


def is_ours_alone(database: Database, vector_db: VectorDB, collection: str) -> bool:
    """By its name, or since a file is one installation's."""
    return vector_db.is_file or collection.startswith(collection_mark(database.installation_id()))


def drop_if_ours(database: Database, vector_db: VectorDB, collection: str) -> bool:
    """False where it stays, since it may be another installation's. That there is none is no error.

    Only for a name that no process can put in use any more.
    """
    if not is_ours_alone(database, vector_db, collection):
        return False
    if vector_db.has_collection(collection):
        vector_db.drop_collection(collection)
    return True


def drop_given_up(database: Database, vector_db: VectorDB) -> int:
    """What is `dropping`. Returns how many could not be dropped now, none of which stops the others."""
    with database.read() as session:
        rows = indexes_with(session, "dropping")
    left = 0
    for row in rows:
        try:
            _drop(database, vector_db, row)
        except AppError as error:
            logger.warning("The collection %s can't be dropped, and is tried again: %s", row.collection, error.detail)
            left += 1
    return left


def _drop(database: Database, vector_db: VectorDB, row: VectorIndexRow) -> None:
    """Collection first, then bindings, then the row: a kill in between leaves what makes it come again."""
    is_dropped = drop_if_ours(database, vector_db, row.collection)
    _forget_bindings(database, row)
    with database.write() as session:
        deleted: sa.CursorResult[Any] = session.execute(sa.delete(VectorIndexRow).where(is_there(row)))  # type: ignore[assignment]  # a DELETE's is one
        if deleted.rowcount:
            forget_loading(session, row)
    if is_dropped:
        logger.info("Dropped the collection %s", row.collection)
    else:
        logger.warning(
            "The collection %s stays in Milvus, without a row here: its name does not say whose it is. If no other "
            "installation has it, drop it there by hand.",
            row.collection,
        )


def _forget_bindings(database: Database, row: VectorIndexRow) -> None:
    while True:
        with database.write() as session:
            if not delete_bindings_page(session, row, PAGE):
                return

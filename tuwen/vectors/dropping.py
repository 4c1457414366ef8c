"""Lets go of indexes that were given up: their collections, what is bound in them, their rows.

The only place that drops collections. One whose name does not say that it is this installation's (version 0.2.0 named
them by the models alone) may be another's, and is never dropped on a server that others may use.
"""

import logging

from orm_models import VectorIndexRow
from tuwen.database.engine import Database
from tuwen.errors import AppError
from tuwen.vectors.careful_loading import forget_loading
from tuwen.vectors.indexes import collection_mark, delete_bindings_page, indexes_with
from vector_db import VectorDB

logger = logging.getLogger(__name__)

PAGE = 500


def is_ours_alone(database: Database, vector_db: VectorDB, collection: str) -> bool:
    """By its name, or since a file is one installation's."""
    return vector_db.is_file or collection.startswith(collection_mark(database.installation_id()))


def drop_if_ours(database: Database, vector_db: VectorDB, collection: str) -> bool:
    """False where it stays, since it may be another installation's. That there is none is no error."""
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
    forget_bindings(database, row.vector_index_id)
    with database.write() as session:
        forget_loading(session, row)
        session.delete(session.merge(row))
    if is_dropped:
        logger.info("Dropped the collection %s", row.collection)
    else:
        logger.warning(
            "The collection %s stays in Milvus, without a row here: its name does not say whose it is. If no other "
            "installation has it, drop it there by hand.",
            row.collection,
        )


def forget_bindings(database: Database, vector_index_id: int) -> None:
    while True:
        with database.write() as session:
            if not delete_bindings_page(session, vector_index_id, PAGE):
                return

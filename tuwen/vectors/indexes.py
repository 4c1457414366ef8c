"""What is asked of the table of indexes, and how one takes another's place.

An index is `building`, then `active`, then `retired` (and `active` again by a rollback), at last `dropping`. Whoever
locks an index and products locks the index first. Never commits: the caller's `Database.write()` block is the
transaction.
"""

import secrets

import sqlalchemy as sa
from sqlalchemy import orm

from orm_models import InstallationRow, ProductVectorRow, VectorIndexRow, utc_now
from tuwen.encoders.base import ModelNames
from tuwen.errors import IndexChanged


def active_index(session: orm.Session) -> VectorIndexRow | None:
    return session.scalar(sa.select(VectorIndexRow).where(VectorIndexRow.status == "active"))


def indexes_with(session: orm.Session, *statuses: str) -> list[VectorIndexRow]:
    """Those that became so last come first."""
    statement = sa.select(VectorIndexRow).where(VectorIndexRow.status.in_(statuses))
    newest = sa.func.coalesce(VectorIndexRow.activated_at, VectorIndexRow.created_at).desc()
    return list(session.scalars(statement.order_by(newest, VectorIndexRow.vector_index_id.desc())))


def new_index(session: orm.Session, fingerprint: str, models: ModelNames) -> VectorIndexRow:
    """To be built; the caller adds it."""
    return VectorIndexRow(
        collection=new_collection_name(session, fingerprint),
        model_fingerprint=fingerprint,
        **columns_of(models),
        status="building",
        created_at=utc_now(),
    )


def new_collection_name(session: orm.Session, fingerprint: str) -> str:
    """Of this installation and the models, and never given twice, not for one that is made again either.

    No check keeps a process from being paused between it and the drop that it allows, nor a call from arriving late at
    Milvus. What is late then meets a name that is dead.
    """
    installation_id = session.scalars(sa.select(InstallationRow.installation_id)).one()
    return f"{collection_mark(installation_id)}{fingerprint[:8]}_{secrets.token_hex(8)}"


def collection_mark(installation_id: str) -> str:
    """How the names of an installation's collections begin. Version 0.2.0 named them by the models alone."""
    return f"products_{installation_id[:12]}_"


def models_of(row: VectorIndexRow) -> ModelNames | None:
    """None where version 0.2.0 made it, which did not write them down."""
    if not (row.clip_model and row.text_model):
        return None
    return ModelNames(row.clip_model, row.text_model, row.query_prompt, row.document_prompt, row.precision)


def columns_of(models: ModelNames) -> dict[str, str | None]:
    """As an index's row has them."""
    return {
        "clip_model": models.clip,
        "text_model": models.text,
        "query_prompt": models.query_prompt,
        "document_prompt": models.document_prompt,
        "precision": models.precision,
    }


def require_status(session: orm.Session, vector_index_id: int, collection: str, status: str) -> None:
    """It has this collection and status until the transaction ends. Raises IndexChanged where it has not."""
    found = session.execute(
        sa.select(VectorIndexRow.collection, VectorIndexRow.status)
        .where(VectorIndexRow.vector_index_id == vector_index_id)
        .with_for_update(read=True)
    ).first()
    if found is None or tuple(found) != (collection, status):
        raise IndexChanged(
            f"Another index is in use since a moment ago: {vector_index_id} is {found}, not {collection}, {status}."
        )


def activate(session: orm.Session, vector_index_id: int, status: str) -> None:
    """In place of the active one, which retires. Raises IndexChanged where it does not have this status any more."""
    rows = session.scalars(
        sa.select(VectorIndexRow)
        .where(sa.or_(VectorIndexRow.status == "active", VectorIndexRow.vector_index_id == vector_index_id))
        .order_by(VectorIndexRow.vector_index_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    chosen = next((row for row in rows if row.vector_index_id == vector_index_id), None)
    if chosen is None or chosen.status != status:
        raise IndexChanged(f"The index {vector_index_id} is not {status} any more.")
    for row in rows:
        row.status = "retired"
    chosen.status, chosen.activated_at = "active", utc_now()


def has_bindings(session: orm.Session, vector_index_id: int) -> bool:
    """Whether anything was ever bound in it, of whichever version."""
    bound = sa.select(ProductVectorRow.product_id).where(ProductVectorRow.vector_index_id == vector_index_id)
    return session.scalar(bound.limit(1)) is not None


def is_there(row: VectorIndexRow) -> sa.ColumnElement[bool]:
    """The very one: SQLite gives the number of the newest again, once it is deleted; no name is given twice."""
    return sa.and_(VectorIndexRow.vector_index_id == row.vector_index_id, VectorIndexRow.collection == row.collection)


def delete_bindings_page(session: orm.Session, row: VectorIndexRow, limit: int) -> int:
    """Of an index that is dropped; returns how many there were. None where it is gone already."""
    if session.scalar(sa.select(VectorIndexRow.vector_index_id).where(is_there(row))) is None:
        return 0
    mine = ProductVectorRow.vector_index_id == row.vector_index_id
    page = list(session.scalars(sa.select(ProductVectorRow.product_id).where(mine).limit(limit)))
    session.execute(sa.delete(ProductVectorRow).where(mine, ProductVectorRow.product_id.in_(page)))
    return len(page)

"""Several shops in one database: a session of one shop reads and changes that shop's rows alone.

In one place for all statements, so that a new one is safe before anybody thinks of shops: each gets the condition of
every table that has rows of shops, and what comes to the database without it is refused, as far as counting in the
SQL shows it: a net for our own slips (it doesn't see quoted names, or INSERT … SELECT), not a proof. Sessions of no
shop see all, and pay nothing.
"""

import re
from functools import lru_cache
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from data_models import DEFAULT_SHOP
from orm_models import (
    DuplicatePairRow,
    GeneratedImageRow,
    ImportErrorRow,
    JobRow,
    ProductImageRow,
    ProductRow,
    ProductSketchRow,
    ProductTermRow,
    ProductVectorRow,
)

SHOP = "shop_id"
OWNED = ("product", "product_sketch", "product_term", "job")
PARTS: dict[Any, sa.ColumnElement[bool]] = {
    ProductImageRow: ProductRow.product_id == ProductImageRow.product_id,
    ProductVectorRow: ProductRow.product_id == ProductVectorRow.product_id,
    ImportErrorRow: JobRow.job_id == ImportErrorRow.job_id,
    GeneratedImageRow: JobRow.job_id == GeneratedImageRow.job_id,
    DuplicatePairRow: JobRow.job_id == DuplicatePairRow.job_id,
}
"""What belongs to the shop of its product or job."""
_FROM = r"(?i)(?:\bFROM|\bJOIN|\bUPDATE|,)\s+\(*"
_OWNER = re.compile(rf"{_FROM}({'|'.join(OWNED)})\b(?!\.)")
_PART = re.compile(rf"{_FROM}({'|'.join(part.__tablename__ for part in PARTS)})\b(?!\.)")
_CONDITION = re.compile(r"\bshop_id = ")
# A change of one object, which was read in the same session.
_FLUSHED = re.compile(rf"(?:UPDATE|DELETE FROM) ({'|'.join(OWNED)})\b(?!.*SELECT).* WHERE \1\.id = \S+")


class IsOfShop(FunctionElement[bool]):
    """A column and the shop. SQLite, which knows nothing of how many rows a shop has, takes them for ten, and would go
    through all of a shop for each of its pictures: it is told that they may be half of all."""

    inherit_cache = True
    type = sa.Integer()  # type: ignore[assignment]  # of a boolean SQLAlchemy would ask whether it is 1


@compiles(IsOfShop)
def _is_of_shop(element: IsOfShop, compiler: SQLCompiler, **options: Any) -> str:
    column, shop_id = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} = {shop_id}"


@compiles(IsOfShop, "sqlite")
def _is_of_shop_in_sqlite(element: IsOfShop, compiler: SQLCompiler, **options: Any) -> str:
    return f"likelihood({_is_of_shop(element, compiler, **options)}, 0.5)"


class UnscopedStatement(Exception):
    """Our own mistake: a statement of one shop's session that would have read all shops'."""


class ShopSession(orm.Session):
    """Of one shop: `info["shop_id"]`."""


def shop_of(session: orm.Session) -> str | None:
    """None: all."""
    shop_id: str | None = session.info.get(SHOP)
    return shop_id


def home_shop(session: orm.Session) -> str:
    """To which belongs what is made here, and within which a sku names a product."""
    return shop_of(session) or DEFAULT_SHOP


def shop_engine(engine: sa.Engine, shop_id: str) -> sa.Engine:
    """With the same connections, on which nothing is said that lacks the shop's condition."""
    narrowed = engine.execution_options(shop_id=shop_id)
    sa.event.listen(narrowed, "before_cursor_execute", _require_condition)
    return narrowed


@lru_cache(maxsize=1000)
def _criteria(shop_id: str) -> list[orm.LoaderCriteriaOption]:
    def of(row: Any, condition: sa.ColumnElement[bool]) -> orm.LoaderCriteriaOption:
        return orm.with_loader_criteria(row, condition, include_aliases=True, propagate_to_loaders=False)

    conditions: dict[Any, sa.ColumnElement[bool]] = {
        row: IsOfShop(row.shop_id, sa.literal(shop_id))
        for row in (ProductRow, ProductSketchRow, ProductTermRow, JobRow)
    }
    for part, is_owner in PARTS.items():
        # Of the part's table alone: the statement may have the owner's, too. The owner gets its own condition there.
        conditions[part] = sa.exists().where(is_owner).correlate(part)
    return [of(row, condition) for row, condition in conditions.items()]


@sa.event.listens_for(ShopSession, "do_orm_execute")
def _narrow(state: orm.ORMExecuteState) -> None:
    if not state.is_insert:
        state.statement = state.statement.options(*_criteria(str(shop_of(state.session))))
    elif state.bind_mapper is not None and hasattr(state.bind_mapper.class_, SHOP):
        _refuse(f"INSERT of many {state.bind_mapper.class_.__name__}")  # objects that are added get their shop


@sa.event.listens_for(ShopSession, "before_flush")
def _own(session: orm.Session, *_: Any) -> None:
    for each in (*session.new, *session.dirty):
        if hasattr(type(each), SHOP):
            each.shop_id = shop_of(session)


def _require_condition(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
    if sql.startswith("INSERT") or _FLUSHED.fullmatch(sql):
        return
    conditions = len(_CONDITION.findall(sql))
    if len(_OWNER.findall(sql)) > conditions or (_PART.search(sql) and not conditions):
        _refuse(sql)


def _refuse(sql: str) -> NoReturn:
    raise UnscopedStatement(f"A statement of one shop has no condition of it: {sql}")

"""Attributes in SQL, where a condition means what it means to Milvus: a text, a number and true are never equal.

A product's attributes are one JSON document. The two ways to look into it, SQLite's and MySQL's (and MariaDB's), are
told apart here alone.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import sqlalchemy as sa

from data_models import AttributeFilter, Scalar
from orm_models import ProductRow

Condition: TypeAlias = sa.ColumnElement[bool]

LONGEST_COUNTED = 200  # characters of a text that is counted as a value of its own
INTEGER = "^-?[0-9]+$"
MYSQL_NUMBERS = ("INTEGER", "UNSIGNED INTEGER", "DOUBLE", "DECIMAL")
SQLITE_NUMBERS = ("integer", "real")
VALUED = ("boolean", "text", "number")
LONGEST_DOCUMENT = LONGEST_COUNTED * 12 + 3  # of a character's two halves, each as \\uXXXX, in quotes
PRODUCTS = sa.func.count().label("products")
# SQLAlchemy knows no JSON_TABLE. Of what is no list it may have rows or none.
MEMBERS = "JSON_TABLE({}, '$[*]' COLUMNS (member JSON PATH '$')) AS members"
MEMBER: sa.ColumnElement[Any] = sa.literal_column("members.member")
MOST = 2**64  # beyond all integers that are stored


Values: TypeAlias = sa.Select[str | None, Any, int]
"""What products have, and how many: `kind` (boolean, text, number, array, other, or null where there is none), `value`,
which is null but for the first three, and `products`. Several rows may be of one value."""


class Attribute(Protocol):
    """Of a key; all conditions are false of a product that has no such attribute."""

    def equals(self, wanted: Scalar) -> Condition: ...
    def reaches(self, least: float) -> Condition: ...
    def keeps_below(self, most: float) -> Condition: ...
    def contains(self, wanted: Scalar) -> Condition: ...
    def is_set(self) -> Condition: ...
    def number(self) -> sa.ColumnElement[float | None]: ...
    def values(self, among: Sequence[Condition]) -> Values: ...
    def members(self, among: Sequence[Condition]) -> Values: ...


def attribute(dialect: str, key: str) -> Attribute:
    return _InSqlite(key) if dialect == "sqlite" else _InMysql(key)


def attribute_conditions(dialect: str, key: str, wanted: Scalar | AttributeFilter) -> list[Condition]:
    of_key = attribute(dialect, key)
    if not isinstance(wanted, AttributeFilter):
        return [of_key.equals(wanted)]
    conditions = []
    if wanted.any_of is not None:
        conditions.append(sa.or_(*map(of_key.equals, wanted.any_of)))
    if wanted.none_of is not None:
        conditions += [sa.not_(of_key.equals(each)) for each in wanted.none_of]
    if wanted.min is not None:
        conditions.append(of_key.reaches(wanted.min))
    if wanted.max is not None:
        conditions.append(of_key.keeps_below(wanted.max))
    if wanted.contains_any is not None:
        conditions.append(sa.or_(*map(of_key.contains, wanted.contains_any)))
    if wanted.contains_all is not None:
        conditions += map(of_key.contains, wanted.contains_all)
    if wanted.is_set is not None:
        conditions.append(of_key.is_set() if wanted.is_set else sa.not_(of_key.is_set()))
    return conditions


def _different_lists(document: Any) -> sa.Select[Any, int, int]:
    """There are far fewer of them than products."""
    number = sa.func.row_number().over().label("number")
    return sa.select(document.label("document"), PRODUCTS, number).group_by(document)


def _each_once(kind: Any, value: Any, number: Any, products: Any) -> Values:
    """In a list that has the same twice."""
    return sa.select(kind, value, products, number).distinct()


# --- SQLite: json_each has the types, and compares integers and floats as they are ------------------------------------


class _InSqlite:
    """By json_each: a path can't spell every key in each of its versions."""

    def __init__(self, key: str) -> None:
        self._key = key

    def equals(self, wanted: Scalar) -> Condition:
        return self._has(lambda entry: _sqlite_equal(entry, wanted))

    def reaches(self, least: float) -> Condition:
        return self._has(lambda entry: entry.c.type.in_(SQLITE_NUMBERS) & (entry.c.atom >= least))

    def keeps_below(self, most: float) -> Condition:
        return self._has(lambda entry: entry.c.type.in_(SQLITE_NUMBERS) & (entry.c.atom <= most))

    def contains(self, wanted: Scalar) -> Condition:
        def has_member(entry: Any) -> Condition:
            member = _json_each(entry.c.value)
            among = sa.exists().select_from(member).where(_sqlite_equal(member, wanted)).correlate(entry)
            return sa.and_(entry.c.type == "array", among)

        return self._has(has_member)

    def is_set(self) -> Condition:
        return self._has(lambda entry: entry.c.type != "null")

    def number(self) -> sa.ColumnElement[float | None]:
        entry = _json_each(ProductRow.attributes)
        is_number = (entry.c.key == self._key) & entry.c.type.in_(SQLITE_NUMBERS)
        return sa.select(entry.c.atom).where(is_number).limit(1).correlate(ProductRow).scalar_subquery()

    def values(self, among: Sequence[Condition]) -> Values:
        entry = _json_each(ProductRow.attributes)
        is_short = sa.func.length(entry.c.atom) <= LONGEST_COUNTED
        read = entry.c.type.label("type"), sa.case((is_short, entry.c.atom)).label("atom")
        rows = sa.select(*read, PRODUCTS).where(*among).group_by(*read)
        different = rows.select_from(ProductRow).outerjoin(entry, entry.c.key == self._key).subquery()
        return sa.select(*_understood_by_sqlite(different.c), different.c.products)

    def members(self, among: Sequence[Condition]) -> Values:
        entry = _json_each(ProductRow.attributes)
        is_list = (entry.c.key == self._key) & (entry.c.type == "array")
        lists = _different_lists(entry.c.value).select_from(ProductRow).join(entry, is_list).where(*among).subquery()
        member = _json_each(lists.c.document)
        of_list = lists.c.number, lists.c.products
        return _each_once(*_understood_by_sqlite(member.c), *of_list).select_from(sa.join(lists, member, sa.true()))

    def _has(self, condition: Any) -> Condition:
        entry = _json_each(ProductRow.attributes)
        is_fitting = (entry.c.key == self._key) & condition(entry)
        return sa.exists().select_from(entry).where(is_fitting).correlate(ProductRow)


def _json_each(document: Any) -> Any:
    return sa.func.json_each(document).table_valued("key", "value", "type", "atom").alias()


def _sqlite_equal(entry: Any, wanted: Scalar) -> Condition:
    if isinstance(wanted, bool):
        return sa.and_(entry.c.type == str(wanted).lower())
    if isinstance(wanted, str):
        return sa.and_(entry.c.type == "text", entry.c.atom == wanted)
    return sa.and_(entry.c.type.in_(SQLITE_NUMBERS), entry.c.atom == wanted)


def _understood_by_sqlite(read: Any) -> tuple[sa.Label[Any], sa.Label[Any]]:
    is_short = read.atom.is_not(None) & (sa.func.length(read.atom) <= LONGEST_COUNTED)
    kind = sa.case(
        (read.type.in_(SQLITE_NUMBERS), "number"),
        (read.type.in_(("true", "false")), "boolean"),
        ((read.type == "text") & is_short, "text"),
        (read.type == "array", "array"),
        (read.type.is_(None) | (read.type == "null"), sa.null()),
        else_="other",
    )
    return kind.label("kind"), sa.case((kind.in_(VALUED), read.atom)).label("value")


# --- MySQL and MariaDB: numbers and texts are taken out as text, and compared as what JSON_TYPE says ------------------


class _InMysql:
    def __init__(self, key: str) -> None:
        self._path = f"$.{json.dumps(key)}"  # as documents have it, in ASCII, which is how MariaDB finds it
        self._document = sa.func.json_extract(ProductRow.attributes, self._path)
        self._value = _MysqlValue(self._document)

    def equals(self, wanted: Scalar) -> Condition:
        return _never_unknown(self._value.equals(wanted))

    def reaches(self, least: float) -> Condition:
        double = float(least)
        if double < least:
            double = math.nextafter(double, math.inf)
        return _never_unknown(self._value.is_number((">=", math.ceil(least)), (">=", double)))

    def keeps_below(self, most: float) -> Condition:
        double = float(most)
        if double > most:
            double = math.nextafter(double, -math.inf)
        return _never_unknown(self._value.is_number(("<=", math.floor(most)), ("<=", double)))

    def contains(self, wanted: Scalar) -> Condition:
        document = "JSON_EXTRACT(product.attributes, :path)"
        members = sa.text(MEMBERS.format(document)).bindparams(sa.bindparam("path", self._path, unique=True))
        among = sa.exists().select_from(members).where(_MysqlValue(MEMBER).equals(wanted)).correlate(ProductRow)
        return _never_unknown((self._value.type == "ARRAY") & among)

    def is_set(self) -> Condition:
        return _never_unknown(self._value.type != "NULL")

    def number(self) -> sa.ColumnElement[float | None]:
        return sa.case((self._value.type.in_(MYSQL_NUMBERS), self._value.double))

    def values(self, among: Sequence[Condition]) -> Values:
        read = sa.func.left(self._document, LONGEST_DOCUMENT, type_=sa.String()).label("document")
        different = sa.select(read, PRODUCTS).where(*among).group_by(read).subquery()
        return sa.select(*_understood_by_mysql(different.c.document), different.c.products)

    def members(self, among: Sequence[Condition]) -> Values:
        is_list = sa.func.left(self._document, 1) == "["
        lists = _different_lists(self._document).where(*among, is_list).subquery("lists")
        read = sa.func.left(MEMBER, LONGEST_DOCUMENT, type_=sa.String())
        of_list = lists.c.number, lists.c.products
        joined = sa.join(lists, sa.text(MEMBERS.format("lists.document")), sa.true())
        return _each_once(*_understood_by_mysql(read), *of_list).select_from(joined)


class _MysqlValue:
    """JSON_TYPE tells numbers from others, but MariaDB's takes 1e-07 for an integer: what it looks like counts."""

    def __init__(self, document: sa.ColumnElement[Any]) -> None:
        self.type: sa.ColumnElement[str] = sa.func.json_type(document)
        self.text: sa.ColumnElement[str] = sa.func.json_unquote(document, type_=sa.String())
        self.looks_integer: Condition = self.text.regexp_match(INTEGER)
        self.integer: sa.ColumnElement[int] = sa.cast(self.text, sa.BigInteger)
        self.double: sa.ColumnElement[float] = self.text.op("+", return_type=sa.Double())(sa.literal_column("0e0"))

    def equals(self, wanted: Scalar) -> Condition:
        if isinstance(wanted, bool):
            return sa.and_(self.type == "BOOLEAN", self.text == str(wanted).lower())
        if isinstance(wanted, str):  # as bytes: to a collation that pads, "a" is "a "
            return sa.and_(self.type == "STRING", sa.cast(self.text, sa.LargeBinary) == wanted.encode())
        is_whole, is_double = float(wanted).is_integer(), float(wanted) == wanted
        return self.is_number(("=", int(wanted)) if is_whole else None, ("=", float(wanted)) if is_double else None)

    def is_number(self, as_integer: tuple[str, int] | None, as_double: tuple[str, float] | None) -> Condition:
        """An operator and a number for each of the two kinds; None: nothing of the kind fits."""
        of_integer: Any = sa.false()
        if as_integer is not None:
            bound = max(-MOST, min(MOST, as_integer[1]))
            of_integer = self.integer.bool_op(as_integer[0])(sa.literal_column(str(bound)))
        of_double: Any = sa.false()
        if as_double is not None:
            of_double = self.double.bool_op(as_double[0])(sa.literal(as_double[1], sa.Double()))
        return sa.and_(self.type.in_(MYSQL_NUMBERS), sa.case((self.looks_integer, of_integer), else_=of_double))


def _never_unknown(condition: Condition) -> Condition:
    """So that what does not fit fits its opposite."""
    return sa.func.coalesce(condition, sa.false()) == sa.true()


def _understood_by_mysql(document: Any) -> tuple[sa.Label[Any], sa.Label[Any]]:
    """By its first character: one that is too long is cut off, and no JSON then."""
    first, is_whole = sa.func.left(document, 1), sa.func.char_length(document) < LONGEST_DOCUMENT
    text = sa.case((is_whole, sa.func.json_unquote(document, type_=sa.String())))
    kind = sa.case(
        (first == '"', sa.case((sa.func.char_length(text) <= LONGEST_COUNTED, "text"), else_="other")),
        (first == "[", "array"),
        (first == "{", "other"),
        (first.in_(("t", "f")), "boolean"),
        (first.is_(None) | (first == "n"), sa.null()),
        else_="number",
    )
    value = sa.case((kind == "number", _one_spelling(document)), (kind == "boolean", document), (kind == "text", text))
    return kind.label("kind"), sa.cast(value, sa.LargeBinary).label("value")


def _one_spelling(number: Any) -> sa.ColumnElement[str]:
    """1.0 as 1."""
    double = number.op("+", return_type=sa.Double())(sa.literal_column("0e0"))
    is_integral = (double == sa.func.floor(double)) & (sa.func.abs(double) < 2.0**63)
    return sa.case(
        (number.regexp_match(INTEGER), sa.cast(sa.cast(number, sa.BigInteger), sa.String(24))),
        (is_integral, sa.cast(sa.cast(double, sa.BigInteger), sa.String(24))),
        else_=number,
    )


def read_value(kind: str, value: Any) -> Scalar:
    """Of a row that was counted, as JSON has it; 1.0 as 1, to which it is equal."""
    plain = value.decode() if isinstance(value, bytes) else value
    if kind == "text":
        return str(plain)
    if kind == "boolean":
        return plain in ("true", 1)
    number = json.loads(plain) if isinstance(plain, str) else plain
    return int(number) if float(number).is_integer() and abs(number) < MOST else float(number)

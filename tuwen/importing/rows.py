"""A row of a file as a product's fields: what spreadsheets make of prices and the like is understood, all else refused
with its reason.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from pydantic import JsonValue, TypeAdapter, ValidationError

from data_models import MAX_IMAGES, Attributes, ProductChanges
from tuwen.catalogue.limits import require_within_limits
from tuwen.errors import FieldError, InvalidInput
from tuwen.importing.columns import BadRow, SourceRow, has_lost_digits, named_pictures
from tuwen.settings import Settings

CURRENCIES = re.compile(r"(?i)^(rmb|cny|usd|eur|[¥$€£])|(rmb|cny|usd|eur|[¥$€£元])$")
THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(E\+?\d{1,2})?")
DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}|[1-9]\d{0,2}(\.\d{3})+,\d{1,2}")
_ATTRIBUTES: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(Attributes)


@dataclass(frozen=True)
class ImportRow:
    line: int
    changes: ProductChanges
    """What the row says; its `attributes`, if they are set, in place of those that are there."""
    attributes: dict[str, JsonValue]
    """Of columns of their own: the others that are there stay."""
    image: str | None
    """A path in the archive, or an address."""
    warnings: tuple["RowWarning", ...] = ()
    further: tuple[str, ...] | None = None
    """Pictures behind that one, where the row names all that there shall be; None: it says nothing of them."""

    @property
    def images(self) -> list[str]:
        return [*([self.image] if self.image else []), *(self.further or ())]

    @property
    def sku(self) -> str | None:
        return self.changes.sku


class RowError(NamedTuple):
    line: int
    sku: str | None
    field: str
    reason: str


class RowWarning(NamedTuple):
    """Of a row that goes in all the same."""

    line: int
    sku: str | None
    field: str
    reason: str


def read_row(
    row: SourceRow | BadRow, settings: Settings, quoted: Callable[[str], str] = str
) -> ImportRow | list[RowError]:
    """`quoted`: how a reason says what the row has, before it is cut off or escaped."""
    if isinstance(row, BadRow):
        return [RowError(row.line, None, "row", row.reason)]
    fields = dict(row.fields)
    sku = None if fields.get("sku") is None else str(fields["sku"])
    named = fields.pop("image", None)
    image, further = None, None
    errors: list[FieldError] = []
    try:
        image, further = _pictures(named_pictures(named))
    except InvalidInput as error:
        errors += error.errors
    try:
        _understand(fields, quoted)
        changes = ProductChanges.model_validate(fields)
        attributes = _ATTRIBUTES.validate_python(row.attributes)
        require_within_limits(changes, settings)
    except InvalidInput as error:
        errors += error.errors
    except ValidationError as error:
        errors += _errors_of(error)
    if errors:
        return [RowError(row.line, sku, each.field, each.message) for each in errors]
    return ImportRow(row.line, changes, attributes, image, further=further)


def parse_price(value: Any) -> Any:
    """`￥1,299.00`, `1299元`, `1.299,00`, 1299.0: a decimal's text, or the value itself where it is none."""
    if isinstance(value, bool):
        return str(value)  # which is no price, though Python takes it for a number
    if isinstance(value, float):
        return str(round(Decimal(str(value)), 6).normalize()) if abs(value) < 10**12 else value
    if not isinstance(value, str):
        return value
    text = unicodedata.normalize("NFKC", value)
    text = "".join(CURRENCIES.sub("", text.strip()).split())
    if THOUSANDS.fullmatch(text):
        return text.replace(",", "")
    if DECIMAL_COMMA.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    return text


def _understand(fields: dict[str, Any], quoted: Callable[[str], str]) -> None:
    """In place. Raises InvalidInput."""
    if "price" in fields:
        fields["price"] = parse_price(fields["price"])
        if fields["price"] == "":
            fields["price"] = None
        elif isinstance(fields["price"], str) and not NUMBER.fullmatch(fields["price"]):
            raise InvalidInput.in_field("price", f"is {quoted(fields['price'])[:40]!r}, which is no number")
    for name in ("sku", "group_id"):
        if has_lost_digits(fields.get(name)):
            raise InvalidInput.in_field(
                name,
                f"is {quoted(str(fields[name]))[:40]!r}, a number that a spreadsheet took digits from; "
                "format the column as text, and enter it anew",
            )
    for name in ("sku", "title", "category", "group_id"):
        if isinstance(fields.get(name), int | float) and not isinstance(fields[name], bool):
            fields[name] = str(fields[name])  # as a spreadsheet has a sku of digits
    for name in ("sku", "category", "group_id"):
        if fields.get(name) == "":
            fields[name] = None
    if "attributes" in fields:
        fields["attributes"] = _attributes(fields["attributes"])


def _attributes(value: Any) -> Any:
    if value is None or value == "":
        return {}
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput.in_field("attributes", f"are not JSON: {error}") from error


def _pictures(value: Any) -> tuple[str | None, tuple[str, ...] | None]:
    """The main one and the further ones."""
    if not isinstance(value, list):
        return _picture(value), None
    if len(value) > MAX_IMAGES:
        raise InvalidInput.in_field("image", f"names {len(value)} pictures, the limit is {MAX_IMAGES}")
    names = [name for each in value if (name := _picture(each)) is not None]
    return (names[0], tuple(names[1:])) if names else (None, None)


def _picture(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value.strip() or None if value else None
    raise InvalidInput.in_field("image", "must be a path or an address")


def _errors_of(error: ValidationError) -> Iterator[FieldError]:
    for each in error.errors():
        field = ".".join(str(part) for part in each["loc"]) or "attributes"
        yield FieldError(field, each["msg"].removeprefix("Value error, "))


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

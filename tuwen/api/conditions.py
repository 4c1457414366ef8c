"""What a request demands of the product as it finds it: ETag, If-Match, If-None-Match (RFC 9110), Idempotency-Key."""

import re
from typing import Any

from fastapi import Request, Response

from data_models import Product
from tuwen.catalogue.conditions import ANY_VERSION, Condition, ProductVersion
from tuwen.errors import InvalidInput

# A weak one never fits: it says that two are as good as each other, not that they are the same.
ETAGS = re.compile(r'\s*(?:W/)?"[^"]*"\s*(?:,\s*(?:W/)?"[^"]*"\s*)*')
OURS = re.compile(r'(?<!W/)"(\d{1,19})-(\d{1,10})"')
KEY = re.compile(r"[\x21-\x7e]{1,255}")


def set_etag(response: Response, product: Product) -> None:
    """Of what can be changed: that indexing goes on does not change it."""
    response.headers["ETag"] = f'"{product.product_id}-{product.version}"'


def condition_of(request: Request) -> Condition:
    return Condition(_if_match(request.headers.getlist("if-match")), must_be_new=_if_none_match(request))


def idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not KEY.fullmatch(key):
        raise InvalidInput.in_field("Idempotency-Key", "must be 1 to 255 characters of ASCII without spaces")
    return key


def header(name: str, description: str) -> dict[str, Any]:
    """As OpenAPI."""
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}


IF_MATCH = header("If-Match", "The product's ETag as it was read: if it was changed since, 412. `*`: there is one.")
IF_NONE_MATCH = header("If-None-Match", "`*`: only if there is none yet, else 412.")
IDEMPOTENCY_KEY = header(
    "Idempotency-Key", "Any text of the caller's own. The same request with the same key within a day makes no second."
)


def _if_match(values: list[str]) -> frozenset[ProductVersion] | None:
    if not values:
        return None
    value = ",".join(values)
    if value.strip() == "*":
        return ANY_VERSION
    if not ETAGS.fullmatch(value):
        raise InvalidInput.in_field("If-Match", 'must be * or ETags in quotes, as "7-3"')
    return frozenset(ProductVersion(int(product_id), int(version)) for product_id, version in OURS.findall(value))


def _if_none_match(request: Request) -> bool:
    value = request.headers.get("if-none-match")
    if value is not None and value.strip() != "*":
        raise InvalidInput.in_field("If-None-Match", "must be *")
    return value is not None

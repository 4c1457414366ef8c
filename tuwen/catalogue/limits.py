"""What of a product the settings limit, whichever way it comes in."""

import json
from collections.abc import Mapping
from typing import Any

from data_models import ProductChanges, ProductFields
from tuwen.errors import InvalidInput
from tuwen.settings import Settings


def require_within_limits(product: ProductFields | ProductChanges, settings: Settings) -> None:
    """Raises InvalidInput."""
    if len(product.title) > settings.title_max_length:
        raise InvalidInput.in_field(
            "title", f"has {len(product.title)} characters, the limit is {settings.title_max_length}; shorten it"
        )
    require_few_attributes(product.attributes, settings)


def require_few_attributes(attributes: Mapping[str, Any], settings: Settings) -> None:
    """Raises InvalidInput."""
    if len(json.dumps(attributes, ensure_ascii=False).encode()) > settings.attributes_max_bytes:
        raise InvalidInput.in_field(
            "attributes", f"are over {settings.attributes_max_bytes:,} bytes of JSON; keep fewer"
        )

"""What schemathesis is told of this API (see `test_contract.py`)."""

from typing import Any
from urllib.parse import quote

import schemathesis
from hypothesis import strategies
from PIL import Image

from tests.pictures.files import encoded

# Where files are wanted, some are whole.
PICTURE = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
FILES = [PICTURE, PICTURE[:-20], b"sku,title\nA-1,a\n", b""]
LONGEST_WAIT_S, LONGEST_ALLOWED_S = 0.1, 60
LONGEST_ADDRESS = 60_000


def wait_briefly(_: Any, case: Any, __: Any) -> None:
    """No test needs a minute of `wait_s`; what is too long, and refused, stays."""
    body = case.body
    wait = body.get("wait_s") if isinstance(body, dict) else None
    if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 < wait <= LONGEST_ALLOWED_S:
        case.body = body | {"wait_s": LONGEST_WAIT_S}


def fits_an_address(_: Any, case: Any) -> bool:
    """What is longer the HTTP server refuses, before it is a request of ours (docs/api.md)."""
    parts = [*(case.path_parameters or {}).values(), *(case.query or {}).values()]
    return sum(len(quote(str(part))) for part in parts) < LONGEST_ADDRESS


schemathesis.openapi.format("binary", strategies.sampled_from(FILES) | strategies.binary(max_size=64))
schemathesis.hook("before_call")(wait_briefly)
schemathesis.hook("filter_case")(fits_an_address)

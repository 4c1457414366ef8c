"""What schemathesis is told of this API (see `test_contract.py`)."""

from typing import Any

import schemathesis
from hypothesis import strategies
from PIL import Image

from tests.pictures.files import encoded

# Where files are wanted, some are whole.
PICTURE = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
FILES = [PICTURE, PICTURE[:-20], b"sku,title\nA-1,a\n", b""]
LONGEST_WAIT_S, LONGEST_ALLOWED_S = 0.1, 60


def wait_briefly(_: Any, case: Any, __: Any) -> None:
    """No test needs a minute of `wait_s`; what is too long, and refused, stays."""
    body = case.body
    wait = body.get("wait_s") if isinstance(body, dict) else None
    if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 < wait <= LONGEST_ALLOWED_S:
        case.body = body | {"wait_s": LONGEST_WAIT_S}


schemathesis.openapi.format("binary", strategies.sampled_from(FILES) | strategies.binary(max_size=64))
schemathesis.hook("before_call")(wait_briefly)

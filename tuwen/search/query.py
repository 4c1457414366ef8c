"""What a search asks: the one query that each mode takes."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass

from data_models import SearchMode, SearchRequest
from tuwen.encoders.base import Vector
from tuwen.errors import FieldError, InvalidInput, summary

TO_STANDARD = str.maketrans("-_", "+/")  # from the alphabet of addresses and file names (RFC 4648)
SLICE_CHARACTERS = 256 * 1024  # half a millisecond each


@dataclass(frozen=True)
class Query:
    """What is searched for, brought to a title, a picture's bytes, or a vector that there is already."""

    mode: SearchMode
    text: str | None = None
    image: bytes | None = None
    vector: Vector | None = None
    is_stored: bool = False
    """The picture is one of ours: it was checked when it came in, and the limits may have been lowered since."""
    without_product_ids: frozenset[int] = frozenset()


def require_one_query(request: SearchRequest, has_upload: bool) -> None:
    """A mode takes exactly one query, of its own kind; an upload beside `terms` is one of them."""
    if request.terms and request.lexical:
        raise InvalidInput.in_field("lexical", "goes with one text, not with terms")
    given = {
        "text": request.text is not None,
        "image": has_upload,
        "image_base64": request.image_base64 is not None,
        "image_url": request.image_url is not None,
        "product_id": request.product_id is not None,
        "terms": bool(request.terms),
    }
    names = [name for name, is_given in given.items() if is_given]
    if request.mode.query_is_image:
        allowed = ["image", "image_base64", "image_url", "product_id", "terms"]
    else:
        allowed = ["text", "product_id", "terms"]
    if request.is_fused:
        allowed.remove("terms")  # words have no direction
    is_one_more_term = (
        names == ["image", "terms"] and "terms" in allowed and request.mode is not SearchMode.TEXT_TO_TEXT
    )
    if is_one_more_term or (len(names) == 1 and names[0] in allowed):
        _require_terms_of_mode(request, has_upload)
        return
    need = f"mode {request.mode.value} needs exactly one of: {', '.join(allowed)}"
    said = f"this request has {' and '.join(names)}" if names else "this request has none of them"
    wrong = [name for name in names if name not in allowed] or names or [allowed[0]]
    raise InvalidInput(f"{need}; {said}.", [FieldError(name, need) for name in wrong])


def _require_terms_of_mode(request: SearchRequest, has_upload: bool) -> None:
    if request.terms and not has_upload and all(term.weight < 0 for term in request.terms):
        raise InvalidInput.in_field("terms", "have no weight above 0; say what is wanted, too")
    if request.mode is not SearchMode.TEXT_TO_TEXT:
        return
    wrong = [
        FieldError(
            f"terms.{number}.{name}",
            "is no text, and mode text_to_text compares texts alone; the modes of CLIP take both",
        )
        for number, term in enumerate(request.terms)
        for name in ("image_base64", "image_url")
        if getattr(term, name) is not None
    ]
    if wrong:
        raise InvalidInput(summary(wrong), wrong)


def decode_base64(encoded: str) -> bytes:
    """Base64 of either alphabet, padded or not, or a data: URL. A large one is no work for the event loop."""
    try:
        return b"".join(_decoded_slices(encoded))
    except (binascii.Error, ValueError) as error:
        raise InvalidInput.in_field("image_base64", f"is not base64: {error}") from error


def _decoded_slices(encoded: str) -> Iterator[bytes]:
    """In one piece Python would let no other thread run until its end, not even the event loop's."""
    start = encoded.find(",") + 1 if encoded[:SLICE_CHARACTERS].lstrip()[:5].lower() == "data:" else 0
    rest = ""
    for begin in range(start, len(encoded), SLICE_CHARACTERS):
        characters = rest + "".join(encoded[begin : begin + SLICE_CHARACTERS].split()).translate(TO_STANDARD)
        whole = len(characters) - len(characters) % 4
        # What is kept back is the last of all, or more follows it: only the last may end in padding.
        whole = max(0, whole - 4)
        rest = characters[whole:]
        decoded = base64.b64decode(characters[:whole], validate=True)
        if len(decoded) * 4 != whole * 3:
            raise ValueError("Excess data after padding")
        yield decoded
    yield base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True)
